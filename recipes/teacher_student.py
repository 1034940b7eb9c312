"""Training dynamics with and without superposition: which exponents gather around 1, and what is learned there.

For three students (`small` learns its teacher from a tiny start; `random` unlearns a large random start; `interference`
learns nothing but a bias) over a grid of data exponents a and teacher exponents b: the exponent in time, the exponent
without superposition on the same stretch, the control with the same start and K = N, and the zero function's loss.
Then the record law, a scan over students, and three ways to be fooled. After arXiv:2602.01045.

    python recipes/teacher_student.py --quick      under three minutes on two cores
    python recipes/teacher_student.py              three seeds at N = 1024: an hour on two cores, much less on a GPU
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import tyro
from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.errors import FitError
from llmprobe.observations import ObservationStore
from llmprobe.plots import COLOURS, INK, STYLE, save
from llmprobe.window import fit_window
from toymodels.biases import record_curve
from toymodels.curve import Curve
from toymodels.dynamics_theory import (
    RECORD_LAWS,
    Task,
    local_exponent,
    record_exponent,
    unsuperposed_exponent,
    unsuperposed_loss,
)
from toymodels.students import STUDENTS
from toymodels.teacher import TeacherConfig, TeacherResult, run_missing

NAMED = ("small", "random", "interference")
RECORD_WINDOW = (30.0, 3e4)
HEADER = (
    "student",
    "a",
    "b",
    "α",
    "± seeds",
    "near windows",
    "K = N",
    "none, same t",
    "theory",
    "× faster",
    "L/zero",
    "own",
)
SCANNED = ("student", "K", "runs", "mean α", "spread", "L/zero", "own", "dead", "gathered", "learning", "note")


@dataclass(frozen=True)
class Config:
    """Which grid, and where."""

    quick: bool = False
    """N = 256, one seed, a smaller scan."""
    n: int | None = None
    """Features N; 1024, or 256 when quick."""
    a: tuple[float, ...] = (1.1, 1.5, 2.0)
    """Data exponents."""
    b: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)
    """Teacher exponents."""
    seeds: tuple[int, ...] | None = None
    """Seeds; three, or one when quick."""
    scan_n: int = 128
    """Features in the scan over students."""
    scan_students: tuple[str, ...] = tuple(STUDENTS)
    """Students in the scan."""
    record_n: int = 4096
    """Features for the record law."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 2
    """Cores."""
    out: Path = Path("runs/teacher_student")
    """Where observations, figures and the report go."""


def main(config: Config) -> None:
    """Train what is missing, draw, and write the report."""
    store = ObservationStore(config.out / "observations.jsonl")
    n = config.n or (256 if config.quick else 1024)
    seeds = config.seeds or ((0,) if config.quick else (0, 1, 2))
    options: dict[str, Any] = {"device": config.device, "threads": config.threads}
    named: dict[tuple[str, bool], list[TeacherResult]] = {}
    for name, superposed in product(NAMED, (True, False)):
        console.progress(f"{name}, {'K = N/2' if superposed else 'K = N'}")
        grid = [TeacherConfig(n, n // 2, a, b, name, superposed, s) for a in config.a for b in config.b for s in seeds]
        named[name, superposed] = run_missing(grid, store, **options)
    records = record_law(config.record_n, (1.5, 2.0), seeds)
    scanned = scan(config, store, options)
    lines = [
        f"# Teacher–student training at N = {n}, K = {n // 2}, seeds {', '.join(map(str, seeds))}",
        "",
        "Exponents α of L ∝ t^(−α), t = rate · steps. *none*: no superposition, same a, b, data and stretch of t. "
        "*K = N*: same student and start, a dimension per feature. *L/zero*: loss at the window's end over the zero "
        "function's. *own*: share of what the loss falls by in the window that is features' own outputs, not "
        "interference. *× faster*: time of *none* over the student's, to the loss at the window's end.",
        "",
        *block(grid_rows(named, len(seeds)), HEADER),
        *verdicts(named),
        *unread([run for runs in named.values() for run in runs]),
        "## The record law",
        "",
        *block([row for _, row in records], ("overlaps", "a", "α", "± seeds", "predicted")),
        "## Other students",
        "",
        f"N = {config.scan_n}. *gathered*: mean within 0.1 of 1 and spread at most 0.1. *learning*: every window ends "
        "below the zero function's loss and owes more than half of its fall to features' own outputs.",
        "",
        *block([scan_row(*entry) for entry in scanned], SCANNED),
        *unread([run for _, _, runs in scanned for run in runs]),
        *traps(scanned, n),
    ]
    text = "\n".join(lines)
    (config.out / "report.md").write_text(text + "\n", encoding="utf-8")
    console.say(text)
    drawn = {
        "exponents": exponent_figure(named),
        "curves": curve_figure(named),
        "record_law": record_figure([entry for entry, _ in records]),
    }
    for title, figure in drawn.items():
        save(figure, str(config.out / f"{title}.png"))
    console.say(f"\nreport and figures in {config.out.resolve()}")


def exponent(result: TeacherResult) -> float:
    """The exponent, NaN where the rule finds no window."""
    try:
        return result.fit.exponent
    except FitError:
        return math.nan


def unread(results: Sequence[TeacherResult]) -> list[str]:
    """Why some runs have no exponent, a line each."""
    lines = []
    for result in results:
        c = result.config
        try:
            _ = result.fit
        except FitError as error:
            lines.append(f"- `{c.student}`, K = {c.dimensions}, a = {c.a:g}, b = {c.b:g}, seed {c.seed}: {error}")
    return ["Without an exponent:", "", *lines, ""] if lines else []


def readable(results: Sequence[TeacherResult]) -> list[TeacherResult]:
    """Those with a window."""
    return [result for result in results if not math.isnan(exponent(result))]


def by_task(results: Sequence[TeacherResult]) -> dict[tuple[float, float], list[TeacherResult]]:
    """Readable runs by (a, b)."""
    found: dict[tuple[float, float], list[TeacherResult]] = {}
    for result in results:
        found.setdefault((result.config.a, result.config.b), []).append(result)
    return {task: readable(runs) for task, runs in found.items()}


def mean(values: Sequence[float]) -> float:
    """Mean; NaN of nothing."""
    return float(np.mean(values)) if len(values) else math.nan


def spread(values: Sequence[float]) -> float:
    """Standard deviation of a sample; NaN of fewer than two."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def grid_rows(named: dict[tuple[str, bool], list[TeacherResult]], seeds: int) -> list[tuple[object, ...]]:
    """A line per student and task."""
    rows: list[tuple[object, ...]] = []
    for name in NAMED:
        controls = by_task(named[name, False])
        for (a, b), runs in by_task(named[name, True]).items():
            beside = [run.unsuperposed.exponent for run in runs if run.unsuperposed is not None]
            near = [limit for run in runs for limit in run.fit.spread]
            rows.append(
                (
                    name,
                    a,
                    b,
                    mean([run.fit.exponent for run in runs]),
                    spread([run.fit.exponent for run in runs]),
                    f"{min(near):.2f}–{max(near):.2f}" if near else "–",
                    mean([run.fit.exponent for run in controls[a, b]]),
                    mean(beside),
                    unsuperposed_exponent(a, b),
                    mean([run.acceleration for run in runs]),
                    mean([run.end_over_zero for run in runs]),
                    mean([run.own_share for run in runs]),
                )
            )
    return rows


def verdicts(named: dict[tuple[str, bool], list[TeacherResult]]) -> list[str]:
    """What the grid says of each student, in sentences."""
    lines = ["What this says of a universal exponent 1:", ""]
    for name in NAMED:
        runs = readable(named[name, True])
        values = [run.fit.exponent for run in runs]
        above = sum(run.end_over_zero > 1 for run in runs)
        theory = [run.alpha_theory for run in runs if run.unsuperposed is not None]
        lines.append(
            f"- `{name}`: {mean(values):.2f} ± {spread(values):.2f} over {len(values)} runs, where theory without "
            f"superposition spreads by ± {spread(theory):.2f}; {above} windows end above the zero function's loss; own "
            f"outputs carry {mean([run.own_share for run in runs]):.0%} of the fall; "
            + acceleration([run.acceleration for run in runs])
        )
    return [*lines, ""]


def acceleration(values: Sequence[float]) -> str:
    """How much sooner the loss at the window's end is reached than without superposition, as a clause."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "without superposition a student starts below that loss."
    low, high = min(known), max(known)
    return f"the loss at the window's end comes {low:.2g} to {high:.2g} times as soon as without superposition."


Record = tuple[str, float, list[Curve]]


def record_law(n: int, exponents: Sequence[float], seeds: Sequence[int]) -> list[tuple[Record, tuple[object, ...]]]:
    """Curves of pure interference by the tail of the overlaps, and a line each."""
    found: list[tuple[Record, tuple[object, ...]]] = []
    for overlaps, a in product(RECORD_LAWS, exponents):
        curves = [record_curve(overlaps, a, n, 512, seed) for seed in seeds]
        values = [fit_window(curve.t, curve.loss, *RECORD_WINDOW).exponent for curve in curves]
        text = f"{record_exponent(overlaps, a):.3g}" + (" and a logarithm" if overlaps == "gaussian" else "")
        found.append(((overlaps, a, curves), (overlaps, a, mean(values), spread(values), text)))
    return found


Scanned = tuple[str, int, list[TeacherResult]]


def scan(config: Config, store: ObservationStore, options: dict[str, Any]) -> list[Scanned]:
    """Every student of the table, and `small` at several K, on a grid of tasks."""
    n = config.scan_n
    a_s, b_s = ((1.5, 2.0), (0.5, 1.0)) if config.quick else ((1.1, 1.5, 2.0), (0.0, 0.5, 1.0))
    shapes = [(name, n // 2) for name in config.scan_students]
    if "small" in config.scan_students:
        shapes += [("small", n // 8), ("small", n // 4), ("small", n)]
    found = []
    for name, k in shapes:
        console.progress(f"scan: {name}, K = {k}")
        grid = [TeacherConfig(n, k, a, b, name, True, seed=0) for a in a_s for b in b_s]
        found.append((name, grid[0].dimensions, run_missing(grid, store, study="teacher_student_scan", **options)))
    return found


def scan_row(name: str, k: int, results: Sequence[TeacherResult]) -> tuple[object, ...]:
    """A student's line of the scan."""
    runs = readable(results)
    values = [run.fit.exponent for run in runs]
    gathered = bool(values) and abs(mean(values) - 1) <= 0.1 and (spread(values) <= 0.1)
    learning = bool(runs) and all(run.end_over_zero < 1 and run.own_share > 0.5 for run in runs)
    return (
        name,
        k,
        f"{len(runs)}/{len(results)}",
        mean(values),
        spread(values),
        max((run.end_over_zero for run in runs), default=math.nan),
        mean([run.own_share for run in runs]),
        mean([run.curve.dead for run in runs]),
        "yes" if gathered else "no",
        "yes" if learning else "no",
        STUDENTS[name].note,
    )


def traps(scanned: Sequence[Scanned], n: int) -> list[str]:
    """Three ways to see a universal exponent where there is none."""
    ends = []
    for a, b in product((1.1, 1.5, 2.0), (0.0, 0.5, 1.0)):
        task = Task(n, a, b)
        end = 0.5 / float(task.weights[-1])
        t = np.geomspace(end / 10, end, 25)
        last = fit_window(t, unsuperposed_loss(task, t), end / 10, end).exponent
        ends.append((a, b, unsuperposed_exponent(a, b), last))
    by_name: dict[str, dict[tuple[float, float], TeacherResult]] = {}
    for name, _, runs in scanned:
        by_name.setdefault(name, {(run.config.a, run.config.b): run for run in readable(runs)})
    by_adam = by_name.get("rotated-adam", {})
    adam = [
        (*task, unsuperposed_exponent(*task), plain.fit.exponent, by_adam[task].fit.exponent)
        for task, plain in by_name.get("rotated", {}).items()
        if task in by_adam
    ]
    above = [
        (name, *(mean([getattr(run, what) for run in runs.values()]) for what in ("end_over_zero", "own_share")))
        for name, runs in by_name.items()
        if any(run.end_over_zero > 1 for run in runs.values())
    ]
    return [
        "## Three traps",
        "",
        f"1. The end of any curve. Nothing is superposed here; N = {n}. In the decade of t that ends at 1/(2λ_N), "
        "where the last feature is being learned, the slope is about 1 at b = 0 whatever a is, and steeper beyond:",
        "",
        *block(ends, ("a", "b", "theory", "exponent of the decade up to 1/(2λ_N)")),
        "2. Adam in a rotated basis. Nothing is superposed either (K = N, a rotation, linear): gradient descent "
        "follows the theory, and Adam is steeper and nearly universal all the same:",
        "",
        *block(adam, ("a", "b", "theory", "gradient descent", "Adam")),
        "3. Windows above the zero function's loss. These students' exponents are of noise being unlearned; the zero "
        "function, which knows nothing, is better than they are even at the end of the window:",
        "",
        *block(above, ("student", "L/zero at the window's end", "own")),
    ]


def block(rows: Sequence[tuple[object, ...]], header: Sequence[str]) -> list[str]:
    """A table as lines of a report."""
    return ["```", console.table(rows, header), "```", ""] if rows else ["(none)", ""]


def exponent_figure(named: dict[tuple[str, bool], list[TeacherResult]]) -> Figure:
    """Exponents against what theory says without superposition."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 3.9))
        panels = figure.subplots(1, len(NAMED), sharey=True)
        for axes, name in zip(panels, NAMED, strict=True):
            axes.plot([0, 4], [0, 4], color=INK, lw=0.9, ls=":", label="(a + 2b − 1)/a")
            axes.axhline(1, color=INK, lw=0.9)
            for superposed, label, colour, marker in (
                (True, "K = N/2", COLOURS[0], "o"),
                (False, "K = N", COLOURS[1], "s"),
            ):
                tasks = by_task(named[name, superposed])
                x = [(a + 2 * b - 1) / a for a, b in tasks]
                y = [mean([run.fit.exponent for run in runs]) for runs in tasks.values()]
                error = [spread([run.fit.exponent for run in runs]) for runs in tasks.values()]
                axes.errorbar(x, y, np.nan_to_num(error), fmt=marker, ms=4, color=colour, label=label)
            runs = readable(named[name, True])
            beside = [(r.alpha_theory, r.unsuperposed.exponent) for r in runs if r.unsuperposed is not None]
            if beside:
                axes.plot(*zip(*beside, strict=True), "x", ms=5, color=COLOURS[2], label="none, same t")
            above = any(run.end_over_zero > 1 for run in runs)
            axes.set(
                xlabel="theory without superposition", title=f"{name}: {'above' if above else 'below'} zero's loss"
            )
        panels[0].set_ylabel("exponent in time")
        panels[0].legend()
        return figure


def curve_figure(named: dict[tuple[str, bool], list[TeacherResult]]) -> Figure:
    """Loss, local exponent and window of one task per student, the zero function drawn as a line."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11, 6))
        panels = figure.subplots(2, len(NAMED), sharex="col")
        for column, name in enumerate(NAMED):
            upper, lower = panels[0, column], panels[1, column]
            runs = readable(named[name, True])
            if not runs:
                continue
            run = min(runs, key=lambda r: abs(r.config.a - 1.5) + abs(r.config.b - 1))
            t = run.curve.t
            bare = unsuperposed_loss(run.config.task, t)
            for y, label, colour in ((run.curve.loss, "K = N/2", COLOURS[0]), (bare, "none", COLOURS[2])):
                shown = y > 1e-8 * run.curve.loss[-1]
                upper.loglog(t[shown], y[shown], color=colour, label=label)
                lower.semilogx(t[shown], local_exponent(t[shown], y[shown]), color=colour)
            upper.loglog(t, run.curve.own, color=COLOURS[0], ls=":", label="own outputs")
            upper.axhline(run.curve.zero, color=INK, lw=0.8, ls="--", label="zero function")
            for axes in (upper, lower):
                axes.axvspan(run.fit.window.lo, run.fit.window.hi, color=COLOURS[0], alpha=0.1, lw=0)
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
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6, 4.2))
        axes = figure.subplots()
        for k, (overlaps, a, curves) in enumerate(records):
            curve, colour = curves[0], COLOURS[k % len(COLOURS)]
            axes.loglog(curve.t, curve.loss / curve.first, color=colour, label=f"{overlaps}, a = {a:g}")
            t = np.array(RECORD_WINDOW)
            anchor = np.interp(math.log(t[0]), np.log(curve.t), curve.loss / curve.first)
            axes.loglog(t, anchor * (t / t[0]) ** -record_exponent(overlaps, a), color=colour, ls=":", lw=1)
        axes.set(xlabel="t", ylabel="loss over its start", title="Records of random overlaps (dotted: predicted slope)")
        axes.legend()
        return figure


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(tyro.cli(Config))))
