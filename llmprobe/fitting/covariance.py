"""Standard errors from the full Jacobian, so that the correlation of amplitude, exponent and offset counts.

Published slope errors often leave that correlation out and come out too small. For Huber's loss the errors are those
of an M-estimator (Huber 1964). Where points come in clusters, see `clusters`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import ndtri, stdtrit

from llmprobe.fitting.clusters import Clusters
from llmprobe.fitting.objective import LOG_ZERO, Problem
from llmprobe.fitting.solver import Solution

Errors = Literal["jacobian", "sandwich", "clustered"]
SINGULAR = 1e-7
"""Singular values of the scaled Jacobian below this share of the largest count as zero."""


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of the parameters in the user's units.

    Attributes
    ----------
    errors
        How it was made.
    matrix
        Shape [p, p]; rows of parameters that were held are 0, of those not identified NaN.
    dof
        Points less free parameters.
    freedom
        Degrees of freedom of each parameter's standard error, shape [p]: `dof`, or fewer where clusters carry it.
    scale
        Variance of the residual of a point of weight 1, in the scaled units of the problem; for Huber's loss what
        stands in its place, ⟨ψ²⟩/⟨ψ'⟩².
    calibration
        What a rise of the summed loss is to be divided by, parameter by parameter, to make it half a chi-squared,
        shape [p]: the scale for least squares with even scatter.
    """

    errors: Errors
    matrix: np.ndarray
    dof: int
    freedom: np.ndarray
    scale: float
    calibration: np.ndarray

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of each parameter, shape [p]."""
        return np.sqrt(np.diag(self.matrix))


def covariance(problem: Problem, solution: Solution, errors: Errors, cluster: np.ndarray | None = None) -> Covariance:
    """Covariance at an optimum: inverse curvature × variance of the score × inverse curvature.

    ``jacobian`` takes both to be alike for all points (up to their weights); ``sandwich`` takes each point's own
    score (HC3, MacKinnon and White 1985) and, for Huber's loss, each point's own curvature (Powell 1991); ``clustered``
    sums the score over each cluster (labels, shape [n]).
    """
    J, columns = amplitude_jacobian(problem, solution)  # [n, c] and [c]: n points, c of the p parameters
    p, free = len(problem.names), np.isnan(problem.start)
    dof = len(problem.y) - int(free.sum())
    matrix, calibration = np.zeros((p, p)), np.full(p, np.nan)
    matrix[free, :] = matrix[:, free] = np.nan
    r, w = problem.residuals(solution.theta), problem.weights  # [n] each
    slopes, psi = slope_of_points(problem, r), problem.psi(r)  # [n] each
    mean = float(np.average(slopes, weights=w))
    scale = float((w * psi**2).sum()) / dof / mean**2 if dof > 0 else float("nan")
    freedom = np.full(p, float(dof))
    if len(columns) and dof > 0:
        size = np.sqrt((w[:, None] * J**2).sum(0))  # [c]
        size[size == 0] = 1.0
        X = np.sqrt(w)[:, None] * J / size  # [n, c]
        U, s, Vt = np.linalg.svd(X, full_matrices=False)  # [n, c], [c], [c, c]
        keep = s > SINGULAR * s[0]  # [c], of which k are kept
        clusters = None if cluster is None else Clusters.of(U[:, keep], cluster)
        if errors == "jacobian":
            bread = (Vt[keep].T / s[keep] ** 2) @ Vt[keep] / mean  # [c, c]
            inner = bread * scale * mean
        else:
            curved = Vt[keep] @ ((X * slopes[:, None]).T @ X) @ Vt[keep].T  # [k, k]
            bread = Vt[keep].T @ np.linalg.pinv(curved, rcond=SINGULAR**2, hermitian=True) @ Vt[keep]  # [c, c]
            residuals = np.sqrt(w) * psi  # [n]
            if clusters is None:
                leverage = np.minimum((U[:, keep] ** 2).sum(1), 1 - 1e-9)  # [n]
                scores = X * (residuals / (1 - leverage))[:, None]  # [n, c]
            else:
                scores = clusters.scores(X, residuals)  # [clusters, c]
            inner = bread @ (scores.T @ scores) @ bread  # [c, c]
        with np.errstate(invalid="ignore", divide="ignore"):
            calibration[columns] = np.diag(inner) / np.diag(bread)
        inner = inner / np.outer(size, size)
        lost = (np.abs(Vt[~keep]) > 1e-3).any(0) if (~keep).any() else np.zeros(len(columns), bool)
        T = problem.jacobian_of_params(solution.theta)[np.ix_(columns, columns)]
        outer = T[:, ~lost] @ inner[np.ix_(~lost, ~lost)] @ T[:, ~lost].T
        blurred = (np.abs(T[:, lost]) > 0).any(1)
        outer[blurred, :] = outer[:, blurred] = np.nan
        if clusters is not None:
            freedom[columns] = clusters.freedom(X @ bread @ (T / size).T)
            untold = freedom[columns] == 0
            outer[untold, :] = outer[:, untold] = np.nan
        matrix[np.ix_(columns, columns)] = outer
    return Covariance(errors, matrix, dof, freedom, scale, calibration)


def amplitude_jacobian(problem: Problem, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Jacobian of the residuals by amplitudes (not their logarithms) and exponents, and which parameters those are.

    Held parameters are left out, and the exponents of terms that are zero; amplitudes that are zero stay in, as
    y depends on them linearly.
    """
    theta = solution.theta
    bare = np.where(problem.is_amplitude, 0.0, theta)
    unit, terms = np.exp(problem.logs(bare)), np.exp(problem.logs(theta))  # [t, n] each: t terms, n points
    by_amplitude = np.einsum("tn,tnj->nj", unit, problem.D)  # [n, p]
    by_exponent = np.einsum("tn,tnj->nj", terms, problem.D)  # [n, p]
    J = np.where(problem.is_amplitude, by_amplitude, by_exponent)
    if problem.loss != "linear":
        J = J / terms.sum(0)[:, None]
    free = np.isnan(problem.start)
    gone = theta <= LOG_ZERO
    present = (problem.D[:, :, problem.is_amplitude & ~gone] != 0).any(-1)  # [t, n]
    used = np.array([(problem.D[:, :, j] != 0)[present].any() for j in range(len(theta))])  # [p]
    columns = np.flatnonzero(free & (problem.is_amplitude | used))  # [c]
    columns = columns[~np.isin(columns, solution.bounded)]
    return J[:, columns], columns


def slope_of_points(problem: Problem, r: np.ndarray) -> np.ndarray:
    """ψ' at each point, shape [n].

    For Huber's loss ψ' is 1 within delta and 0 beyond; with a small delta hardly a point is within, so points are
    counted over a window wide enough to estimate a density at the median, and count for less in proportion. The
    width is that of Hall and Sheather (1988) as used for median regression (Koenker 2005, section 3.4).
    """
    if problem.loss != "huber":
        return np.ones_like(r)
    n = len(r)
    spread = float(np.std(r))
    quartiles = float(np.subtract(*np.percentile(r, [75, 25]))) / 1.349
    if quartiles > 0:
        spread = min(spread, quartiles)
    share = min(0.49, (1.959964**2 * 1.5 / (2 * np.pi) / n) ** (1 / 3))
    window = max(problem.delta, 2 * spread * float(ndtri(0.5 + share)))
    inside = (np.abs(r) <= window).astype(float)
    if not inside.any():
        inside[np.argmin(np.abs(r))] = 1.0
    return inside * problem.delta / window


def intervals(
    params: Mapping[str, float], stderr: Mapping[str, float], freedom: np.ndarray, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Student intervals; an amplitude's is symmetric in its logarithm, an offset's ends at zero."""
    found = {}
    for (name, value), own in zip(params.items(), freedom, strict=True):
        half = student(own, level) * stderr[name]
        if stderr[name] == 0:
            found[name] = (value, value)
        elif name.startswith("A_") and value > 0:
            ratio = float(np.exp(min(half / value, 700.0)))
            found[name] = (value / ratio, value * ratio)
        elif name.startswith("alpha_"):
            found[name] = (value - half, value + half)
        else:
            found[name] = (max(0.0, value - half), value + half)
    return found


def student(freedom: float, level: float = 0.95) -> float:
    """Half width of a two-sided Student interval in standard errors; NaN without degrees of freedom."""
    return float(stdtrit(freedom, 0.5 + level / 2)) if freedom > 0 else float("nan")
