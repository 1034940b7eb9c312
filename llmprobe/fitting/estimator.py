"""Fit a law to columns: parameters with standard errors, intervals and plain warnings.

`fit` knows neither where its columns come from nor what was measured: a toy and a language model are judged by the
same code. It imports numpy and scipy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.errors import FitError
from llmprobe.fitting.covariance import Errors, covariance, intervals
from llmprobe.fitting.data import Data, check_data
from llmprobe.fitting.diagnostics import warnings_of
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.objective import Loss, Problem, problem_of
from llmprobe.fitting.result import FitResult
from llmprobe.fitting.solver import solve


def fit(
    law: PowerLawSum,
    x: Mapping[str, ArrayLike] | ArrayLike,
    y: ArrayLike,
    *,
    group: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    cluster: ArrayLike | None = None,
    loss: Loss = "log",
    delta: float = 1e-3,
    errors: Errors | None = None,
) -> FitResult:
    """Fit a law.

    Parameters
    ----------
    law
        What to fit; see `PowerLawSum`.
    x
        Column of each x, shape [n], or one column when the law has one x.
    y
        Column fitted, shape [n].
    group
        Group of each point, shape [n]; used when a parameter of the law differs between groups.
    sigma
        Standard error of each y, shape [n]: points are weighted by its inverse square. Only ratios count, as the
        scatter about the law sets the scale. Left out: all points weigh the same.
    cluster
        Cluster of each point, shape [n], where only whole clusters are independent: the model, for one model's losses
        on several corpora. The estimate stays; errors, intervals, `bootstrap` and `profile` then count clusters.
    loss
        ``log`` and ``linear``: least squares on log y and on y; ``huber``: Huber's loss on log y.
    delta
        Where Huber's loss turns from quadratic to linear, in log y.
    errors
        ``jacobian`` takes the scatter to be the same everywhere (after weighting), ``sandwich`` does not. Left out:
        the former for least squares, the latter for Huber's loss, which is chosen where scatter is uneven.

    Returns
    -------
    Parameters with standard errors and intervals, and in sentences what the data do not support.

    Raises
    ------
    FitError
        Fewer points than parameters, an x that is constant, values that are not finite, y ≤ 0 where a logarithm
        is taken, σ or delta ≤ 0, a group or cluster missing, fewer than three clusters, other errors asked for
        beside clusters, a fixed parameter that the law does not have.

    Notes
    -----
    Huber's loss on log y with δ = 10⁻³ is that of Hoffmann et al. 2022 (arXiv:2203.15556, section 3.3).

    Examples
    --------
    >>> import numpy as np
    >>> from llmprobe import PowerLawSum
    >>> m = np.array([64.0, 128, 256, 512, 1024])
    >>> result = fit(PowerLawSum(offset="shared"), m, 1.5 + 40 / m)
    >>> {name: round(value, 3) for name, value in result.params.items()}
    {'A_m': 40.0, 'alpha_m': 1.0, 'E': 1.5}
    """
    if not delta > 0:
        raise FitError(f"delta = {delta:g}", expected="a positive number, as Huber's loss needs")
    if (cluster is not None) != (errors == "clustered") and errors is not None:
        raise FitError(
            f"{errors} errors {'with' if cluster is not None else 'without'} clusters", fix="leave errors out"
        )
    data = check_data(law, x, y, group, sigma, loss, cluster)
    return fit_data(law, data, loss=loss, delta=delta, errors=errors)


def fit_data(
    law: PowerLawSum,
    data: Data,
    *,
    loss: Loss,
    delta: float,
    errors: Errors | None = None,
    near: np.ndarray | None = None,
) -> FitResult:
    """`fit` on columns checked before; `near` is a θ to start from in place of the grid."""
    problem = build(law, data, loss, delta)
    solution = solve(problem, near)
    if data.cluster is not None:
        errors = "clustered"
    cov = covariance(problem, solution, errors or ("sandwich" if loss == "huber" else "jacobian"), data.cluster)
    values = problem.to_params(solution.theta)
    values[list(solution.zero)] = 0.0
    params = {name: float(v) for name, v in zip(problem.names, values, strict=True)}
    stderr = {name: float(v) for name, v in zip(problem.names, cov.stderr, strict=True)}
    ci95 = intervals(params, stderr, cov.freedom)
    fitted = problem.predict(solution.theta) * problem.y_unit
    result = FitResult(
        law=law,
        loss=loss,
        n_points=len(data.y),
        params=params,
        stderr=stderr,
        ci95=ci95,
        r2=_r2(problem, solution.theta),
        rmse=float(np.sqrt(np.mean((data.y - fitted) ** 2))),
        objective=solution.value * (problem.y_unit**2 if loss == "linear" else 1.0),
        converged=solution.converged,
        warnings=(),
        data=data,
        problem=problem,
        solution=solution,
        covariance=cov,
    )
    return replace(result, warnings=warnings_of(result))


def build(law: PowerLawSum, data: Data, loss: Loss, delta: float) -> Problem:
    """The problem of a law over checked data."""
    groups = data.groups if law.grouped else ()
    unknown = sorted(set(law.fixed) - set(law.names(groups)))
    if unknown:
        raise FitError(f"fixed {', '.join(unknown)}", expected=f"among {', '.join(law.names(groups))}")
    free = len(law.names(groups)) - len(law.fixed)
    if len(data.y) < free:
        raise FitError(
            f"{len(data.y)} points for {free} parameters of {law.formula}",
            expected=f"at least {free} points, and more for a standard error",
            fix="fit a law with fewer parameters or measure more points",
        )
    membership = None
    if law.grouped and data.group is not None:
        membership = np.unique(data.group, return_inverse=True)[1]
    weights = np.ones(len(data.y))
    if data.sigma is not None:
        weights = (data.sigma if loss == "linear" else data.sigma / data.y) ** -2
    return problem_of(law, data.x, data.y, groups, membership, weights / weights.mean(), loss, delta)


def _r2(problem: Problem, theta: np.ndarray) -> float:
    y = problem.y if problem.loss == "linear" else np.log(problem.y)
    w = problem.weights
    spread = float(np.sum(w * (y - np.average(y, weights=w)) ** 2))
    return 1.0 - float(np.sum(w * problem.residuals(theta) ** 2)) / spread if spread > 0 else float("nan")
