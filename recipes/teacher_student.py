"""Training dynamics with and without superposition: which exponents gather around 1, and what is learned there.

For four students (`small` learns its teacher from a tiny start; `random` unlearns a large random start; `interference`
learns nothing but a bias; `gain-frame` comes nearest to learning its teacher with exponent 1) over a grid of data
exponents a and teacher exponents b: the exponent in time, the exponent without superposition on the same stretch, the
control with the same start and K = N, and the zero function's loss.
Then the record law, a scan over students, and three ways to be fooled. After arXiv:2602.01045.

    python recipes/teacher_student.py --quick      under three minutes on two cores
    python recipes/teacher_student.py              three seeds at N = 1024: an hour on two cores, much less on a GPU
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from teacher_student_figures import RECORD_WINDOW, Record, curve_figure, exponent_figure, record_figure
from teacher_student_text import HEADER, SCANNED, Scanned, block, grid_rows, scan_row, traps, unread, verdicts

from llmprobe import console
from llmprobe.fitting.window import fit_window
from llmprobe.observations import ObservationStore
from llmprobe.report.figures import save
from toymodels.teacher.bias_only import record_curve
from toymodels.teacher.groups import mean, spread
from toymodels.teacher.run import TeacherConfig, TeacherResult, run_missing
from toymodels.teacher.students import STUDENTS
from toymodels.teacher.theory import RECORD_LAWS, record_exponent

NAMED = {"small": 2, "random": 2, "interference": 2, "gain-frame": 4}  # N/K
LARGEST = {"gain-frame": 256}  # N beyond which it takes too long
SCAN = {"small": (8, 4, 2, 1), "gain": (8, 4, 2), "gain-frame": (8, 4, 2)}  # N/K where it is not 2 alone


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
    options: dict[str, Any] = {"device": config.device, "threads": config.threads, "progress": True}
    named = trained(config, store, n, seeds, options)
    records = record_law(config.record_n, (1.5, 2.0), seeds)
    scanned = scan(config, store, options)
    lines = [
        f"# Teacher–student training, N = {n}, seeds {', '.join(map(str, seeds))}",
        "",
        "Exponents α of L ∝ t^(−α), t = rate · steps. *none*: no superposition, same a, b, data and stretch of t. "
        "*K = N*: same student and start, a dimension per feature. *L/zero*: loss at the window's end over the zero "
        "function's. *own*: share of what the loss falls by in the window that is features' own outputs, not "
        "interference. *× faster*: time of *none* over the student's, to the loss at the window's end.",
        "",
        *block(grid_rows(named), HEADER),
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


def trained(
    config: Config, store: ObservationStore, n: int, seeds: Sequence[int], options: dict[str, Any]
) -> dict[tuple[str, bool], list[TeacherResult]]:
    """Runs over a, b and seeds of each student named, with superposition and without."""
    named: dict[tuple[str, bool], list[TeacherResult]] = {}
    for name, superposed in product(NAMED, (True, False)):
        console.progress(f"{name}, {'K < N' if superposed else 'K = N'}")
        size = min(n, LARGEST.get(name, n))
        grid = [
            TeacherConfig(size, size // NAMED[name], a, b, name, superposed, seed)
            for a in config.a
            for b in config.b
            for seed in seeds
        ]
        named[name, superposed] = run_missing(grid, store, **options)
    return named


def record_law(n: int, exponents: Sequence[float], seeds: Sequence[int]) -> list[tuple[Record, tuple[object, ...]]]:
    """Curves of pure interference by the tail of the overlaps, and a line each."""
    found: list[tuple[Record, tuple[object, ...]]] = []
    for overlaps, a in product(RECORD_LAWS, exponents):
        curves = [record_curve(overlaps, a, n, 512, seed) for seed in seeds]
        values = [fit_window(curve.t, curve.loss, *RECORD_WINDOW).exponent for curve in curves]
        text = f"{record_exponent(overlaps, a):.3g}" + (" and a logarithm" if overlaps == "gaussian" else "")
        found.append(((overlaps, a, curves), (overlaps, a, mean(values), spread(values), text)))
    return found


def scan(config: Config, store: ObservationStore, options: dict[str, Any]) -> list[Scanned]:
    """Every student of the table, some at several K, on a grid of tasks."""
    n = config.scan_n
    a_s, b_s = ((1.5, 2.0), (0.5, 1.0)) if config.quick else ((1.1, 1.5, 2.0), (0.0, 0.5, 1.0))
    found = []
    for name in config.scan_students:
        console.progress(f"scan: {name}")
        ks = [n // part for part in SCAN.get(name, (2,))]
        grid = [TeacherConfig(n, k, a, b, name, True, seed=0) for k in ks for a in a_s for b in b_s]
        results = run_missing(grid, store, study="teacher_student_scan", **options)
        size = len(a_s) * len(b_s)
        parts = [results[first : first + size] for first in range(0, len(grid), size)]
        found += [(name, part[0].config.dimensions, part) for part in parts]
    return found


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
