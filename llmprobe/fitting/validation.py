"""Does a fitted law predict? Left-out points, large from small, and residuals to look at."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmprobe.errors import FitError
from llmprobe.fitting.alternatives import compare_curves
from llmprobe.fitting.bootstrap import reactivate_zeros
from llmprobe.fitting.estimator import fit_data
from llmprobe.fitting.newton import refit
from llmprobe.fitting.result import FitResult


@dataclass(frozen=True, eq=False)
class Prediction:
    """Points predicted by a fit that has not seen them.

    Attributes
    ----------
    rows
        Which points of the fit, shape [k].
    observed, predicted
        Their y, and what was predicted, shape [k].
    error
        observed − predicted for the linear loss, log(observed/predicted) for the others, shape [k].
    rms
        Root mean square of the errors.
    fitted_rms
        That of the residuals of the points fitted, to compare with.
    """

    rows: np.ndarray
    observed: np.ndarray
    predicted: np.ndarray
    error: np.ndarray
    rms: float
    fitted_rms: float


@dataclass(frozen=True, eq=False)
class Extrapolation(Prediction):
    """Large x predicted from small.

    Attributes
    ----------
    result
        The fit on small x.
    x, beyond
        Points with this x above `beyond` were left out.
    score
        Each error over its standard deviation (of the prediction and of a single point), shape [k]; Student's t with
        the degrees of freedom of the fit on small x.
    unseen
        Points that could not be predicted because their group has no small x.
    """

    result: FitResult
    x: str
    beyond: float
    score: np.ndarray
    unseen: int


def leave_one_out(result: FitResult) -> Prediction:
    """Each point predicted by a fit to all others, or to all other clusters where points come in clusters.

    Points that alone carry a parameter (a group of one point or cluster) cannot be predicted and are left out.

    Raises
    ------
    FitError
        No more points than parameters.
    """
    problem = result.problem
    n = len(problem.y)
    if result.covariance.dof < 1:
        raise FitError(f"{n} points and as many parameters", expected="more points to leave one out")
    units, unit = np.arange(n), np.arange(n)
    if result.data.cluster is not None:
        units, unit = np.unique(result.data.cluster, return_inverse=True)
    rows = np.arange(n)
    if result.law.grouped and result.data.group is not None:
        group = np.unique(result.data.group, return_inverse=True)[1]
        pairs = np.unique(np.column_stack([group, unit]), axis=0)[:, 0]
        rows = rows[np.bincount(pairs)[group] > 1]
        if not len(rows):
            raise FitError(f"{group.max() + 1} groups of one point", expected="groups of two points or more")
    weights = problem.weights * (unit != np.arange(len(units))[:, None])
    start = np.repeat(reactivate_zeros(problem, result.solution)[None], len(units), axis=0)
    found = refit(problem, start, np.isnan(problem.start), weights=weights)
    predicted = problem.predict(found.theta)[unit[rows], rows] * problem.y_unit
    return Prediction(rows, *_errors(result, result.data.y[rows], predicted))


def extrapolate(result: FitResult, x: str | None = None, beyond: float | int | None = None) -> Extrapolation:
    """Fit small x, predict large.

    Parameters
    ----------
    x
        Which x; the law's first when left out.
    beyond
        Points above this are predicted; when left out, the largest third of the different values.

    Raises
    ------
    FitError
        Nothing is left to fit or to predict.
    """
    data = result.data
    x = result.law.x[0] if x is None else x
    if x not in data.x:
        raise FitError(f"no x named {x}", expected=f"one of {', '.join(data.x)}")
    column = data.x[x]
    if beyond is None:
        values = np.unique(column)
        beyond = float(values[-1 - max(1, len(values) // 3)])
    small = column <= beyond
    large = ~small
    seen = np.isin(data.group, data.group[small]) if data.group is not None else np.ones(len(column), bool)
    rows = np.flatnonzero(large & seen)
    if not len(rows) or not small.any():
        raise FitError(
            f"{int(small.sum())} points up to {x} = {beyond:g} and {len(rows)} beyond", expected="some of each"
        )
    fewer = fit_data(
        result.law, data.take(small), loss=result.loss, delta=result.problem.delta, errors=result.covariance.errors
    )
    there = data.take(rows)
    predicted = fewer.predict(there.x, there.group)
    observed, predicted, error, rms, fitted = _errors(fewer, there.y, predicted)
    scatter = fitted * np.sqrt(int(small.sum()) / max(fewer.covariance.dof, 1))
    return Extrapolation(
        rows,
        observed,
        predicted,
        error,
        rms,
        fitted,
        result=fewer,
        x=x,
        beyond=float(beyond),
        score=error / np.hypot(_prediction_error(fewer, there.x, there.group, predicted), scatter),
        unseen=int((large & ~seen).sum()),
    )


def validate(result: FitResult) -> dict[str, Any]:
    """Everything here as one row for JSON; a test that the data do not allow is NaN."""
    found: dict[str, Any] = {"leave_one_out_rms": float("nan"), "extrapolation_rms": float("nan")}
    found["fitted_rms"] = float(np.sqrt(np.mean(result.residuals**2)))
    with suppress(FitError):
        found["leave_one_out_rms"] = leave_one_out(result).rms
    with suppress(FitError):
        beyond = extrapolate(result)
        found["extrapolation_rms"] = beyond.rms
        found["extrapolated"] = f"{len(beyond.rows)} points with {beyond.x} above {beyond.beyond:g}"
        found["extrapolation_largest_score"] = float(np.abs(beyond.score).max())
    if len(result.law.x) == 1 and not result.law.grouped:
        found["rivals"] = [asdict(rival) for rival in compare_curves(result)]
    return found


def residual_table(result: FitResult) -> dict[str, np.ndarray]:
    """Columns for a residual plot: each x, group if any, y, fitted, residual and standardised residual, shape [n]."""
    standard = result.residuals * np.sqrt(result.problem.weights)
    scale = float(np.sqrt(np.mean(standard**2)))
    table = dict(result.data.x)
    if result.data.group is not None:
        table["group"] = result.data.group
    table.update(y=result.data.y, fitted=result.fitted, residual=result.residuals)
    table["standardised"] = standard / scale if scale > 0 else standard
    return table


def _errors(
    result: FitResult, observed: np.ndarray, predicted: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    error = observed - predicted if result.loss == "linear" else np.log(observed / predicted)
    scatter = float(np.sqrt(np.mean(result.residuals**2)))
    return observed, predicted, error, float(np.sqrt(np.mean(error**2))), scatter


def _prediction_error(
    result: FitResult, x: dict[str, np.ndarray], group: np.ndarray | None, predicted: np.ndarray
) -> np.ndarray:
    """Standard error of the law itself at new points (of its logarithm unless the loss is linear), shape [k]."""
    names = list(result.params)
    matrix = np.nan_to_num(result.covariance.matrix)
    slope = np.zeros((len(predicted), len(names)))
    for j, name in enumerate(names):
        error = np.sqrt(matrix[j, j])
        if error == 0:
            continue
        h = 1e-4 * error
        with np.errstate(over="ignore", invalid="ignore"):  # a law that identifies nothing may predict anything
            up, down = (
                result.law.predict({**result.params, name: result.params[name] + s * h}, x, group) for s in (1, -1)
            )
            slope[:, j] = (up - down) / (2 * h)
    if result.loss != "linear":
        slope /= predicted[:, None]
    return np.sqrt(np.maximum(np.einsum("ki,ij,kj->k", slope, matrix, slope), 0.0))
