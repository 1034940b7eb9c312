"""Curves in training time: what is said of them in a table, and their picture. Part of `time_exponents.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.report.figures import COLORS, INK, canvas
from toymodels.teacher.theory import local_exponent

PUBLISHED = {"mean square": (1.0, "arXiv:2602.01045"), "softmax": (1 / 3, "arXiv:2602.03685")}
KINDS = ("mean square", "softmax", "language model")

Run = tuple[np.ndarray, np.ndarray, tuple[float, float, float, float] | str]
"""Time, loss, and exponent, its error and the window's ends, or why there is no exponent."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Runs that differ in their seed alone.

    Attributes
    ----------
    name, kind, clock
        What it is, of which kind (see `KINDS`), against what.
    t, loss
        The first seed's curve, shape [T].
    exponents
        Of the seeds that have one.
    stderr
        The first such seed's own error, for one seed the only one there is.
    window
        That seed's.
    problem
        Why a seed has none; empty where all have.
    theory
        Loss of a closed form at t, where there is one.
    """

    name: str
    kind: str
    clock: str
    t: np.ndarray
    loss: np.ndarray
    exponents: tuple[float, ...]
    seeds: int
    stderr: float
    window: tuple[float, float] | None
    problem: str = ""
    theory: np.ndarray | None = None
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(
        cls, name: str, kind: str, clock: str, runs: Sequence[Run], theory: np.ndarray | None = None,
        notes: Sequence[str] = (),
    ) -> Curve:  # fmt: skip
        """The curve of some seeds' runs."""
        read = [exponent for _, _, exponent in runs if not isinstance(exponent, str)]
        problems = [exponent for _, _, exponent in runs if isinstance(exponent, str)]
        window = (read[0][2], read[0][3]) if read else None
        stderr = read[0][1] if read else float("nan")
        t, loss, _ = runs[0]
        values = tuple(one[0] for one in read)
        why = problems[0] if problems else ""
        return cls(name, kind, clock, t, loss, values, len(runs), stderr, window, why, theory, tuple(notes))

    @property
    def exponent(self) -> float:
        """Mean over seeds; NaN where no seed has one."""
        return float(np.mean(self.exponents)) if self.exponents else float("nan")

    @property
    def error(self) -> float:
        """The larger of one run's own error and the scatter of seeds."""
        return max(self.stderr, float(np.std(self.exponents, ddof=1))) if len(self.exponents) > 1 else self.stderr

    def nearest(self) -> str:
        """The published exponent nearest to this one, and by how much this one is above it."""
        if not self.exponents:
            return "–"
        value = min((value for value, _ in PUBLISHED.values()), key=lambda v: abs(self.exponent - v))
        return f"{value:.2g} ({self.exponent - value:+.2f})"


def table(curves: Sequence[Curve]) -> str:
    """A line per curve, notes below, the published exponents last."""
    rows: list[tuple[Any, ...]] = []
    for curve in curves:
        window = "–" if curve.window is None else f"{curve.window[0]:.3g} to {curve.window[1]:.3g}"
        value = f"{curve.exponent:.3f} ± {curve.error:.3f}" if curve.exponents else "no power law"
        share = f"{len(curve.exponents)}/{curve.seeds}"
        rows.append((curve.kind, curve.name, value, share, curve.clock, window, curve.nearest()))
    rows += [("published", f"{kind}, {source}", f"{v:.3f}", "", "", "", "") for kind, (v, source) in PUBLISHED.items()]
    lines = [console.table(rows, ("kind", "curve", "exponent", "seeds", "clock", "window", "nearest published"))]
    for curve in curves:
        lines += [f"{curve.name}: {note}" for note in (*curve.notes, curve.problem) if note]
        if curve.theory is not None and curve.window is not None:
            lines.append(f"{curve.name}: {_beside(curve, curve.theory, *curve.window)}")
    return "\n".join(lines)


def _beside(curve: Curve, theory: np.ndarray, low: float, high: float) -> str:
    inside = (curve.t >= low * (1 - 1e-9)) & (curve.t <= high * (1 + 1e-9))
    inside &= np.isfinite(theory)
    ratio = curve.loss[inside] / theory[inside]
    slope = -np.polyfit(np.log(curve.t[inside]), np.log(theory[inside]), 1)[0]
    return (
        f"aligned gradient flow has exponent {slope:.3f} in this window, "
        f"and the run {ratio.min():.2f} to {ratio.max():.2f} times its loss"
    )


def figure(curves: Sequence[Curve]) -> Figure:
    """Loss and local exponent of each kind of curve, each against its own clock; thick in the window that is fitted."""
    kinds = [kind for kind in KINDS if any(curve.kind == kind for curve in curves)]
    with canvas(4.4 * len(kinds), 8.0) as drawn:
        panels = drawn.subplots(3, len(kinds), squeeze=False, height_ratios=(3, 3, 2))
        for (upper, lower, words), kind in zip(panels.T, kinds, strict=True):
            shown = [curve for curve in curves if curve.kind == kind]
            for k, curve in enumerate(shown):
                _draw(upper, lower, curve, COLORS[k % len(COLORS)], "-" if k < len(COLORS) else "--")
            for value, _ in PUBLISHED.values():
                lower.axhline(value, color=INK, lw=0.8, ls=":")
            upper.set_title(kind)
            lower.set(xlabel=shown[0].clock, ylim=(0, 2))
            lower.sharex(upper)
            words.axis("off")
            columns = 1 + (len(shown) > 8)
            words.legend(*upper.get_legend_handles_labels(), fontsize=7, loc="upper center", ncols=columns)
        panels[0, 0].set_ylabel("loss over its first")
        panels[1, 0].set_ylabel("local exponent (dotted: 1 and 1/3)")
        return drawn


def _draw(upper: Any, lower: Any, curve: Curve, color: str, style: str) -> None:
    good = curve.loss > 1e-6 * curve.loss[0]
    t, y = curve.t[good], curve.loss[good] / curve.loss[0]
    label = f"{curve.name}: {curve.exponent:.2f}" if curve.exponents else f"{curve.name}: no power law"
    upper.loglog(t, y, color=color, ls=style, label=label, lw=1.2)
    if curve.theory is not None:
        upper.loglog(t, curve.theory[good] / curve.loss[0], color=color, ls=":", lw=0.8)
    if len(t) > 2:
        lower.semilogx(t, local_exponent(t, y), color=color, ls=style, lw=1)
    if curve.window is not None:
        inside = (t >= curve.window[0]) & (t <= curve.window[1])
        upper.loglog(t[inside], y[inside], color=color, ls=style, lw=2.4)
