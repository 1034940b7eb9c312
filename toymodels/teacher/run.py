"""Teacher–student training dynamics: how fast the loss falls in time, with superposition and without.

A run gives a curve; its exponent is read by the common fit on a stretch that a stated rule chooses before the fit is
seen, and comes with the exponents of stretches near it, with the exponent of the student without superposition on the
same stretch, and with what the zero function would lose. Runs of one student and N share a tensor program.

Source: arXiv:2602.01045.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from llmprobe.device import pick_double, torch_threads
from llmprobe.observations import ObservationStore
from toymodels.teacher.bias_only import learn_biases
from toymodels.teacher.config import TeacherConfig
from toymodels.teacher.curve import PER_DECADE, Curve
from toymodels.teacher.descent import descend
from toymodels.teacher.result import TeacherResult, identity
from toymodels.teacher.theory import Task, unsuperposed_loss

__all__ = ["TeacherConfig", "TeacherResult", "closed_form", "run", "run_all", "run_missing"]

# elements of the largest arrays of a tensor program; more runs go one program after another, and each is kept when done
NUMBERS = {"cpu": 1 << 23, "cuda": 1 << 28}


def run(config: TeacherConfig, **options: Any) -> TeacherResult:
    """Train one student; options as for `run_all`."""
    return run_all([config], **options)[0]


def run_all(
    configs: Sequence[TeacherConfig],
    *,
    device: str = "auto",
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
) -> list[TeacherResult]:
    """Train students; those alike in student, N and time share a tensor program.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    threads
        Cores for the products on a CPU.
    dtype
        Of the parameters; losses are summed in float64 either way, and bias-only students are float64 throughout.
    progress
        Show steps done, steps per second and time left on stderr.

    Raises
    ------
    ConfigError
        A run diverged or has nothing to learn by.
    """
    found = dict(_trained(configs, device, threads, dtype, progress))
    return [found[index] for index in range(len(configs))]


def _trained(
    configs: Sequence[TeacherConfig],
    device: str = "auto",
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
    progress: bool = False,
) -> Iterator[tuple[int, TeacherResult]]:
    """Results with their places in `configs`, program by program."""
    place = pick_double(device)  # losses are summed in float64
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, c in enumerate(configs):
        groups.setdefault((c.chosen_student, c.n, c.time), []).append(index)
    with torch_threads(threads):
        for members in groups.values():
            size = max(1, NUMBERS[place.type] // configs[members[0]].n ** 2)
            for first in range(0, len(members), size):
                part = members[first : first + size]
                began, some = time.perf_counter(), [configs[index] for index in part]
                named = f"{some[0].student}, N = {some[0].n}, {first + len(part)}/{len(members)}"
                with tqdm(desc=named, unit="step", disable=not progress, leave=False) as bar:
                    curves = _curves(some, place, dtype, bar)
                seconds = (time.perf_counter() - began) / len(part)
                yield from (
                    (index, TeacherResult(c, curve, seconds, str(place)))
                    for index, c, curve in zip(part, some, curves, strict=True)
                )


def _curves(configs: Sequence[TeacherConfig], device: torch.device, dtype: torch.dtype, bar: Any) -> list[Curve]:
    """Curves of runs that are alike in student, N and time."""
    student, c = configs[0].chosen_student, configs[0]
    tasks, seeds = [config.task for config in configs], [config.seed for config in configs]
    ks = [config.dimensions for config in configs]
    if student is None:
        return [closed_form(task, c.time) for task in tasks]
    if student.bias_only:
        return learn_biases(student, tasks, ks, seeds, until=c.time, device=device)
    return descend(student, tasks, ks, seeds, until=c.time, device=device, dtype=dtype, bar=bar)


def closed_form(task: Task, until: float | None = None) -> Curve:
    """The curve without superposition, from 0.1 to `until` (or until the last feature is learned)."""
    until = until or 10 / float(task.weights[-1])
    t = np.geomspace(0.1, until, math.ceil(math.log10(until / 0.1) * PER_DECADE) + 1)
    loss = unsuperposed_loss(task, t)
    keep = loss > 1e-300
    return Curve(t[keep], loss[keep], loss[keep], task.zero_loss, task.zero_loss, 0.0, 0.0)


def run_missing(
    configs: Sequence[TeacherConfig], store: ObservationStore, *, study: str = "teacher_student", **options: Any
) -> list[TeacherResult]:
    """`run_all` of what is not in the store yet; new curves and exponents are kept there, program by program.

    A curve is kept whether or not an exponent can be read from it.
    """
    stored = {row.key: row for row in store}
    found: dict[int, TeacherResult] = {}
    for index, config in enumerate(configs):
        keys = [identity(config, study, metric).key for metric in ("time_exponent", "final_loss")]
        if row := next((stored[key] for key in keys if key in stored), None):
            arrays, record = store.load_arrays(row.key), row.provenance.record
            numbers = (record[name] for name in ("first_loss", "zero_loss", "rate", "dead"))
            curve = Curve(arrays["t"], arrays["loss"], arrays["own"], *numbers)
            found[index] = TeacherResult(config, curve, record["seconds"], record["device"])
    missing = [index for index in range(len(configs)) if index not in found]
    for place, result in _trained([configs[index] for index in missing], **options):
        found[missing[place]] = result
        row = result.observation(study)
        store.save_arrays(row.key, result.arrays())
        store.append(row)
    return [found[index] for index in range(len(configs))]
