"""Many teacher–student runs together: which have an exponent, by task, with mean and spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from llmprobe.errors import FitError
from toymodels.teacher.result import TeacherResult

Named = Mapping[tuple[str, bool], Sequence[TeacherResult]]  # by student, and whether superposed or the control


def why_unread(result: TeacherResult) -> str | None:
    """Why a run has no exponent; None where it has one."""
    try:
        _ = result.fit
    except FitError as error:
        return str(error)
    return None


def readable(results: Sequence[TeacherResult]) -> list[TeacherResult]:
    """Those with an exponent."""
    return [result for result in results if why_unread(result) is None]


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
