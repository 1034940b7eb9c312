"""What the published losses of 27 open models say of width, errors counted by model (arXiv:2505.10465, Fig. 8b).

The 108 losses (four families, four corpora) pass through the common fit L = A/m^α + B(family, corpus). One model's four
corpora are not independent, so errors are clustered by model, beside those of independent points and of a bootstrap
that draws models within families. Then: each family by itself, each model left out, and rival laws (α = 1, parameters
in place of width, depth, width and depth), judged by resampled models and by models they have not seen.

    python recipes/published_losses.py      a minute on one core; needs no network and no model
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from llmprobe import console
from llmprobe.cache import atomic
from llmprobe.fitting import FitResult, PowerLawSum, bootstrap, fit, profile
from llmprobe.fitting.validation import leave_one_out
from llmprobe.report.figures import COLORS, INK, canvas, save
from llmprobe.report.published import fit_losses, published_losses, published_table
from llmprobe.settings import Natural, Settings, Within

if TYPE_CHECKING:
    import pandas as pd

WIDTH = "A/m^a"
RIVALS = {
    WIDTH: PowerLawSum(("m",), offset="group"),
    "A/m": PowerLawSum(("m",), offset="group", fixed={"alpha_m": 1.0}),
    "A/N^a": PowerLawSum(("n_params",), offset="group"),
    "A/N'^a": PowerLawSum(("non_embedding",), offset="group"),
    "C/l^b": PowerLawSum(("depth",), offset="group"),
    "A/m^a + C/l^b": PowerLawSum(("m", "depth"), offset="group"),
}
"""Laws by name, all with an offset per family and corpus: N all parameters, N' those without embeddings, l layers."""


@dataclass(frozen=True)
class Config(Settings):
    """Settings of the study."""

    resamples: Annotated[int, Within(100.0)] = 4000
    """Resamples of whole models."""
    seed: Natural = 0
    """Of the resamples."""
    out: Path = Path("runs/published_losses")
    """Folder of the figure and the results."""


@dataclass(frozen=True)
class Rival:
    """A law beside the width law, on the same resampled models.

    Attributes
    ----------
    exponents
        Value, clustered standard error, and 95 % interval of each.
    rmse, unseen
        Root mean square residual, and that of models left out whole, in nats.
    gain
        n/2 · log(S_width/S), S the summed squares: positive where this law fits better. The estimate on all points,
        then the 95 % interval over resampled models. A law that holds another as a special case can only gain.
    better
        Share of the resamples in which it fits better.
    unseen_gain
        How much lower its squared error on an unseen model is than the width law's, and the standard error of that
        over models, in thousandths of nats².
    """

    name: str
    exponents: dict[str, tuple[float, float, tuple[float, float]]]
    rmse: float
    unseen: float
    gain: tuple[float, float, float]
    better: float
    unseen_gain: tuple[float, float]

    @property
    def verdict(self) -> str:
        """Whether models left out tell it from the width law, by two standard errors."""
        gain, error = self.unseen_gain
        if self.name == WIDTH:
            return ""
        return "not told apart" if abs(gain) < 2 * error else "better" if gain > 0 else "worse"


def main(config: Config) -> dict[str, Any]:
    """Run the study; returns what is written to ``results.json``."""
    frame = published_losses()
    whole = fit_losses(frame)
    drawn = bootstrap(whole, config.resamples, seed=config.seed)
    report = {
        "config": {name: str(value) for name, value in asdict(config).items()},
        "fit": whole.to_dict(),
        "bootstrap": drawn.to_dict(),
        "alpha": errors_of_alpha(whole, drawn.stderr["alpha_m"], drawn.interval("alpha_m")),
        "families": {str(name): exponent(fit_losses(rows)) for name, rows in frame.groupby("family")},
        "without": {name: exponent(fit_losses(frame[frame["model"] != name])) for name in frame["model"].unique()},
        "rivals": [{**asdict(rival), "verdict": rival.verdict} for rival in rivals(frame, config)],
    }
    config.out.mkdir(parents=True, exist_ok=True)
    with atomic(config.out / "results.json") as path:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    save(draw(report), str(config.out / "published_losses.png"))
    tell(report)
    return report


def exponent(result: FitResult, name: str = "alpha_m") -> tuple[float, float, tuple[float, float]]:
    """Value, standard error and 95 % interval."""
    return result.params[name], result.stderr[name], result.ci95[name]


def errors_of_alpha(
    whole: FitResult, drawn: float, interval: tuple[float, float]
) -> dict[str, tuple[float, tuple[float, float] | None]]:
    """Standard error and 95 % interval of α under each way of counting."""
    data, printed = whole.data, published_table()["width_law"]["alpha_stderr"]
    alone = fit(whole.law, data.x, data.y, group=data.group, loss="linear")
    return {
        "as printed (one parameter, others held)": (printed, None),
        "108 independent losses": exponent(alone)[1:],
        "27 models, clustered": exponent(whole)[1:],
        "27 models, profile": (float("nan"), profile(whole, "alpha_m").interval),
        "27 models, bootstrap within families": (drawn, interval),
    }


def rivals(frame: pd.DataFrame, config: Config) -> list[Rival]:
    """Every law of `RIVALS` on the same points and the same resampled models."""
    fits = {name: fit_losses(frame, law) for name, law in RIVALS.items()}
    names = tqdm(fits, unit="law", desc="resampled laws")
    # one seed and one set of models: resample b of every law holds the same models
    sums = {name: bootstrap(fits[name], config.resamples, seed=config.seed).objective for name in names}
    errors = {name: leave_one_out(result).error ** 2 for name, result in fits.items()}
    models = np.unique(frame["model"], return_inverse=True)[1]
    found, half = [], len(frame) / 2
    for name, result in fits.items():
        gains = half * np.log(sums[WIDTH] / sums[name])
        low, high = np.percentile(gains, [2.5, 97.5])
        lower = np.bincount(models, errors[WIDTH] - errors[name]) / np.bincount(models)
        found.append(
            Rival(
                name,
                {key: exponent(result, key) for key in result.params if key.startswith("alpha_")},
                result.rmse,
                float(np.sqrt(errors[name].mean())),
                (half * float(np.log(fits[WIDTH].objective / result.objective)), float(low), float(high)),
                float((gains > 0).mean()),
                (1e3 * float(lower.mean()), 1e3 * float(lower.std(ddof=1) / np.sqrt(len(lower)))),
            )
        )
    return found


def tell(report: dict[str, Any]) -> None:
    """The tables, and what they carry."""
    say, table = console.say, console.table
    params = report["fit"]["params"]
    say(f"L = A/m^α + B(family, corpus): α = {params['alpha_m']:.4f}, A = {params['A_m']:.2f}, 108 losses of 27 models")
    rows = [(name, error, *(interval or ("", ""))) for name, (error, interval) in report["alpha"].items()]
    say(table(rows, ("error of α", "±", "95 % from", "to")))
    rows = [(name, a, e, *interval) for name, (a, e, interval) in report["families"].items()]
    say("\n" + table(rows, ("family", "α", "±", "95 % from", "to")))
    moved = sorted(report["without"].items(), key=lambda item: -abs(item[1][0] - params["alpha_m"]))[:5]
    say("\n" + table([(name, a, e) for name, (a, e, _) in moved], ("without", "α", "±")))
    rows = [
        (
            r["name"],
            ", ".join(f"{a:.2f} ± {e:.2f}" for a, e, _ in r["exponents"].values() if e > 0) or "held at 1",
            r["rmse"],
            r["gain"][0],
            f"{r['gain'][1]:.1f} to {r['gain'][2]:.1f}",
            f"{r['better']:.0%}",
            r["unseen"],
            f"{r['unseen_gain'][0]:.2f} ± {r['unseen_gain'][1]:.2f}",
            r["verdict"],
        )
        for r in report["rivals"]
    ]
    header = (
        "law",
        "exponents",
        "rmse",
        "gain",
        "95 % over models",
        "better in",
        "unseen models",
        "gain there",
        "verdict",
    )
    say("\n" + table(rows, header))
    apart = [name for name, (_, _, (low, high)) in report["families"].items() if not low <= 1 <= high]
    say("\ngain: n/2 log of the summed squares over those of A/m^a; there: error² of models left out, 10^-3 nats²")
    say(f"families whose interval leaves out 1: {', '.join(apart) or 'none'}")


def draw(report: dict[str, Any]) -> Figure:
    """α in every reading of the same 108 losses, each with its 95 % interval."""
    alpha = report["fit"]["params"]["alpha_m"]
    rows = [(name, alpha, interval) for name, (_, interval) in report["alpha"].items() if interval is not None]
    families = [(name, a, interval) for name, (a, _, interval) in report["families"].items()]
    moved = sorted(report["without"].items(), key=lambda item: -abs(item[1][0] - alpha))[:3]
    left_out = [(f"without {name.rpartition('/')[2]}", a, interval) for name, (a, _, interval) in moved]
    with canvas(8.4, 4.6) as figure:
        axes = figure.subplots()
        printed = published_table()["width_law"]
        axes.axvspan(
            *(printed["alpha"] + side * 1.96 * printed["alpha_stderr"] for side in (-1, 1)), color=COLORS[1], alpha=0.2
        )
        axes.axvline(1, color=INK, lw=0.8, ls=":")
        labels = _bars(axes, (rows, left_out, families))
        axes.set_yticks([y for y, _ in labels], [name for _, name in labels])
        axes.set(xlim=(-1, 4), xlabel="exponent of loss in width (dotted: 1; band: as printed)")
        axes.set_title("The 108 published losses, 95 % intervals")
        return figure


def _bars(axes: Any, blocks: Sequence[Sequence[tuple[str, float, tuple[float, float]]]]) -> list[tuple[float, str]]:
    labels: list[tuple[float, str]] = []
    y = 0.0
    for color, block in zip(COLORS, blocks, strict=False):
        for name, value, interval in block:
            axes.plot(interval, [y, y], color=color, lw=2, solid_capstyle="butt")
            axes.plot([value], [y], "o", color=color, ms=6)
            labels.append((y, f"{name}: {value:.2f}"))
            y -= 1
        y -= 0.5
    return labels


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
