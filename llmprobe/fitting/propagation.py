"""Quantities computed from fitted parameters, with errors: α·k, the compute-optimal exponent β/(α + β)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmprobe.fitting.bootstrap import Bootstrap, widened
from llmprobe.fitting.covariance import student
from llmprobe.fitting.result import FitResult


@dataclass(frozen=True)
class Propagated:
    """A quantity computed from fitted parameters.

    Attributes
    ----------
    value, stderr, ci95
        By the delta method.
    bootstrap_stderr, bootstrap_ci95
        Over resamples; NaN without a bootstrap.
    """

    value: float
    stderr: float
    ci95: tuple[float, float]
    bootstrap_stderr: float
    bootstrap_ci95: tuple[float, float]


def propagate(
    result: FitResult,
    function: Callable[[Mapping[str, Any]], Any],
    resamples: Bootstrap | None = None,
    inputs: Mapping[str, tuple[float, float]] | None = None,
) -> Propagated:
    """Error of a function of the parameters, such as α·k or the compute-optimal exponent β/(α + β).

    Parameters
    ----------
    function
        Takes the parameters by name, numbers or arrays of one length, and computes with them elementwise.
    resamples
        A bootstrap of the same fit.
    inputs
        Further independent quantities that the function takes: value and standard error, by name. In the bootstrap
        they are drawn from a normal law.
    """
    inputs = dict(inputs or {})
    names = [*result.params, *inputs]
    centre = np.array([*result.params.values(), *(value for value, _ in inputs.values())])
    p = len(result.params)
    matrix = np.zeros((len(names), len(names)))
    matrix[:p, :p] = result.covariance.matrix
    matrix[range(p, len(names)), range(p, len(names))] = [error**2 for _, error in inputs.values()]
    value = float(function(dict(zip(names, centre, strict=True))))
    slope = np.zeros(len(names))
    for j in range(len(names)):
        error = np.sqrt(matrix[j, j])
        if error == 0:
            continue
        h = 1e-4 * error if np.isfinite(error) else 1e-6 * max(abs(centre[j]), 1e-12)
        up, down = (
            function(dict(zip(names, centre + s * h * (np.arange(len(names)) == j), strict=True))) for s in (1, -1)
        )
        slope[j] = (float(up) - float(down)) / (2 * h)
    used = np.abs(slope) > 0
    stderr = float(np.sqrt(slope[used] @ matrix[np.ix_(used, used)] @ slope[used]))
    freedom = result.covariance.freedom[used[:p]]
    t = student(float(freedom.min()) if len(freedom) else result.covariance.dof)
    spread, interval = float("nan"), (float("nan"), float("nan"))
    if resamples is not None:
        rng = np.random.default_rng(resamples.seed + 1)
        extra = {name: rng.normal(v, e, resamples.n) for name, (v, e) in inputs.items()}
        values = np.asarray(function({**resamples.samples, **extra}), dtype=float)
        spread = float(np.nanstd(values, ddof=1))
        interval = widened(values, value, 0.95, resamples.widening, logarithm=False)
    return Propagated(value, stderr, (value - t * stderr, value + t * stderr), spread, interval)
