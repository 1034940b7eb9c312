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

OFFSETS: dict[str, Offset] = {"power law": "none", "power law + offset": "shared"}
Curve = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Rival:
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
        Share of the evidence, exp(−Δ/2) normalised over all rivals.
    """

    name: str
    formula: str
    params: dict[str, float]
    rmse: float
    aicc: float
    weight: float


def rivals(result: FitResult) -> tuple[Rival, ...]:
    """Power law, with and without offset, exponential with and without, logarithm, broken power law; best first.

    All are fitted by least squares to the same points with the same weights: on log y for the log and Huber losses,
    on y for the linear loss. In the criterion the variance of the scatter counts as a parameter.

    Raises
    ------
    FitError
        The law has several x or groups, which the rivals have not.
    """
    if len(result.law.x) != 1 or result.law.grouped:
        raise FitError(f"rivals of {result.law.formula}", expected="a law of one x without groups")
    name = result.law.x[0]
    x, y, w = result.data.x[name], result.data.y, result.problem.weights
    linear = result.loss == "linear"
    unit = float(np.exp(np.mean(np.log(x)))), float(np.mean(np.abs(y)))
    u, v = x / unit[0], y / unit[1]

    def residual(q: np.ndarray, curve: Curve) -> np.ndarray:
        fitted = curve(q, u)
        r = fitted - v if linear else np.log(np.maximum(fitted, 1e-300) / v)
        return np.sqrt(w) * r

    found: list[_Fitted] = []
    for title, offset in OFFSETS.items():
        law = PowerLawSum((name,), offset=offset)
        if len(y) < len(law.names()):
            continue
        other = fit_data(law, result.data, loss="linear" if linear else "log", delta=1.0)
        found.append(_Fitted(title, law.formula, other.params, 2 * other.solution.value))
    for title, formula, curve, starts, named in _curves(u, v, name):
        if len(y) < len(starts[0]):
            continue
        fits = [least_squares(residual, start, x_scale="jac", max_nfev=2000, args=(curve,)) for start in starts]
        best = min(fits, key=lambda f: float(f.cost))
        found.append(_Fitted(title, formula, named(best.x, *unit), 2 * float(best.cost)))
    scores = [_aicc(f.rss, len(y), len(f.params)) for f in found]
    lowest = min(scores)
    evidence = [float(np.exp(-0.5 * (s - lowest))) if np.isfinite(s) else 0.0 for s in scores]
    total, scale = sum(evidence) or 1.0, unit[1] if linear else 1.0
    table = [
        Rival(f.name, f.formula, f.params, scale * float(np.sqrt(f.rss / len(y))), score, share / total)
        for f, score, share in zip(found, scores, evidence, strict=True)
    ]
    return tuple(sorted(table, key=lambda rival: rival.aicc))


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


def _curves(u: np.ndarray, v: np.ndarray, x: str) -> list[tuple[str, str, Curve, list[list[float]], Callable]]:
    """Rivals in scaled units: name, formula, curve, starts, and how to name parameters in the user's units."""
    top, low = float(np.abs(v).max()), float(max(v.min(), 1e-3))
    spans = [float(np.ptp(u)) * s for s in (0.1, 0.3, 1.0)]
    slope = float(np.polyfit(np.log(u), np.log(np.maximum(v, 1e-12)), 1)[0])
    ends = float(np.log(u).min()), float(np.log(u).max())
    knots = np.unique(np.log(u))
    middles = [0.5 * (a + b) for a, b in pairwise(knots)][1:-1] or [0.0]

    def exponential(q: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.exp(np.clip(q[0] - t * np.exp(-np.clip(q[1], -50, 50)), -300, 300))

    def offset(q: np.ndarray, t: np.ndarray) -> np.ndarray:
        return np.exp(np.clip(q[2], -300, 300)) + exponential(q, t)

    def logarithm(q: np.ndarray, t: np.ndarray) -> np.ndarray:
        # the ratio of last to first is the parameter, so that y stays positive where it was measured
        return np.exp(q[0]) * (1 + np.expm1(np.clip(q[1], -300, 300)) * (np.log(t) - ends[0]) / (ends[1] - ends[0]))

    def broken(q: np.ndarray, t: np.ndarray) -> np.ndarray:
        s = np.log(t) - q[3]
        return np.exp(np.clip(q[0] - np.where(s < 0, q[1], q[2]) * s, -300, 300))

    return [
        (
            "exponential",
            f"y = A exp(-{x}/tau)",
            exponential,
            [[np.log(top), np.log(s)] for s in spans],
            lambda q, xu, yu: {"A": float(np.exp(q[0]) * yu), "tau": float(np.exp(q[1]) * xu)},
        ),
        (
            "exponential + offset",
            f"y = E + A exp(-{x}/tau)",
            offset,
            [[np.log(top), np.log(s), np.log(0.9 * low)] for s in spans],
            lambda q, xu, yu: {
                "A": float(np.exp(q[0]) * yu),
                "tau": float(np.exp(q[1]) * xu),
                "E": float(np.exp(q[2]) * yu),
            },
        ),
        (
            "logarithm",
            f"y = a - b log {x}",
            logarithm,
            [[np.log(top), np.log(low / top)], [np.log(low), np.log(top / low)]],
            lambda q, xu, yu: _line(q, ends, xu, yu),
        ),
        (
            "broken power law",
            f"y = A ({x}/x0)^(-alpha1) below x0, ^(-alpha2) above",
            broken,
            [[float(np.log(np.median(np.abs(v)) + 1e-12)), -slope, -slope, knot] for knot in middles],
            lambda q, xu, yu: {
                "A": float(np.exp(q[0]) * yu),
                "alpha1": float(q[1]),
                "alpha2": float(q[2]),
                "x0": float(np.exp(q[3]) * xu),
            },
        ),
    ]


def _line(q: np.ndarray, ends: tuple[float, float], x_unit: float, y_unit: float) -> dict[str, float]:
    """a and b of y = a − b log x in the user's units."""
    b = -float(np.exp(q[0]) * np.expm1(q[1])) / (ends[1] - ends[0])
    return {"a": float(np.exp(q[0]) + b * (ends[0] + np.log(x_unit))) * y_unit, "b": b * y_unit}
