"""The optimum of a `Problem`: amplitudes by non-negative least squares over a grid of exponents, then a polish.

Given the exponents a law is linear in its amplitudes and offsets, so a coarse grid of exponents with an NNLS each
(variable projection) finds the basin; a trust-region Newton method with the exact Hessian finds the bottom.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize, nnls

from llmprobe.fitting.newton import refit
from llmprobe.fitting.objective import LOG_ZERO, Problem

ONE_X = (0.05, 0.1, 0.2, 0.35, 0.5, 0.8, 1.2, 1.8, 2.7, 4.0, -0.1, -0.5, -1.5, -3.0)
SEVERAL_X = (0.1, 0.2, 0.3, 0.5, 0.8, 2.0)
MANY_X = (0.1, 0.3, 0.8, 2.0)
FIRST, SHORT, TRIES = 24, 25, 3
"""Starts of the grid that are run, for how many steps, and how many of those are followed to the end."""
LARGEST_EXPONENT = 12.0
TRUST_REGION: Any = {"gtol": 1e-9, "maxiter": 300, "initial_trust_radius": 0.5, "max_trust_radius": 20.0}
EXACT = 1e-24
"""Loss per unit weight at which the law goes through the points to rounding."""
GONE = 1e-3
"""A term that adds less than this share of y everywhere is tried without."""


@dataclass(frozen=True)
class Solution:
    """θ at the optimum (shape [p]), the summed loss there, whether it is one, and which parameters lie on a bound."""

    theta: np.ndarray
    value: float
    converged: bool
    zero: tuple[int, ...]
    bounded: tuple[int, ...]


def solve(problem: Problem, near: np.ndarray | None = None) -> Solution:
    """Minimize from the best few of a grid of starts, or from `near` alone (θ, shape [p])."""
    starts = _starts(problem) if near is None else [np.where(np.isnan(problem.start), near, problem.start)]
    free = np.isnan(problem.start)
    best: Solution | None = None
    for start in starts:
        found = _solve_active_set(problem, start, free)
        if best is None or found.value < best.value * (1 - 1e-12):
            best = found
    assert best is not None
    return best


def _solve_active_set(problem: Problem, start: np.ndarray, free: np.ndarray) -> Solution:
    """Polish; terms that vanish are put to zero and exponents that run away to their bound, and the rest again."""
    theta, value, converged = polish(problem, start, free)
    exponents = np.flatnonzero(~problem.is_amplitude & free)
    limit = LARGEST_EXPONENT * problem.stretch
    bounded = tuple(int(j) for j in exponents if abs(theta[j]) > limit[j])
    if bounded:
        free = free.copy()
        free[list(bounded)] = False
        theta[list(bounded)] = (np.sign(theta) * limit)[list(bounded)]
        theta, value, converged = polish(problem, _project(problem, theta), free)
    zero: list[int] = []
    for j in _negligible(problem, theta, free):
        without = theta.copy()
        without[j] = LOG_ZERO
        rest = free.copy()
        rest[j] = False
        rest[_orphan_exponents(problem, j, without)] = False
        if not rest.any() and problem.value(without) > value:
            continue
        again, less, ok = polish(problem, without, rest)
        if less <= value + 1e-9 * abs(value):
            theta, value, converged, free = again, less, ok, rest
            zero.append(j)
    return Solution(theta, value, converged, tuple(zero), bounded)


def polish(problem: Problem, start: np.ndarray, free: np.ndarray) -> tuple[np.ndarray, float, bool]:
    """Trust-region Newton over the free parameters: θ, summed loss, and whether the gradient vanished."""
    theta = start.copy()
    if not free.any():
        return theta, float(problem.value(theta)), True
    cache: dict[bytes, tuple[float, np.ndarray, np.ndarray]] = {}
    scale = 1.0

    def at(point: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        key = point.tobytes()
        if key not in cache:
            cache.clear()
            full = theta.copy()
            full[free] = point
            value, gradient, hessian = problem.derivatives(full[None])
            cache[key] = float(value[0]), gradient[0][free], hessian[0][np.ix_(free, free)]
        value_, gradient_, hessian_ = cache[key]
        return value_ / scale, gradient_ / scale, hessian_ / scale

    functions: Any = {"fun": lambda t: at(t)[0], "jac": lambda t: at(t)[1], "hess": lambda t: at(t)[2]}
    point = start[free]
    exact = EXACT * float(problem.weights.sum()) * (problem.delta**2 if problem.loss == "huber" else 1.0)
    for _ in range(3):  # the tolerance is relative to the loss, which the first round finds
        scale = max(at(point)[0] * scale, exact)
        found = minimize(x0=point, method="trust-exact", options=TRUST_REGION, **functions)
        gain = at(point)[0] - found.fun
        if found.fun <= at(point)[0]:
            point = found.x
        if gain < 1e-6 or found.fun * scale < exact:
            break
    if at(point)[0] * scale >= exact and not _at_rest(*at(point)):
        theta[free] = point
        point = refit(problem, theta[None], free).theta[0][free]
    value, gradient, hessian = at(point)
    theta[free] = point
    return theta, value * scale, value * scale < exact or _at_rest(value, gradient, hessian)


def _at_rest(value: float, gradient: np.ndarray, hessian: np.ndarray) -> bool:
    """Whether a Newton step would still lower the loss by more than a millionth of it."""
    curvature, axes = np.linalg.eigh(hessian)
    along = axes.T @ gradient
    stiff = max(float(np.abs(curvature).max()), 1e-300)
    gain = 0.5 * np.sum(along**2 / np.maximum(curvature, 1e-9 * stiff))
    return bool(gain <= 1e-6 * max(value, 1e-300) or np.abs(gradient).max() < 1e-7)


def _negligible(problem: Problem, theta: np.ndarray, free: np.ndarray) -> list[int]:
    """Free amplitudes whose term is nowhere more than a trace of y, faintest first."""
    c = np.exp(problem.logs(theta))
    share = c / c.sum(0)
    most = {}
    for j in np.flatnonzero(problem.is_amplitude & free):
        mine = problem.D[:, :, j] != 0
        most[int(j)] = float(share[mine].max()) if mine.any() else 0.0
    return sorted((j for j in most if most[j] < GONE), key=most.__getitem__)


def _orphan_exponents(problem: Problem, j: int, theta: np.ndarray) -> list[int]:
    """Exponents that matter to no term once amplitude j is zero."""
    present = np.exp(problem.logs(theta)) > np.exp(LOG_ZERO / 2)
    return [int(e) for e in np.flatnonzero(~problem.is_amplitude) if not (problem.D[:, :, e] != 0)[present].any()]


def _starts(problem: Problem) -> list[np.ndarray]:
    """The best few of a grid of exponents, amplitudes by NNLS."""
    exponents = np.flatnonzero(~problem.is_amplitude)
    families = _families(problem, exponents)
    values: tuple[float, ...] = ONE_X if len(families) == 1 else SEVERAL_X if len(families) == 2 else MANY_X
    if len(problem.D) == 1 and problem.loss == "log":
        values = (1.0,)  # the logarithm of a single term is linear in θ: every start leads to the one optimum
    found = []
    for point in itertools.product(values, repeat=len(families)):
        theta = problem.start.copy()
        for family, value in zip(families, point, strict=True):
            theta[family] = value * problem.stretch[family]
        found.append(_evaluate(problem, theta))
    found.sort(key=lambda pair: pair[0])
    if len(exponents) > len(families):
        found.insert(0, _one_by_one(problem, found[0][1], exponents))
    first = np.array([theta for _, theta in found[:FIRST]])
    # a short run of all of them shows which lead deepest
    run = refit(problem, first, np.isnan(problem.start), rounds=SHORT)
    sane = (np.abs(run.theta) <= LARGEST_EXPONENT * problem.stretch)[:, ~problem.is_amplitude].all(1)
    chosen: list[np.ndarray] = []
    for i in np.lexsort((run.value, ~sane)):
        if all(np.abs(run.theta[i] - other).max() > 1e-3 for other in chosen):
            chosen.append(run.theta[i])
    return chosen[:TRIES]


def _one_by_one(problem: Problem, theta: np.ndarray, exponents: np.ndarray) -> tuple[float, np.ndarray]:
    """Exponents of single groups moved over the grid in turn, from where all groups are alike."""
    best = float(problem.value(theta))
    for e in np.tile(exponents, 2):
        for value in ONE_X:
            moved = theta.copy()
            moved[e] = value * problem.stretch[e]
            found, projected = _evaluate(problem, moved)
            if found < best:
                best, theta = found, projected
    return best, theta


def _evaluate(problem: Problem, theta: np.ndarray) -> tuple[float, np.ndarray]:
    """Loss and θ with parameters that are held as they are and amplitudes by NNLS."""
    theta = _project(problem, np.where(np.isnan(problem.start), theta, problem.start))
    return float(problem.value(theta)), theta


def _families(problem: Problem, exponents: np.ndarray) -> list[list[int]]:
    """Exponents of one x together."""
    together: dict[str, list[int]] = {}
    for e in exponents:
        together.setdefault(problem.names[e].partition("[")[0], []).append(int(e))
    return list(together.values())


def _project(problem: Problem, theta: np.ndarray) -> np.ndarray:
    """Amplitudes by NNLS on relative residuals (plain ones for the linear loss), exponents as they are."""
    free = np.isnan(problem.start) & problem.is_amplitude
    if not free.any():
        return theta
    bare = np.where(problem.is_amplitude & np.isnan(problem.start), 0.0, theta)
    terms = np.exp(problem.logs(bare))
    design = np.einsum("tn,tnj->nj", terms, problem.D[:, :, free])
    known = (terms * (problem.D[:, :, free].sum(-1) == 0)).sum(0)
    root = np.sqrt(problem.weights) / (1.0 if problem.loss == "linear" else problem.y)
    size = np.linalg.norm(design * root[:, None], axis=0)
    size[size == 0] = 1.0
    amplitudes, _ = nnls(design * root[:, None] / size, (problem.y - known) * root)
    amplitudes = amplitudes / size
    # a term that starts at zero would stay there, as its logarithm has no slope
    whole = np.mean(np.abs(problem.y)) * len(problem.y) / np.maximum(design.sum(0), 1e-300)
    theta = theta.copy()
    theta[free] = np.log(np.where(amplitudes > 1e-9 * whole, amplitudes, 0.02 * whole))
    return theta
