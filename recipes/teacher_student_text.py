"""What a study of training dynamics says, as lines of text: exponents beside controls, other students, traps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product

import numpy as np

from llmprobe import console
from llmprobe.fitting.window import fit_window
from toymodels.teacher.groups import Named, by_task, mean, readable, spread, why_unread
from toymodels.teacher.result import MANY_DEAD, TeacherResult
from toymodels.teacher.students import STUDENTS
from toymodels.teacher.theory import Task, unsuperposed_exponent, unsuperposed_loss

HEADER = (
    "student",
    "K/N",
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

Scanned = tuple[str, int, list[TeacherResult]]  # student, K, its runs over the tasks


def grid_rows(named: Named) -> list[tuple[object, ...]]:
    """A line per student and task."""
    rows: list[tuple[object, ...]] = []
    for name in dict.fromkeys(name for name, _ in named):
        controls = by_task(named[name, False])
        for (a, b), runs in by_task(named[name, True]).items():
            beside = [run.unsuperposed.exponent for run in runs if run.unsuperposed is not None]
            near = [limit for run in runs for limit in run.fit.spread]
            rows.append(
                (
                    name,
                    f"{runs[0].config.dimensions}/{runs[0].config.n}" if runs else "–",
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
                    mean([run.self_share for run in runs]),
                )
            )
    return rows


def verdicts(named: Named) -> list[str]:
    """What the grid says of each student, in sentences."""
    lines = ["What this says of a universal exponent 1:", ""]
    for name in dict.fromkeys(name for name, _ in named):
        runs = readable(named[name, True])
        values = [run.fit.exponent for run in runs]
        above = sum(run.end_over_zero > 1 for run in runs)
        theory = [run.alpha_theory for run in runs if run.unsuperposed is not None]
        lines.append(
            f"- `{name}`: {mean(values):.2f} ± {spread(values):.2f} over {len(values)} runs, where theory without "
            f"superposition spreads by ± {spread(theory):.2f}; {above} windows end above the zero function's loss; own "
            f"outputs carry {mean([run.self_share for run in runs]):.0%} of the fall; "
            + acceleration([run.acceleration for run in runs])
            + dead_note(named[name, False])
        )
    return [*lines, ""]


def dead_note(controls: Sequence[TeacherResult]) -> str:
    """How many controls cannot learn all of their teacher, as a sentence; nothing where all can."""
    dead = [run.curve.dead for run in controls if run.curve.dead > MANY_DEAD]
    if not dead:
        return ""
    return (
        f" In {len(dead)} of its {len(controls)} controls {min(dead):.0%} to {max(dead):.0%} of the features' own "
        "ReLUs end shut: these are never learned, and the exponent beside is of the others."
    )


def acceleration(values: Sequence[float]) -> str:
    """How much sooner the loss at the window's end is reached than without superposition, as a clause."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return "without superposition a student starts below that loss."
    low, high = min(known), max(known)
    return f"the loss at the window's end comes {low:.2g} to {high:.2g} times as soon as without superposition."


def unread(results: Sequence[TeacherResult]) -> list[str]:
    """Why some runs have no exponent, a line each."""
    lines = []
    for result in results:
        c, why = result.config, why_unread(result)
        if why is not None:
            lines.append(f"- `{c.student}`, K = {c.dimensions}, a = {c.a:g}, b = {c.b:g}, seed {c.seed}: {why}")
    return ["Without an exponent:", "", *lines, ""] if lines else []


def scan_row(name: str, k: int, results: Sequence[TeacherResult]) -> tuple[object, ...]:
    """A student's line of the scan."""
    runs = readable(results)
    values = [run.fit.exponent for run in runs]
    gathered = bool(values) and abs(mean(values) - 1) <= 0.1 and (spread(values) <= 0.1)
    learning = bool(runs) and all(run.learning for run in runs)
    return (
        name,
        k,
        f"{len(runs)}/{len(results)}",
        mean(values),
        spread(values),
        max((run.end_over_zero for run in runs), default=math.nan),
        mean([run.self_share for run in runs]),
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
        (
            *task,
            unsuperposed_exponent(*task),
            math.nan if plain.unsuperposed is None else plain.unsuperposed.exponent,
            plain.fit.exponent,
            by_adam[task].fit.exponent,
        )
        for task, plain in by_name.get("rotated", {}).items()
        if task in by_adam
    ]
    gain = max((row[-1] - row[-2] for row in adam), default=math.nan)
    above = [
        (name, *(mean([getattr(run, what) for run in runs.values()]) for what in ("end_over_zero", "self_share")))
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
        "2. Adam in a rotated basis. Nothing is superposed either (K = N, a rotation, linear): gradient descent does "
        f"what the closed form does on its stretch, and Adam is steeper by up to {gain:.2f}, an acceleration that owes "
        "nothing to superposition:",
        "",
        *block(adam, ("a", "b", "theory", "none, same t", "gradient descent", "Adam")),
        "3. Windows above the zero function's loss. These students' exponents are of noise being unlearned; the zero "
        "function, which knows nothing, is better than they are even at the end of the window:",
        "",
        *block(above, ("student", "L/zero at the window's end", "own")),
    ]


def block(rows: Sequence[tuple[object, ...]], header: Sequence[str]) -> list[str]:
    """A table as lines of a report."""
    return ["```", console.table(rows, header), "```", ""] if rows else ["(none)", ""]
