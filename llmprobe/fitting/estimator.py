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
from llmprobe.fitting.diagnostics import complaints
from llmprobe.fitting.law import PowerLawSum, as_columns, numbers
from llmprobe.fitting.objective import Loss, Problem, lay_out
from llmprobe.fitting.result import Data, FitResult
from llmprobe.fitting.solver import solve

__all__ = ["FitResult", "fit"]


def fit(
    law: PowerLawSum,
    x: Mapping[str, ArrayLike] | ArrayLike,
    y: ArrayLike,
    *,
    group: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
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
        scatter about the law sets the scale.
    loss
        ``log`` and ``linear``: least squares on log y and on y; ``huber``: Huber's loss on log y.
    delta
        Where Huber's loss turns from quadratic to linear, in log y.
    errors
        ``jacobian`` takes the scatter to be the same everywhere (after weighting), ``sandwich`` does not. Left out:
        the former for least squares, the latter for Huber's loss, which is chosen where scatter is uneven.

    Raises
    ------
    FitError
        Fewer points than parameters, an x that is constant, values that are not finite, y ≤ 0 where a logarithm
        is taken, σ or delta ≤ 0, a group missing, a fixed parameter that the law does not have.
    """
    if not delta > 0:
        raise FitError(f"delta = {delta:g}", expected="a positive number, as Huber's loss needs")
    data = checked(law, x, y, group, sigma, loss)
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
    cov = covariance(problem, solution, errors or ("sandwich" if loss == "huber" else "jacobian"))
    values = problem.to_params(solution.theta)
    values[list(solution.zero)] = 0.0
    params = {name: float(v) for name, v in zip(problem.names, values, strict=True)}
    stderr = {name: float(v) for name, v in zip(problem.names, cov.stderr, strict=True)}
    ci95 = intervals(params, stderr, cov.dof)
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
    return replace(result, warnings=complaints(result))


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
    return lay_out(law, data.x, data.y, groups, membership, weights / weights.mean(), loss, delta)


def checked(
    law: PowerLawSum,
    x: Mapping[str, ArrayLike] | ArrayLike,
    y: ArrayLike,
    group: ArrayLike | None,
    sigma: ArrayLike | None,
    loss: Loss,
) -> Data:
    """Columns as arrays, or the `FitError` that says what is wrong with them."""
    columns, values = as_columns(law, x), numbers("y", y)
    n = len(values)
    labels = None if group is None else _labels(group)
    spread = None if sigma is None else numbers("sigma", sigma)
    for name, column in {**columns, "group": labels, "sigma": spread}.items():
        if column is not None and column.shape != (n,):
            raise FitError(f"{name} has shape {column.shape} and y has {n} rows", expected="one row per point")
    if n == 0:
        raise FitError("no points", expected="at least as many as parameters", fix="look at the filter")
    bad = ~np.isfinite(values) | ((values <= 0) & (loss != "linear"))
    if bad.any():
        row = int(np.argmax(bad))
        raise FitError(
            f"y = {values[row]:g} in row {row} ({int(bad.sum())} such rows)",
            expected="finite numbers" if loss == "linear" else f"positive numbers, as the {loss} loss takes log y",
            fix="leave these rows out" + ("" if loss == "linear" else " or take the linear loss"),
        )
    if spread is not None and not (np.isfinite(spread) & (spread > 0)).all():
        raise FitError("a standard error that is zero, negative or missing", expected="sigma > 0 in every row")
    if law.grouped and labels is None:
        raise FitError("no groups", expected=f"the group of each point, for {law.formula}")
    for name, column in columns.items():
        if np.ptp(np.log(column)) <= 1e-12 * max(1.0, abs(float(np.log(column[0])))):
            raise FitError(
                f"{name} is {column[0]:g} in all {n} rows",
                expected="at least two different values",
                fix=f"a law in {name} cannot be told from a constant: leave {name} out or measure at another",
            )
    return Data(columns, values, labels, spread)


def _labels(group: ArrayLike) -> np.ndarray:
    given = np.asarray(group)
    # NaN is the one value that differs from itself
    missing = np.array([g is None or g != g for g in given.tolist()], dtype=bool)
    if missing.any():
        row = int(np.argmax(missing))
        raise FitError(f"no group in row {row} ({int(missing.sum())} such rows)", expected="the group of each point")
    return given.astype(str)


def _r2(problem: Problem, theta: np.ndarray) -> float:
    y = problem.y if problem.loss == "linear" else np.log(problem.y)
    w = problem.weights
    spread = float(np.sum(w * (y - np.average(y, weights=w)) ** 2))
    return 1.0 - float(np.sum(w * problem.residuals(theta) ** 2)) / spread if spread > 0 else float("nan")
