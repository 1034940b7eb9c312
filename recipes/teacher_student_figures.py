"""Pictures of training dynamics: exponents against theory, curves with their windows, the record law."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from llmprobe.report.figures import COLORS, INK, canvas
from toymodels.teacher.curve import Curve
from toymodels.teacher.groups import Named, by_task, mean, readable, spread
from toymodels.teacher.theory import local_exponent, record_exponent, unsuperposed_loss

RECORD_WINDOW = (30.0, 3e4)  # of t, in which the record law is read

Record = tuple[str, float, list[Curve]]  # overlaps, a, a curve per seed


def exponent_figure(named: Named) -> Figure:
    """Exponents against what theory says without superposition."""
    names = list(dict.fromkeys(name for name, _ in named))
    with canvas(3.6 * len(names), 3.9) as figure:
        panels = np.atleast_1d(figure.subplots(1, len(names), sharey=True))
        for axes, name in zip(panels, names, strict=True):
            axes.plot([0, 4], [0, 4], color=INK, lw=0.9, ls=":", label="(a + 2b − 1)/a")
            axes.axhline(1, color=INK, lw=0.9)
            for superposed, label, color, marker in (
                (True, "K < N", COLORS[0], "o"),
                (False, "K = N", COLORS[1], "s"),
            ):
                tasks = by_task(named[name, superposed])
                x = [(a + 2 * b - 1) / a for a, b in tasks]
                y = [mean([run.fit.exponent for run in runs]) for runs in tasks.values()]
                error = [spread([run.fit.exponent for run in runs]) for runs in tasks.values()]
                axes.errorbar(x, y, np.nan_to_num(error), fmt=marker, ms=4, color=color, label=label)
            runs = readable(named[name, True])
            beside = [(r.alpha_theory, r.unsuperposed.exponent) for r in runs if r.unsuperposed is not None]
            if beside:
                axes.plot(*zip(*beside, strict=True), "x", ms=5, color=COLORS[2], label="none, same t")
            above = any(run.end_over_zero > 1 for run in runs)
            axes.set(
                xlabel="theory without superposition", title=f"{name}: {'above' if above else 'below'} zero's loss"
            )
        panels[0].set_ylabel("exponent in time")
        panels[0].legend()
        return figure


def curve_figure(named: Named) -> Figure:
    """Loss, local exponent and window of one task per student, the zero function drawn as a line."""
    names = list(dict.fromkeys(name for name, _ in named))
    with canvas(3.6 * len(names), 6.0) as figure:
        panels = figure.subplots(2, len(names), sharex="col", squeeze=False)
        for column, name in enumerate(names):
            upper, lower = panels[0, column], panels[1, column]
            runs = readable(named[name, True])
            if not runs:
                continue
            run = min(runs, key=lambda r: abs(r.config.a - 1.5) + abs(r.config.b - 1))
            t = run.curve.t
            bare = unsuperposed_loss(run.config.task, t)
            for y, label, color in ((run.curve.loss, "K < N", COLORS[0]), (bare, "none", COLORS[2])):
                shown = y > 1e-8 * run.curve.loss[-1]
                upper.loglog(t[shown], y[shown], color=color, label=label)
                lower.semilogx(t[shown], local_exponent(t[shown], y[shown]), color=color)
            upper.loglog(t, run.curve.own, color=COLORS[0], ls=":", label="own outputs")
            upper.axhline(run.curve.zero, color=INK, lw=0.8, ls="--", label="zero function")
            for axes in (upper, lower):
                axes.axvspan(run.fit.window.lo, run.fit.window.hi, color=COLORS[0], alpha=0.1, lw=0)
            lower.axhline(1, color=INK, lw=0.8, ls=":")
            lower.set(xlabel="t", ylim=(0, 3))
            upper.set_title(f"{name}, a = {run.config.a:g}, b = {run.config.b:g}")
        panels[0, 0].set_ylabel("loss")
        panels[1, 0].set_ylabel("local exponent")
        if panels[0, 0].has_data():
            panels[0, 0].legend()
        return figure


def record_figure(records: Sequence[Record]) -> Figure:
    """Pure interference by the tail of the overlaps, each beside its prediction."""
    with canvas(6.0, 4.2) as figure:
        axes = figure.subplots()
        for k, (overlaps, a, curves) in enumerate(records):
            curve, color = curves[0], COLORS[k % len(COLORS)]
            axes.loglog(curve.t, curve.loss / curve.first, color=color, label=f"{overlaps}, a = {a:g}")
            t = np.array(RECORD_WINDOW)
            anchor = np.interp(math.log(t[0]), np.log(curve.t), curve.loss / curve.first)
            axes.loglog(t, anchor * (t / t[0]) ** -record_exponent(overlaps, a), color=color, ls=":", lw=1)
        axes.set(xlabel="t", ylabel="loss over its start", title="Records of random overlaps (dotted: predicted slope)")
        axes.legend()
        return figure
