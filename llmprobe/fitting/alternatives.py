"""Other curves through the same points, ranked by the corrected Akaike criterion (Hurvich and Tsai 1989)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from llmprobe.errors import FitError
from llmprobe.fitting.estimator import fit_data
from llmprobe.fitting.law import Offset, PowerLawSum
from llmprobe.fitting.result import FitResult

MOST_KNOTS = 12  # breaks of the broken power law that are started from
OFFSETS: dict[str, Offset] = {"power law": "none", "power law + offset": "shared"}


@dataclass(frozen=True)
class Alternative:
    """A curve and how well it does.

    Attributes
    ----------
    name, formula
        What it is.
    params
        Its parameters at the optimum, by name.
    rmse
        Root mean square residual, weighted as the fit was: of log y, or of y for the linear loss.
    aicc
        Corrected Akaike criterion; lower is better; infinite where there are too few points to tell.
    weight
        Share of the evidence, exp(−Δ/2) normalized over all curves.
    """

    name: str
    formula: str
    params: dict[str, float]
    rmse: float
    aicc: float
    weight: float


def compare_curves(result: FitResult) -> tuple[Alternative, ...]:
    """Power law, with and without offset, exponential with and without, logarithm, broken power law; best first.

    All are fitted by least squares to the same points with the same weights: on log y for the log and Huber losses,
    on y for the linear loss. In the criterion the variance of the scatter counts as a parameter.

    Raises
    ------
    FitError
        The law has several x or groups, which the other curves have not.
    """
    if len(result.law.x) != 1 or result.law.grouped:
        raise FitError(f"other curves for {result.law.formula}", expected="a law of one x without groups")
    name = result.law.x[0]
    x, y, w = result.data.x[name], result.data.y, result.problem.weights
    linear = result.loss == "linear"
    unit = float(np.exp(np.mean(np.log(x)))), float(np.mean(np.abs(y)))
    u, v = x / unit[0], y / unit[1]

    def residual(q: np.ndarray, curve: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        fitted = curve(q)
        r = fitted - v if linear else np.log(np.maximum(fitted, 1e-300) / v)
        return np.sqrt(w) * r

    found: list[_Fitted] = []
    for title, offset in OFFSETS.items():
        law = PowerLawSum((name,), offset=offset)
        if len(y) < len(law.names()):
            continue
        other = fit_data(law, result.data, loss="linear" if linear else "log", delta=1.0)
        found.append(_Fitted(title, law.formula, other.params, 2 * other.solution.value))
    for curve in CURVES:
        starts = curve.starts(u, v)
        if len(y) < len(starts[0]):
            continue
        fits = [least_squares(residual, s, x_scale="jac", max_nfev=2000, args=(curve.at(u),)) for s in starts]
        best = min(fits, key=lambda f: float(f.cost))
        params = curve.params(best.x, u, *unit)
        found.append(_Fitted(curve.name, curve.formula.format(x=name), params, 2 * float(best.cost)))
    scores = [_aicc(f.rss, len(y), len(f.params)) for f in found]
    lowest = min(scores)
    evidence = [float(np.exp(-0.5 * (s - lowest))) if np.isfinite(s) else 0.0 for s in scores]
    total, scale = sum(evidence) or 1.0, unit[1] if linear else 1.0
    table = [
        Alternative(f.name, f.formula, f.params, scale * float(np.sqrt(f.rss / len(y))), score, share / total)
        for f, score, share in zip(found, scores, evidence, strict=True)
    ]
    return tuple(sorted(table, key=lambda curve: curve.aicc))


class _Fitted(NamedTuple):
    name: str
    formula: str
    params: dict[str, float]
    rss: float


def _aicc(rss: float, n: int, parameters: int) -> float:
    k = parameters + 1
    return (
        n * float(np.log(max(rss, 1e-300) / n)) + 2 * k + 2 * k * (k + 1) / (n - k - 1) if n > k + 1 else float("inf")
    )


@dataclass(frozen=True)
class Curve:
    """A curve in scaled units, u = x/x̄ and v = y/ȳ.

    Attributes
    ----------
    name, formula
        What it is; ``{x}`` in the formula stands for the name of x.
    value
        (q, u) to v, shape of u.
    starts
        (u, v) to the parameters q to start from.
    params
        (q, u, x̄, ȳ) to parameters by name, in the units of x and y.
    """

    name: str
    formula: str
    value: Callable[[np.ndarray, np.ndarray], np.ndarray]
    starts: Callable[[np.ndarray, np.ndarray], list[list[float]]]
    params: Callable[[np.ndarray, np.ndarray, float, float], dict[str, float]]

    def at(self, u: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """The curve over fixed u, as a function of q."""
        return lambda q: self.value(q, u)


def _exponential(q: np.ndarray, u: np.ndarray) -> np.ndarray:
    return np.exp(np.clip(q[0] - u * np.exp(-np.clip(q[1], -50, 50)), -300, 300))


def _exponential_params(q: np.ndarray, u: np.ndarray, x_unit: float, y_unit: float) -> dict[str, float]:
    named = {"A": float(np.exp(q[0]) * y_unit), "tau": float(np.exp(q[1]) * x_unit)}
    return named if len(q) == 2 else {**named, "E": float(np.exp(q[2]) * y_unit)}


def _exponential_starts(u: np.ndarray, v: np.ndarray) -> list[list[float]]:
    return [[np.log(_top(v)), np.log(float(np.ptp(u)) * share)] for share in (0.1, 0.3, 1.0)]


def _logarithm(q: np.ndarray, u: np.ndarray) -> np.ndarray:
    # the ratio of last to first is the parameter, so that y stays positive where it was measured
    first, last = _ends(u)
    return np.exp(q[0]) * (1 + np.expm1(np.clip(q[1], -300, 300)) * (np.log(u) - first) / (last - first))


def _logarithm_starts(u: np.ndarray, v: np.ndarray) -> list[list[float]]:
    top, low = _top(v), _low(v)
    return [[np.log(top), np.log(low / top)], [np.log(low), np.log(top / low)]]


def _logarithm_params(q: np.ndarray, u: np.ndarray, x_unit: float, y_unit: float) -> dict[str, float]:
    """a and b of y = a − b log x."""
    first, last = _ends(u)
    b = -float(np.exp(q[0]) * np.expm1(q[1])) / (last - first)
    return {"a": float(np.exp(q[0]) + b * (first + np.log(x_unit))) * y_unit, "b": b * y_unit}


def _broken(q: np.ndarray, u: np.ndarray) -> np.ndarray:
    s = np.log(u) - q[3]
    return np.exp(np.clip(q[0] - np.where(s < 0, q[1], q[2]) * s, -300, 300))


def _broken_starts(u: np.ndarray, v: np.ndarray) -> list[list[float]]:
    knots = np.unique(np.log(u))
    middles = [0.5 * (a + b) for a, b in pairwise(knots)][1:-1] or [0.0]
    middles = middles[:: -(-len(middles) // MOST_KNOTS)]
    slope = float(np.polyfit(np.log(u), np.log(np.maximum(v, 1e-12)), 1)[0])
    return [[float(np.log(np.median(np.abs(v)) + 1e-12)), -slope, -slope, knot] for knot in middles]


def _broken_params(q: np.ndarray, u: np.ndarray, x_unit: float, y_unit: float) -> dict[str, float]:
    return {
        "A": float(np.exp(q[0]) * y_unit),
        "alpha1": float(q[1]),
        "alpha2": float(q[2]),
        "x0": float(np.exp(q[3]) * x_unit),
    }


def _top(v: np.ndarray) -> float:
    return float(np.abs(v).max())


def _low(v: np.ndarray) -> float:
    return float(max(v.min(), 1e-3))


def _ends(u: np.ndarray) -> tuple[float, float]:
    return float(np.log(u).min()), float(np.log(u).max())


CURVES = (
    Curve("exponential", "y = A exp(-{x}/tau)", _exponential, _exponential_starts, _exponential_params),
    Curve(
        "exponential + offset",
        "y = E + A exp(-{x}/tau)",
        lambda q, u: np.exp(np.clip(q[2], -300, 300)) + _exponential(q, u),
        lambda u, v: [[*start, np.log(0.9 * _low(v))] for start in _exponential_starts(u, v)],
        _exponential_params,
    ),
    Curve("logarithm", "y = a - b log {x}", _logarithm, _logarithm_starts, _logarithm_params),
    Curve(
        "broken power law",
        "y = A ({x}/x0)^(-alpha1) below x0, ^(-alpha2) above",
        _broken,
        _broken_starts,
        _broken_params,
    ),
)
