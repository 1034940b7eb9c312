"""More active features raise the loss, not its exponent (arXiv:2505.10465, Fig. 7).

Strong superposition (γ = −1, α = 1) at activation densities E from 1 to the largest that α = 1 allows, where the
first feature is always active. Published: α_m = 1.1 ± 0.1 throughout.

    python recipes/toy_activation_density.py --quick      under three minutes on two cores
    python recipes/toy_activation_density.py              54 runs of one to three minutes each on one core
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.observations import ObservationStore
from llmprobe.report.figures import COLORS, canvas, save
from toymodels.executors import Machine
from toymodels.superposition.config import WIDTHS, preset
from toymodels.superposition.width_curve import WidthCurve, width_curves

STUDY = "toy_activation_density"
PUBLISHED = (1.1, 0.1)
HEADER = ("E", "α_m", "±", "R²", "published", "±", "phi½", "loss at least m", "loss at most m")


@dataclass(frozen=True)
class Config(Machine):
    """What to train, and where."""

    quick: bool = False
    """Three densities and short runs."""
    densities: int = 9
    """Densities from 1 to the largest."""
    seeds: tuple[int, ...] = (0,)
    """A curve holds the runs of all of them."""
    out: Path = Path("runs/toy_activation_density")
    """Where observations, figure and table go."""


def main(config: Config) -> list[WidthCurve]:
    """Train what is missing, then draw and tabulate."""
    name = "quick" if config.quick else "small"
    n = preset(name).n
    largest = float(np.sum(1 / np.arange(1, n + 1)))  # p_1 = 1
    densities = np.linspace(1, largest, 3 if config.quick else config.densities)
    store = ObservationStore(config.out / "observations.jsonl")
    grid = [
        [
            preset(name, m=m, activation_density=round(float(E), 4), seed=seed)
            for seed in config.seeds
            for m in WIDTHS[name]
        ]
        for E in densities - 1e-4 * (densities > 1)  # rounding must not lift p_1 above 1
    ]
    found = width_curves(grid, store, config, STUDY)
    lines = console.table([table_row(curve) for curve in found], HEADER)
    (config.out / "table.txt").write_text(lines + "\n", encoding="utf-8")
    console.say(lines)
    save(figure(found), str(config.out / "activation_density.png"))
    console.say(f"\nfigure in {config.out.resolve()}")
    return found


def table_row(curve: WidthCurve) -> tuple[object, ...]:
    """One line: ours beside what was published."""
    fit, (_, loss) = curve.whole(), curve.by_width("loss")
    phi = float(curve.column("phi_half").mean())
    E = curve.config.activation_density
    return (E, fit.exponent, fit.stderr, fit.result.r2, *PUBLISHED, phi, float(loss[0]), float(loss[-1]))


def figure(found: Sequence[WidthCurve]) -> Figure:
    """Loss against width for each density, and the exponents."""
    with canvas(8.4, 3.8) as drawing:
        left, right = drawing.subplots(1, 2)
        for k, curve in enumerate(found):
            E, fit, color = curve.config.activation_density, curve.whole(), COLORS[k % len(COLORS)]
            left.loglog(*curve.by_width("loss"), "o-", ms=4, lw=1, color=color, label=f"E = {E:.2f}")
            right.errorbar([E], [fit.exponent], yerr=[fit.stderr], fmt="o", ms=4, color=color)
        value, error = PUBLISHED
        right.axhspan(value - error, value + error, color="grey", alpha=0.2, lw=0)
        left.set(xlabel="width m", ylabel="loss")
        right.set(xlabel="activation density E", ylabel="model exponent α_m", ylim=(0, 1.6), title="grey: published")
        left.legend()
        return drawing


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
