"""Loss along training read by two clocks: tokens seen, and τ = ∫ rate d(step). Which of them makes it a power law?

Part of `checkpoint_dynamics.py` and `time_exponents.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.errors import FitError
from llmprobe.families import Family, Member, schedule
from llmprobe.fitting import FitResult, PowerLawSum, WindowFit, fit, fit_window
from llmprobe.fitting.law import Offset
from llmprobe.observations import Observation
from llmprobe.report import figures

NAMES = {"tokens": "training tokens", "tau": "τ = ∫ rate"}
ALIKE = 2.0
"""Differences of the corrected Akaike criterion below this say nothing."""


@dataclass(frozen=True)
class Reading:
    """A curve against one clock: its straight stretch, and a law with an offset from there on, where there are any."""

    clock: str
    x: np.ndarray
    stretch: WindowFit | None
    offset: FitResult | None
    problems: tuple[str, ...]


def tau(family: Family, member: Member, step: int | None) -> float | None:
    """τ of a checkpoint by its published schedule; None where schedule or step is not known."""
    plan = schedule(family, member)
    return None if plan is None or step is None else float(plan.tau(step))


def read(clock: str, x: Sequence[float], losses: Sequence[float]) -> Reading:
    """The longest straight stretch of the curve, and L = E + A x^(−α) from its start on."""
    problems, stretch, offset = [], None, None
    try:
        stretch = fit_window(x, losses, law=PowerLawSum((clock,)))
    except FitError as error:
        problems.append(f"no straight stretch: {error}")
    start = stretch.window.lo if stretch else 0.0
    late = [(t, v) for t, v in zip(x, losses, strict=True) if t >= start]
    try:
        offset = fit(PowerLawSum((clock,), offset="shared"), [t for t, _ in late], [v for _, v in late])
    except FitError as error:
        problems.append(f"no fit with an offset: {error}")
    return Reading(clock, np.asarray(x, dtype=float), stretch, offset, tuple(problems))


def tell(reading: Reading) -> None:
    """The reading in lines."""
    name, stretch, result = reading.clock, reading.stretch, reading.offset
    if stretch is not None:
        low, high = stretch.spread
        console.say(
            f"loss ~ {name}^(-{stretch.exponent:.3f} ± {stretch.stderr:.3f}) from {stretch.window.lo:.3g} to "
            f"{stretch.window.hi:.3g}; {low:.3f} to {high:.3f} on windows near it"
        )
        console.say(f"window: {stretch.window.rule}")
    if result is not None:
        parts = (f"{k} = {v:.4g} [{result.ci95[k][0]:.3g}, {result.ci95[k][1]:.3g}]" for k, v in result.params.items())
        console.say(f"with an offset, from there on: {', '.join(parts)}")
        for warning in result.warnings:
            console.say(f"  note: {warning}")
    for problem in reading.problems:
        console.say(problem)


def compared(readings: Sequence[Reading], losses: Sequence[float]) -> list[str]:
    """Which clock fits better, with and without an offset, on the points that both stretches' starts leave.

    Both laws have the same number of parameters and the same y, so the criterion differs by n ln(RSS/RSS).
    """
    starts = [r.stretch.window.lo if r.stretch else 0.0 for r in readings]
    keep = np.logical_and.reduce([r.x >= start for r, start in zip(readings, starts, strict=True)])
    y, lines = np.asarray(losses)[keep], []
    offsets: tuple[Offset, ...] = ("none", "shared")
    for offset in offsets:
        try:
            found = {r.clock: _fitted(r.clock, r.x[keep], y, offset) for r in readings}
        except FitError as error:
            lines.append(f"clocks are not compared, offset {offset}: {error}")
            continue
        rss = {clock: float(np.sum(result.residuals**2)) for clock, result in found.items()}
        best = min(rss, key=rss.__getitem__)
        worst = max(rss, key=rss.__getitem__)
        gain = len(y) * float(np.log(rss[worst] / rss[best]))
        verdict = f"{best} fits better" if gain > ALIKE else "neither clock fits better"
        scatter = ", ".join(f"{clock} {np.sqrt(value / len(y)):.2%}" for clock, value in rss.items())
        lines.append(f"{verdict}, offset {offset}: ΔAICc {gain:.1f} on {len(y)} checkpoints (scatter {scatter})")
    return lines


def held(clock: str, x: Sequence[float], losses: Sequence[float], exponents: Mapping[str, float]) -> str:
    """Which of these exponents, held fast beside a free amplitude and offset, fits the curve better."""
    scatter: dict[str, float] = {}
    for name, value in exponents.items():
        law = PowerLawSum((clock,), offset="shared", fixed={f"alpha_{clock}": value})
        try:
            scatter[name] = float(np.sqrt(np.mean(fit(law, x, losses).residuals ** 2)))
        except FitError as error:
            return f"exponents are not compared: {error}"
    best = min(scatter, key=scatter.__getitem__)
    gain = 2 * len(losses) * float(np.log(max(scatter.values()) / scatter[best]))
    verdict = f"the exponent of {best} fits better" if gain > ALIKE else "no exponent fits better"
    told = ", ".join(f"{name} {value:.1%}" for name, value in scatter.items())
    return f"{verdict} over an offset: ΔAICc {gain:.1f} on {len(losses)} checkpoints (scatter {told})"


def _fitted(clock: str, x: np.ndarray, y: np.ndarray, offset: Offset) -> FitResult:
    return fit(PowerLawSum((clock,), offset=offset), x, y)


def figure(rows: Sequence[Observation], readings: Sequence[Reading]) -> Figure:
    """Loss against each clock, the straight stretch drawn."""
    with figures.canvas(0.4 + 6.0 * len(readings), 4.2) as drawn:
        for axes, reading in zip(drawn.subplots(1, len(readings), squeeze=False)[0], readings, strict=True):
            look = {"color": figures.COLORS[1], "marker": figures.MARKERS["llm"], "ls": ""}
            errors = [1.96 * (row.stderr or 0.0) for row in rows]
            axes.errorbar(reading.x, [row.value for row in rows], yerr=errors, **look)
            stretch = reading.stretch
            if stretch is not None:
                ends = [stretch.window.lo, stretch.window.hi]
                label = f"exponent {stretch.exponent:.3f} ± {stretch.stderr:.3f}"
                axes.plot(ends, stretch.result.predict(ends), color=figures.INK, lw=1, label=label)
                axes.legend()
            axes.set(xscale="log", yscale="log", xlabel=NAMES[reading.clock], ylabel="loss (nats per token)")
        return drawn


def clocks(rows: Sequence[Observation], taus: Mapping[str, float | None]) -> dict[str, list[float]]:
    """The x's of each clock that is known for all rows, by its name; `taus` are by source."""
    known = {"tokens": [float(row.tokens or 0) for row in rows]}
    found = [taus.get(row.model) for row in rows]
    return known if None in found else known | {"tau": [float(one or 0) for one in found]}
