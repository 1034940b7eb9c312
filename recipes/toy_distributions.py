"""Three data distributions, two regimes: only strong superposition is robust (arXiv:2505.10465, Fig. 1).

Feature frequencies fall exponentially, as a power law or linearly. With decay (weak superposition) the loss is a
power law of the width only for power-law data; with growth (strong) it is one for all three, near 1/m.

    python recipes/toy_distributions.py --quick           under three minutes on two cores
    python recipes/toy_distributions.py --preset small    36 runs of about a minute each on one core
    python recipes/toy_distributions.py                   the paper's size (n = 10240, m to 1024): wants a GPU
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.observations import ObservationStore
from llmprobe.report.figures import COLORS, canvas, save
from toymodels.executors import Machine
from toymodels.superposition.config import WIDTHS, preset
from toymodels.superposition.width_curve import WidthCurve, width_curves

STUDY = "toy_distributions"
LAWS = ("exponential", "power", "linear")
GAMMAS = {"strong": -1.0, "weak": 0.1}
# exponent and R² as published; the weak regime has no exponent but for power-law data, α − 1
PUBLISHED = {
    ("strong", "exponential"): (1.01, None),
    ("strong", "power"): (0.98, None),
    ("strong", "linear"): (0.89, None),
    ("weak", "exponential"): (None, 0.80),
    ("weak", "power"): (None, 0.99),
    ("weak", "linear"): (None, 0.87),
}
HEADER = ("regime", "distribution", "α_m", "±", "R²", "published α_m", "published R²", "phi½")


@dataclass(frozen=True)
class Config(Machine):
    """What to train, and where."""

    quick: bool = False
    """Short runs of the preset `quick`."""
    preset: str = "large"
    """Settings of a run: large as published, or small."""
    data_exponent: float = 1.2
    """α of the power law."""
    seeds: tuple[int, ...] = (0,)
    """A curve holds the runs of all of them."""
    out: Path = Path("runs/toy_distributions")
    """Where observations, figure and table go."""


def main(config: Config) -> dict[tuple[str, str], WidthCurve]:
    """Train what is missing, then draw and tabulate."""
    name = "quick" if config.quick else config.preset
    store = ObservationStore(config.out / "observations.jsonl")
    grid = {
        (regime, law): [
            preset(
                name,
                m=m,
                frequency_law=law,
                weight_decay=gamma,
                data_exponent=config.data_exponent,
                seed=seed,
            )
            for seed in config.seeds
            for m in WIDTHS[name]
        ]
        for regime, gamma in GAMMAS.items()
        for law in LAWS
    }
    found = dict(zip(grid, width_curves(list(grid.values()), store, config, STUDY), strict=True))
    lines = console.table([table_row(*key, curve) for key, curve in found.items()], HEADER)
    (config.out / "table.txt").write_text(lines + "\n", encoding="utf-8")
    console.say(lines)
    save(figure(list(found.items())), str(config.out / "distributions.png"))
    console.say(f"\nfigure in {config.out.resolve()}")
    return found


def table_row(regime: str, law: str, curve: WidthCurve) -> tuple[object, ...]:
    """One line: ours beside what was published."""
    fit = curve.whole()
    phi = float(curve.column("phi_half").mean())
    return (regime, law, fit.exponent, fit.stderr, fit.result.r2, *PUBLISHED[regime, law], phi)


def figure(found: Sequence[tuple[tuple[str, str], WidthCurve]]) -> Figure:
    """Loss against width, a panel per regime."""
    with canvas(8.4, 3.8) as drawing:
        panels = dict(zip(GAMMAS, drawing.subplots(1, 2), strict=True))
        for (regime, law), curve in found:
            m, fit = curve.column("m"), curve.whole()
            color = COLORS[LAWS.index(law)]
            panels[regime].loglog(m, curve.column("loss"), "o", ms=4, color=color)
            A, alpha = fit.result.params["A_x"], fit.exponent
            label = f"{law}: α_m = {alpha:.2f}, R² = {fit.result.r2:.3f}"
            panels[regime].loglog(m, A * m**-alpha, color=color, lw=1, label=label)
        for regime, axes in panels.items():
            axes.set(xlabel="width m", ylabel="loss", title=f"{regime} superposition (γ = {GAMMAS[regime]:g})")
            axes.legend()
        return drawing


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
