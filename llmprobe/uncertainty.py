"""Standard errors from the full Jacobian, so that the correlation of amplitude, exponent and offset counts.

Published slope errors often leave that correlation out and come out too small. For Huber's loss the errors are those
of an M-estimator (Huber 1964), whose density at zero is estimated over a window that does not shrink with delta.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import stdtrit

from llmprobe.objective import NOTHING, Problem
from llmprobe.solver import Solution

Errors = Literal["jacobian", "sandwich"]
SINGULAR = 1e-7
"""Singular values of the scaled Jacobian below this share of the largest count as zero."""


@dataclass(frozen=True, eq=False)
class Covariance:
    """Covariance of the parameters in the user's units.

    Attributes
    ----------
    matrix
        Shape [p, p]; rows of parameters that were held are 0, of those not identified NaN.
    dof
        Points less free parameters.
    scale
        Variance of a point's residual (of weight 1), in the scaled units of the problem; for Huber's loss what
        stands in its place, ⟨ψ²⟩/⟨ψ'⟩².
    curvature
        ⟨ψ'⟩: 1 for least squares.
    """

    matrix: np.ndarray
    dof: int
    scale: float
    curvature: float

    @property
    def stderr(self) -> np.ndarray:
        """Standard error of each parameter, shape [p]."""
        return np.sqrt(np.diag(self.matrix))


def covariance(problem: Problem, solution: Solution, errors: Errors) -> Covariance:
    """Covariance at an optimum; `sandwich` lets the scatter differ between points (HC2)."""
    J, columns = amplitude_jacobian(problem, solution)
    n, p = len(problem.y), len(problem.names)
    fitted_parameters = int(np.isnan(problem.start).sum())
    dof = n - fitted_parameters
    r, w = problem.residuals(solution.theta), problem.weights
    curvature = mean_slope(problem, r)
    psi = problem.psi(r)
    variance = float((w * psi**2).sum()) / dof / curvature**2 if dof > 0 else float("nan")
    matrix = np.zeros((p, p))
    matrix[np.isnan(problem.start), :] = matrix[:, np.isnan(problem.start)] = np.nan
    if len(columns) and dof > 0:
        size = np.sqrt((w[:, None] * J**2).sum(0))
        size[size == 0] = 1.0
        X = np.sqrt(w)[:, None] * J / size
        U, s, Vt = np.linalg.svd(X, full_matrices=False)
        keep = s > SINGULAR * s[0]
        inverse = (Vt[keep].T / s[keep] ** 2) @ Vt[keep]
        if errors == "sandwich":
            leverage = np.minimum((U[:, keep] ** 2).sum(1), 1 - 1e-9)
            meat = (X * (w * psi**2 / (1 - leverage))[:, None]).T @ X / curvature**2
            inner = inverse @ meat @ inverse
        else:
            inner = variance * inverse
        inner = inner / np.outer(size, size)
        lost = (np.abs(Vt[~keep]) > 1e-3).any(0) if (~keep).any() else np.zeros(len(columns), bool)
        inner[lost, :] = inner[:, lost] = np.nan
        T = problem.jacobian_of_params(solution.theta)[np.ix_(columns, columns)]
        # NaN · 0 must not spread to parameters that are identified
        known = ~(np.isnan(inner).any(0) & np.isnan(np.diag(inner)))
        blurred = (np.abs(T[:, ~known]) > 0).any(1)
        outer = T[:, known] @ inner[np.ix_(known, known)] @ T[:, known].T
        outer[blurred, :] = outer[:, blurred] = np.nan
        matrix[np.ix_(columns, columns)] = outer
    return Covariance(matrix, dof, variance, curvature)


def amplitude_jacobian(problem: Problem, solution: Solution) -> tuple[np.ndarray, np.ndarray]:
    """Jacobian of the residuals by amplitudes (not their logarithms) and exponents, and which parameters those are.

    Held parameters are left out, and the exponents of terms that are zero; amplitudes that are zero stay in, as
    y depends on them linearly.
    """
    theta = solution.theta
    bare = np.where(problem.is_amplitude, 0.0, theta)
    unit, terms = np.exp(problem.logs(bare)), np.exp(problem.logs(theta))
    by_amplitude = np.einsum("tn,tnj->nj", unit, problem.D)
    by_exponent = np.einsum("tn,tnj->nj", terms, problem.D)
    J = np.where(problem.is_amplitude, by_amplitude, by_exponent)
    if problem.loss != "linear":
        J = J / terms.sum(0)[:, None]
    free = np.isnan(problem.start)
    gone = theta <= NOTHING
    present = (problem.D[:, :, problem.is_amplitude & ~gone] != 0).any(-1)
    used = np.array([(problem.D[:, :, j] != 0)[present].any() for j in range(len(theta))])
    columns = np.flatnonzero(free & (problem.is_amplitude | used))
    columns = columns[~np.isin(columns, solution.bounded)]
    return J[:, columns], columns


def mean_slope(problem: Problem, r: np.ndarray) -> float:
    """⟨ψ'⟩ of the residuals.

    For Huber's loss ψ' is 1 within delta and 0 beyond; with a small delta hardly a point is within, so the share is
    counted over a window of the width that estimates a density well (Silverman's rule) and scaled down.
    """
    if problem.loss != "huber":
        return 1.0
    w = problem.weights
    spread = float(np.std(r))
    quartiles = np.subtract(*np.percentile(r, [75, 25])) / 1.349
    if quartiles > 0:
        spread = min(spread, float(quartiles))
    window = max(problem.delta, spread * len(r) ** -0.2)
    return max(float(w[np.abs(r) <= window].sum() / w.sum()), 1 / len(r)) * problem.delta / window


def intervals(
    params: Mapping[str, float], stderr: Mapping[str, float], dof: int, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Student intervals; an amplitude's is symmetric in its logarithm, an offset's ends at zero."""
    t = float(stdtrit(dof, 0.5 + level / 2)) if dof > 0 else float("nan")
    found = {}
    for name, value in params.items():
        half = t * stderr[name]
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
