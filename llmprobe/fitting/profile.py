"""Profile intervals: how far a parameter may move before the rest cannot make up for it.

For least squares the interval is that of the F test; for Huber's loss and for clusters that of the quasi-likelihood
ratio, with the same scale as its standard errors. Unlike a standard error it need not be symmetric, and it is open on
a side where no value of the parameter spoils the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llmprobe.errors import FitError
from llmprobe.fitting.bootstrap import reactivate_zeros
from llmprobe.fitting.covariance import student
from llmprobe.fitting.newton import refit
from llmprobe.fitting.result import FitResult
from llmprobe.fitting.solver import LARGEST_EXPONENT

LADDER = 12
REFINEMENTS = 2


@dataclass(frozen=True, eq=False)
class Profile:
    """The loss along one parameter, all others refitted.

    Attributes
    ----------
    name, estimate
        The parameter and its best value.
    interval
        Where the loss stays below `threshold`; ±inf (0 for an offset) on a side that is open.
    values, rise
        Values tried, sorted, and by how much the loss rises there over the optimum, in units of the threshold.
    """

    name: str
    estimate: float
    interval: tuple[float, float]
    values: np.ndarray
    rise: np.ndarray


def profile(result: FitResult, name: str, *, level: float = 0.95) -> Profile:
    """Profile interval of an exponent or an offset.

    Parameters
    ----------
    result
        The fit.
    name
        The parameter: ``alpha_m``, ``E``, ``E[group]``.
    level
        Coverage of the interval, between 0 and 1.

    Returns
    -------
    The interval, and the loss along the parameter that it was read from.

    Raises
    ------
    FitError
        An unknown or held parameter, an amplitude (its value is tied to its exponent's), or an exact fit.

    Notes
    -----
    For least squares, Bates and Watts 1988, Nonlinear Regression Analysis and Its Applications, chapter 6.

    Examples
    --------
    >>> import numpy as np
    >>> from llmprobe import PowerLawSum, fit
    >>> m = np.geomspace(64, 2048, 12)
    >>> loss = (1 + 50 / m) * np.exp(0.005 * np.random.default_rng(0).normal(size=12))
    >>> interval = profile(fit(PowerLawSum(offset="shared"), m, loss), "E").interval
    >>> interval[0] < 1 < interval[1]
    True
    """
    problem, cov = result.problem, result.covariance
    allowed = [n for n in problem.names if not n.startswith("A_") and n not in result.law.fixed]
    if name not in allowed:
        raise FitError(f"the profile of {name}", expected=f"one of {', '.join(allowed)}")
    if cov.dof < 1:
        raise FitError(f"{result.n_points} points and as many parameters", expected="more points for an interval")
    j = problem.names.index(name)
    offset = name.startswith("E")
    t = student(float(cov.freedom[j]), level)
    calibration = float(cov.calibration[j])
    threshold = 0.5 * t**2 * (calibration if np.isfinite(calibration) else cov.scale)
    free = np.isnan(problem.start)
    free[j] = False
    start = reactivate_zeros(problem, result.solution)
    best = result.params[name]
    seen: dict[float, float] = {best: 0.0}

    def rise(values: np.ndarray) -> np.ndarray:
        theta = np.repeat(start[None], len(values), axis=0)
        with np.errstate(divide="ignore"):
            theta[:, j] = np.log(np.maximum(values, 1e-30) / problem.y_unit) if offset else values * problem.stretch[j]
        found = refit(problem, theta, free).value
        above = np.maximum(found - result.solution.value, 0.0) / max(threshold, 1e-300)
        seen.update(zip(values.tolist(), above.tolist(), strict=True))
        return above

    step = result.stderr[name] * t
    if not np.isfinite(step) or step <= 0:
        step = 0.1 * abs(best) or 0.1
    low, high = (_crossing(rise, best, side * step, _limit(offset, side)) for side in (-1, 1))
    values = np.array(sorted(seen))
    return Profile(name, best, (low, high), values, np.array([seen[v] for v in values.tolist()]))


def _limit(offset: bool, side: int) -> float:
    if offset:
        return 0.0 if side < 0 else np.inf
    return side * LARGEST_EXPONENT


def _crossing(rise: Callable[[np.ndarray], np.ndarray], best: float, step: float, limit: float) -> float:
    """Where the rise passes 1 on the way from the best value towards the limit."""
    inside, height = best, 0.0
    outside = tall = np.nan
    for reach in (2.0, 8.0, 32.0, 128.0):
        ladder = best + step * reach * np.arange(1, LADDER + 1) / LADDER
        ladder = np.unique(np.clip(ladder, min(best, limit), max(best, limit)))
        ladder = ladder[ladder != best]
        if not len(ladder):
            break
        ladder = ladder[np.argsort(np.abs(ladder - best))]
        heights = rise(ladder)
        over = np.flatnonzero(heights > 1)
        if len(over):
            first = int(over[0])
            if first:
                inside, height = float(ladder[first - 1]), float(heights[first - 1])
            outside, tall = float(ladder[first]), float(heights[first])
            break
        inside, height = float(ladder[-1]), float(heights[-1])
        if inside == limit:
            break
    if np.isnan(outside):
        return 0.0 if limit == 0 else float(np.copysign(np.inf, step))
    for _ in range(REFINEMENTS):
        ladder = np.linspace(inside, outside, 7)[1:-1]
        heights = rise(ladder)
        edges, tops = np.array([inside, *ladder, outside]), np.array([height, *heights, tall])
        first = int(np.flatnonzero(tops > 1)[0])
        inside, outside, height, tall = edges[first - 1], edges[first], tops[first - 1], tops[first]
    # the square root of the rise is nearly straight in the parameter
    share = (1 - np.sqrt(height)) / (np.sqrt(tall) - np.sqrt(height))
    return float(inside + share * (outside - inside))
