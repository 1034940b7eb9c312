"""Width, depth and data as three power laws: how the answer moves with the points that are kept.

L = c_m/m^{α_m} + c_ℓ/ℓ^{α_ℓ} + c_D/D^{α_D} + L_0 on the lowest losses of the Chinchilla reconstruction, as
arXiv:2602.05970 fits its about 200 lowest; beside it what choosing points by their loss does to a law that holds for
all of them, and the same law in width and depth on the published losses of 27 open models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.errors import FitError
from llmprobe.families import load_families
from llmprobe.fitting.bootstrap import Bootstrap, bootstrap
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.objective import Loss
from llmprobe.fitting.result import FitResult
from llmprobe.frames import known, labels, numbers, read_frame
from llmprobe.report.figures import COLORS, INK, canvas

if TYPE_CHECKING:
    import pandas as pd

LAW = PowerLawSum(("d_model", "n_layers", "num_tokens"), offset="shared")
SYMBOLS = {"d_model": "α_m", "n_layers": "α_ℓ", "num_tokens": "α_D"}
PUBLISHED = {"d_model": (0.98, 0.08), "n_layers": (1.2, 0.3), "num_tokens": (0.30, 0.01)}
"""arXiv:2602.05970, about 200 lowest losses; it predicts 1, 1 and 1/3."""
PREDICTED = {"d_model": 1.0, "n_layers": 1.0, "num_tokens": 1 / 3}
KEPT = tuple(range(120, 241, 10))
LOSSES: tuple[Loss, ...] = ("linear", "huber")

Fits = dict[tuple[Loss, int], FitResult]


def kept_fits(frame: pd.DataFrame, delta: float, counts: Sequence[int] = KEPT) -> Fits:
    """The law on the lowest losses, for each number of them and each way of fitting."""
    rows = frame.dropna(subset=list(LAW.x)).sort_values("loss")
    parts = {count: rows.iloc[:count] for count in counts if count <= len(rows)}
    return {
        (loss, count): fit(LAW, {x: part[x] for x in LAW.x}, part["loss"], loss=loss, delta=delta)
        for loss in LOSSES
        for count, part in parts.items()
    }


def selected(
    result: FitResult, counts: Sequence[int], draws: int, seed: int
) -> dict[int, dict[str, tuple[float, float]]]:
    """Exponents of data that obey `result` everywhere, scattered as it is, after keeping their lowest losses.

    Returns
    -------
    By number kept: mean and standard deviation over draws of each exponent. A drift here is the choice's own.
    """
    rng = np.random.default_rng(seed)
    relative = np.log(result.data.y) - np.log(result.fitted)
    found: dict[int, list[list[float]]] = {count: [] for count in counts}
    for _ in range(draws):
        y = result.fitted * np.exp(rng.choice(relative, len(relative)))
        order = np.argsort(y)
        for count in counts:
            lowest = order[:count]
            again = fit(LAW, {x: result.data.x[x][lowest] for x in LAW.x}, y[lowest], loss="linear")
            found[count].append([again.params[f"alpha_{x}"] for x in LAW.x])
    summaries = {count: (np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)) for count, rows in found.items()}
    return {
        count: {x: (float(mean[k]), float(std[k])) for k, x in enumerate(LAW.x)}
        for count, (mean, std) in summaries.items()
    }


def meets(result: FitResult) -> dict[str, bool]:
    """Which published exponents this fit agrees with: a difference below two joint standard errors."""
    return {
        x: abs(result.params[f"alpha_{x}"] - value) < 2 * np.hypot(result.stderr[f"alpha_{x}"], error)
        for x, (value, error) in PUBLISHED.items()
    }


def kept_table(fits: Fits) -> str:
    """A line per fit: the exponents, the floor, and a * where the published exponent is met."""
    rows = []
    for (loss, count), result in fits.items():
        met = meets(result)
        cells = [
            f"{result.params[f'alpha_{x}']:.3f} ± {result.stderr[f'alpha_{x}']:.3f}{' *' if met[x] else ''}"
            for x in LAW.x
        ]
        rows.append((loss, count, *cells, f"{result.params['E']:.3f} ± {result.stderr['E']:.3f}"))
    return console.table(rows, ("fit", "kept", *SYMBOLS.values(), "L_0"))


def kept_figure(fits: Fits) -> Figure:
    """Each exponent against the number of points kept, the published one as a band, the predicted one dotted."""
    with canvas(10.0, 3.4) as figure:
        for axes, x in zip(figure.subplots(1, 3), LAW.x, strict=True):
            value, error = PUBLISHED[x]
            axes.axhspan(value - error, value + error, color=INK, alpha=0.12, lw=0, label="arXiv:2602.05970")
            axes.axhline(PREDICTED[x], color=INK, lw=0.9, ls=":", label="predicted")
            for shift, loss, color in zip((-1, 1), LOSSES, COLORS, strict=False):
                results = {count: result for (kind, count), result in fits.items() if kind == loss}
                y = [result.params[f"alpha_{x}"] for result in results.values()]
                bars = [result.stderr[f"alpha_{x}"] for result in results.values()]
                axes.errorbar([count + shift for count in results], y, bars, color=color, marker="o", ms=4, label=loss)
            axes.set(xlabel="lowest losses kept", ylabel=SYMBOLS[x], ylim=(0, 2 * value + 0.2))
        figure.axes[0].legend()
        return figure


def losses_with_layers(path: Path) -> pd.DataFrame:
    """Published losses of open models, with the layers of each from the table of families.

    Raises
    ------
    FitError
        Columns are missing, or a model is not in the table.
    """
    frame = read_frame(path)
    known(frame, ["family", "model", "m", "corpus", "L"])
    members = {member.id.rpartition("/")[2].lower(): member for f in load_families().values() for member in f.members}
    names = [str(name).lower() for name in frame["model"]]
    if unknown := sorted({name for name in names if name not in members or members[name].layers is None}):
        raise FitError(f"layers of {', '.join(unknown)} are not known", expected="models of the table of families")
    return frame.assign(layers=[members[name].layers for name in names])


def width_and_depth(frame: pd.DataFrame, resamples: int, seed: int) -> tuple[FitResult, FitResult, Bootstrap]:
    """L(m) and L(m, ℓ), an offset per family and corpus, and the bootstrap of the latter over whole models."""
    group, y = labels(frame, ["family", "corpus"]), numbers(frame, "L")
    x: Mapping[str, np.ndarray] = {"m": numbers(frame, "m"), "layers": numbers(frame, "layers")}
    alone = fit(PowerLawSum(("m",), offset="group"), x["m"], y, group=group, loss="linear")
    both = fit(PowerLawSum(("m", "layers"), offset="group"), x, y, group=group, loss="linear")
    models = labels(frame, ["family", "model"])
    return alone, both, bootstrap(both, resamples, cluster=models, seed=seed)
