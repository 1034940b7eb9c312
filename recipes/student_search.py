"""Is there a student that learns its teacher with exponent 1 whatever the data and the teacher? A search by rule.

Trains every combination of embedding, trained parts, start and K/N of `CHOICES` on nine tasks, a ∈ {1.1, 1.5, 2} by
b ∈ {0, ½, 1}, with exact population gradients and v = 1, and reads all exponents on one stretch, 30 ≤ t ≤ 1000. A
student is what arXiv:2602.01045 describes when, on all nine tasks (the rule was written before the first run),

1. the exponent is within 0.1 of 1;
2. it learns: the stretch ends below the zero function's loss and owes more than half of its fall to features' own
   outputs;
3. its control (same start, K = N, W = 1) is within 0.1 of what the theory without superposition gives there.

    python recipes/student_search.py --quick      N = 64, about four minutes on one core
    python recipes/student_search.py              N = 256, about half an hour on one core
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from llmprobe import console
from llmprobe.observations import ObservationStore
from llmprobe.report.figures import COLORS, INK, canvas, save
from toymodels.teacher.groups import mean, readable, spread
from toymodels.teacher.run import TeacherConfig, TeacherResult, run_missing
from toymodels.teacher.students import Student

STUDY = "student_search"
NEAR = 0.1
TASKS = tuple(product((1.1, 1.5, 2.0), (0.0, 0.5, 1.0)))
STARTS: dict[str, dict[str, Any]] = {
    "tiny": {"core": "gaussian", "start": 1e-3, "start_by_width": True},
    "random": {"core": "gaussian", "start": 1.0, "start_by_width": True},
    "gain 0.1": {"core": "identity", "start": 0.1, "start_by_width": False},
    "gain 1": {"core": "identity", "start": 1.0, "start_by_width": False},
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "embedding": ("random", "frame"),
    "trains": (("B",), ("B", "c"), ("W", "B"), ("W", "B", "c")),
    "start": tuple(STARTS),
    "share": (2, 8),
}
HEADER = (
    "embedding",
    "trains",
    "start",
    "N/K",
    "read",
    "mean α",
    "spread",
    "worst",
    "learns",
    "control off by",
    "passes",
)


@dataclass(frozen=True)
class Config:
    """How large, and where."""

    quick: bool = False
    """N = 64 instead of 256."""
    n: int | None = None
    """Features N."""
    seed: int = 0
    """Of every run."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 1
    """Cores; products of this size gain little from more."""
    out: Path = Path("runs/student_search")
    """Where observations, table and figure go."""


@dataclass(frozen=True)
class Found:
    """A student on all tasks, and its control."""

    choice: Mapping[str, Any]
    runs: Sequence[TeacherResult]
    controls: Sequence[TeacherResult]

    @property
    def exponents(self) -> list[float]:
        """Of the runs that have one."""
        return [run.fit.exponent for run in readable(self.runs)]

    @property
    def worst(self) -> float:
        """Largest distance of an exponent from 1; infinite unless all tasks have one."""
        values = self.exponents
        return max(abs(value - 1) for value in values) if len(values) == len(TASKS) else float("inf")

    @property
    def learns(self) -> int:
        """On how many tasks the stretch is one of learning."""
        return sum(run.learning for run in readable(self.runs))

    @property
    def control_error(self) -> float:
        """Largest distance of the control's exponents from those without superposition on the same stretch."""
        pairs = [(run.fit.exponent, run.unsuperposed) for run in readable(self.controls)]
        known = [abs(value - beside.exponent) for value, beside in pairs if beside is not None]
        return max(known) if len(known) == len(TASKS) else float("inf")

    @property
    def passes(self) -> bool:
        """The rule of the module."""
        return self.worst <= NEAR and self.learns == len(TASKS) and self.control_error <= NEAR

    def row(self) -> tuple[object, ...]:
        """One line of the table."""
        c, values = self.choice, self.exponents
        return (
            c["embedding"],
            "+".join(c["trains"]),
            c["start"],
            c["share"],
            f"{len(values)}/{len(TASKS)}",
            mean(values),
            spread(values),
            self.worst,
            f"{self.learns}/{len(TASKS)}",
            self.control_error,
            "yes" if self.passes else "no",
        )


def main(config: Config) -> list[Found]:
    """Train what is missing, then rank, draw and say what was found."""
    n = config.n or (64 if config.quick else 256)
    store = ObservationStore(config.out / "observations.jsonl")
    place: dict[str, Any] = {"study": STUDY, "device": config.device, "threads": config.threads}
    choices = [dict(zip(CHOICES, values, strict=True)) for values in product(*CHOICES.values())]
    found: list[Found] = []
    controls: dict[Student | None, list[TeacherResult]] = {}
    for choice in tqdm(choices, unit="student", desc=STUDY):
        changes = {"embedding": choice["embedding"], "trains": choice["trains"], **STARTS[choice["start"]]}
        k, options = n // choice["share"], {"amplitude": 1.0, **changes}
        runs, bare = (
            [TeacherConfig(n, k, a, b, "small", superposed, config.seed, options=options) for a, b in TASKS]
            for superposed in (True, False)
        )
        control = bare[0].chosen_student  # students that differ in what their controls lack share one
        if control not in controls:
            controls[control] = run_missing(bare, store, **place)
        found.append(Found(choice, run_missing(runs, store, **place), controls[control]))
    found.sort(key=lambda one: (-one.learns, one.worst))
    text = "\n".join([console.table([one.row() for one in found], HEADER), "", *verdict(found, n)])
    (config.out / "table.txt").write_text(text + "\n", encoding="utf-8")
    console.say(text)
    save(figure(found), str(config.out / "search.png"))
    console.say(f"\ntable and figure in {config.out.resolve()}")
    return found


def verdict(found: Sequence[Found], n: int) -> list[str]:
    """What the search says, in sentences."""
    passing = [one for one in found if one.passes]
    learners = [one for one in found if one.learns == len(TASKS)]
    gathered = [one for one in found if one.worst <= NEAR]
    lines = [
        f"N = {n}: of {len(found)} students {len(learners)} learn all nine tasks, {len(gathered)} have all nine "
        f"exponents within {NEAR} of 1, and {len(passing)} pass the whole rule."
    ]
    if learners:
        best = learners[0]
        low, high = min(best.exponents, default=float("nan")), max(best.exponents, default=float("nan"))
        name = f"{best.choice['embedding']}, {'+'.join(best.choice['trains'])}, {best.choice['start']}"
        lines.append(f"Nearest among the learners: {name}, N/K = {best.choice['share']}: {low:.2f} to {high:.2f}.")
    return lines


def figure(found: Sequence[Found]) -> Figure:
    """Range of the nine exponents of each student, in the order of the table."""
    drawn = [one for one in found if one.exponents]
    with canvas(8.4, 3.8) as drawing:
        axes = drawing.subplots()
        axes.axhspan(1 - NEAR, 1 + NEAR, color="grey", alpha=0.2, lw=0)
        for color, label, learner in ((COLORS[0], "learns all nine tasks", True), (COLORS[1], "does not", False)):
            places = [x for x, one in enumerate(drawn) if (one.learns == len(TASKS)) == learner]
            for x in places:
                axes.plot([x] * len(drawn[x].exponents), drawn[x].exponents, "_", color=color, ms=5)
            ends = np.array([(min(drawn[x].exponents), max(drawn[x].exponents)) for x in places]).reshape(-1, 2)
            axes.vlines(places, *ends.T, color=color, lw=1, label=label)
        axes.axhline(1, color=INK, lw=0.8)
        axes.set(xlabel="student, in the order of the table", ylabel="exponents in time", ylim=(0, 3))
        axes.legend()
        return drawing


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
