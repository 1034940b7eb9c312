"""Two regimes of the toy model: growth makes superposition strong, decay makes it weak (arXiv:2505.10465, Figs 3–6).

Trains a grid of weight decay γ × data exponent α × width m and shows, beside what was published: the represented
fraction phi and the strong fraction, the exponent α_m of the loss against width, the loss against what is left
unlearned, and the mean square overlap in three definitions against 1/m and Welch's bound.

    python recipes/toy_regimes.py --quick      under three minutes on two cores
    python recipes/toy_regimes.py              the paper's 1,020 runs: about a minute each on one core
    python recipes/toy_regimes.py --published  cells over the whole map against the published points, one by one
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import toy_published
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from llmprobe import console
from llmprobe.errors import ConfigError
from llmprobe.observations import ObservationStore
from llmprobe.overlap.statistics import welch_mean_sq
from llmprobe.report.figures import COLORS, STYLE, save
from toymodels.executors import Machine
from toymodels.superposition.config import WIDTHS, preset
from toymodels.superposition.runs import sweep
from toymodels.superposition.theory import strong_exponent, weak_exponent
from toymodels.superposition.width_curve import OVERLAPS, WidthCurve, width_curves

STUDY = "toy_regimes"
GAMMAS = tuple(float(g) for g in np.linspace(-1, 1, 10))
ALPHAS = tuple(float(a) for a in np.linspace(0, 2, 17))
HEADER = (
    "γ",
    "α",
    "α_m",
    "±",
    "window",
    "α_m there",
    "±",
    "R²",
    "published",
    "phi½",
    "phi_1",
    "m·c²",
    "m·c² long",
    "m·plain",
)


@dataclass(frozen=True)
class Config(Machine):
    """Which grid, and where."""

    quick: bool = False
    """A small grid of short runs."""
    published: bool = False
    """Train the cells of `toy_published.CELLS` instead, cell by cell, and set them beside the published points."""
    gammas: tuple[float, ...] | None = None
    """Weight decays γ; the paper's ten when left out."""
    alphas: tuple[float, ...] | None = None
    """Data exponents α; the paper's seventeen when left out."""
    seeds: tuple[int, ...] = (0,)
    """A curve holds the runs of all of them; several give honest errors."""
    bias_start: float = 1.0
    """Biases start from N(0, this²); 1 as published, 0 to see the weak regime without features that die."""
    out: Path = Path("runs/toy_regimes")
    """Where observations, figures and the table go."""


def main(config: Config) -> list[WidthCurve]:
    """Train what is missing, then draw and tabulate."""
    if config.published:
        beside_published(config)
        return []
    name = "quick" if config.quick else "small"
    gammas = config.gammas or ((-1.0, 0.1) if config.quick else GAMMAS)
    alphas = config.alphas or ((1.0, 1.5) if config.quick else ALPHAS)
    store = ObservationStore(config.out / "observations.jsonl")
    grid = [
        [
            preset(name, m=m, weight_decay=g, data_exponent=a, bias_start=config.bias_start, seed=seed)
            for seed in config.seeds
            for m in WIDTHS[name]
        ]
        for g in gammas
        for a in alphas
    ]
    found = width_curves(grid, store, config, STUDY)
    lines = console.table([table_row(curve) for curve in found], HEADER)
    (config.out / "table.txt").write_text(lines + "\n", encoding="utf-8")
    console.say(lines)
    for title, figure in figures(found).items():
        save(figure, str(config.out / f"{title}.png"))
    console.say(f"\nfigures in {config.out.resolve()}")
    return found


def beside_published(config: Config) -> pd.DataFrame:
    """Train the chosen cells in their order, and compare them point by point; see `toy_published`.

    Raises
    ------
    ConfigError
        Settings that the published runs did not have.
    """
    if config.quick or config.gammas or config.alphas or config.bias_start != 1:
        raise ConfigError(
            "--published with settings of its own", expected="the published protocol", fix="leave the other flags out"
        )
    store = ObservationStore(config.out / "observations.jsonl")
    rows: list[dict[str, Any]] = []
    with config.executor() as pool:
        for g, a in toy_published.CELLS:
            runs = [
                preset("small", m=m, weight_decay=g, data_exponent=a, seed=seed)
                for seed in config.seeds
                for m in WIDTHS["small"]
            ]
            rows += sweep(runs, store, pool, study=STUDY, device=config.device)
    return toy_published.report(toy_published.runs_of(rows), config.out)


def table_row(curve: WidthCurve) -> tuple[object, ...]:
    """One line: the exponent over all widths and on the straight stretch, and the overlaps relative to 1/m."""
    g, a = curve.config.weight_decay, curve.config.data_exponent
    whole, window = curve.whole(), curve.window()
    m = curve.column("m")
    there = (
        (f"{window.window.lo:g}–{window.window.hi:g}", window.exponent, window.stderr)
        if window
        else ("none", float("nan"), float("nan"))
    )
    scaled = [float(np.nanmean(m * curve.overlaps[name])) for name in OVERLAPS]
    published = strong_exponent(a) if g < 0 else weak_exponent(a)
    phi = [float(curve.column(name).mean()) for name in ("phi_half", "phi_one")]
    return (g, a, whole.exponent, whole.stderr, *there, whole.result.r2, published, *phi, *scaled)


def figures(found: Sequence[WidthCurve]) -> dict[str, Figure]:
    """The paper's views of the grid."""
    with mpl.rc_context(STYLE):
        drawn = {
            "losses": loss_figure(found),
            "phi": phi_figure(found),
            "strong_fraction": strong_figure(found),
            "exponents": exponent_figure(found),
            "overlaps": overlap_figure(found),
        }
        weak = [c for c in found if c.config.weight_decay > 0]
        return {**drawn, "unlearned": unlearned_figure(weak)} if weak else drawn


def called(curve: WidthCurve) -> str:
    """What a legend calls a curve."""
    return f"γ = {curve.config.weight_decay:.2g}, α = {curve.config.data_exponent:g}"


def loss_figure(found: Sequence[WidthCurve]) -> Figure:
    """Loss against width with its law over all widths, a panel per regime."""
    panels = {
        title: [c for c in found if c.config.weight_decay * sign > 0]
        for title, sign in (("growth: strong superposition", -1), ("decay: weak superposition", 1))
    }
    panels = {title: curves for title, curves in panels.items() if curves}
    figure = Figure(figsize=(4.4 * max(1, len(panels)), 3.8))
    for place, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for k, c in enumerate(curves):
            m, fit, color = c.by_width("m")[0], c.whole(), COLORS[k % len(COLORS)]
            label = f"{called(c)}: α_m = {fit.exponent:.2f} ± {fit.stderr:.2f}"
            axes.loglog(c.column("m"), c.column("loss"), "o", ms=4, color=color)
            axes.loglog(m, fit.result.params["A_x"] * m**-fit.exponent, color=color, lw=1, label=label)
        axes.set(xlabel="width m", ylabel="loss", title=title)
        axes.legend()
    return figure


def phi_figure(found: Sequence[WidthCurve]) -> Figure:
    """Represented fraction over γ, a line per α."""
    figure = Figure(figsize=(5.6, 4))
    axes = figure.subplots()
    for k, a in enumerate(sorted({c.config.data_exponent for c in found})):
        line = sorted(
            (c.config.weight_decay, c.column("phi_half").mean()) for c in found if c.config.data_exponent == a
        )
        axes.plot(*zip(*line, strict=True), "o-", ms=4, color=COLORS[k % len(COLORS)], label=f"α = {a:g}")
    axes.set(xlabel="weight decay γ", ylabel="represented fraction φ½", title="Growth represents all features")
    axes.legend()
    return figure


def strong_figure(found: Sequence[WidthCurve]) -> Figure:
    """Share of rows longer than 1 against width, a line per γ and α."""
    figure = Figure(figsize=(5.6, 4))
    axes = figure.subplots()
    for k, c in enumerate(found):
        line = "-" if c.config.weight_decay < 0 else "--"
        axes.semilogx(*c.by_width("phi_one"), "o" + line, ms=4, color=COLORS[k % len(COLORS)], label=called(c))
    axes.set(xlabel="width m", ylabel="strong fraction, |W_i| > 1", title="Features given more than unit length")
    if len(found) <= len(COLORS):
        axes.legend()
    return figure


def exponent_figure(found: Sequence[WidthCurve]) -> Figure:
    """α_m against α in both regimes, with the published expectations."""
    figure = Figure(figsize=(5.6, 4))
    axes = figure.subplots()
    grid = np.linspace(0, 2, 81)
    axes.plot(grid, [strong_exponent(a) for a in grid], color=COLORS[0], ls=":", label="max(1, 2(α − 1))")
    axes.plot(grid, [weak_exponent(a) for a in grid], color=COLORS[1], ls=":", label="α − 1")
    for name, color, sign in (("strong, γ < 0", COLORS[0], -1), ("weak, γ > 0", COLORS[1], 1)):
        points = [(c.config.data_exponent, c.whole()) for c in found if c.config.weight_decay * sign > 0]
        for k, (a, fit) in enumerate(points):
            label = name if k == 0 else None
            axes.errorbar([a], [fit.exponent], yerr=[fit.stderr], fmt="o", ms=4, color=color, label=label)
    axes.set(xlabel="data exponent α", ylabel="model exponent α_m", title="How fast the loss falls with width")
    axes.legend()
    return figure


def unlearned_figure(weak: Sequence[WidthCurve]) -> Figure:
    """Loss of weakly superposed models against what their unlearned features carry."""
    figure = Figure(figsize=(5.6, 4))
    axes = figure.subplots()
    for k, curve in enumerate(weak):
        color = COLORS[k % len(COLORS)]
        axes.loglog(curve.unlearned, curve.column("loss"), "o", ms=4, color=color, label=called(curve))
        axes.loglog(curve.by_rank, curve.column("loss"), "x", ms=4, color=color)
    ends = np.array([min(c.unlearned.min() for c in weak), max(c.unlearned.max() for c in weak)])
    axes.loglog(ends, ends, color="grey", lw=1)
    axes.xaxis.set_minor_formatter(NullFormatter())  # over a decade and a half its labels would run together
    axes.legend()
    axes.set(
        xlabel="⟨v²⟩ Σ p_i over the unlearned (×: over as many of the rarest)",
        ylabel="loss",
        title="Weak regime: the loss is what is not learned",
    )
    return figure


def overlap_figure(found: Sequence[WidthCurve]) -> Figure:
    """Mean square overlap against 1/m, three definitions, at the strongest growth of the grid."""
    figure = Figure(figsize=(10.5, 3.8))
    panels = figure.subplots(1, len(OVERLAPS), sharey=True)
    lowest = min(c.config.weight_decay for c in found)
    strong = [c for c in found if c.config.weight_decay == lowest]
    for axes, name in zip(panels, OVERLAPS, strict=True):
        m = np.unique(np.concatenate([c.column("m") for c in strong]))
        n = strong[0].config.n
        axes.loglog(1 / m, 1 / m, color="grey", lw=1, label="1/m")
        axes.loglog(1 / m, [welch_mean_sq(n, int(k)) for k in m], color="grey", lw=1, ls="--", label="Welch")
        for k, curve in enumerate(strong):
            label = f"α = {curve.config.data_exponent:g}"
            axes.loglog(1 / curve.column("m"), curve.overlaps[name], "o", ms=4, color=COLORS[k % 8], label=label)
        axes.set(xlabel="1/m", title=name)
    panels[0].set_ylabel("mean square overlap")
    panels[0].legend()
    return figure


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
