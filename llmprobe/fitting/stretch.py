"""The longest stretch of a curve that is a power law, by a stated rule."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.errors import FitError
from llmprobe.fitting.law import PowerLawSum, as_columns, numbers

PER_DECADE = 24
MOST = 2000
"""A curve of more points is refused, as all its stretches are tried."""


@dataclass(frozen=True)
class Stretch:
    """A stretch lo ≤ x ≤ hi of a curve.

    Attributes
    ----------
    lo, hi
        Its ends, in the unit of x.
    n_points
        Points inside, of those that are used.
    rule
        How it was chosen, as a sentence.
    bend
        Change of the local exponent from end to end, over the exponent; NaN where the window was given.
    """

    lo: float
    hi: float
    n_points: int
    rule: str
    bend: float = float("nan")


def choose_window(
    x: ArrayLike, y: ArrayLike, *, tolerance: float = 0.1, min_points: int = 5, min_decades: float = 0.5
) -> Stretch:
    """The longest stretch, in decades, on which y is a pure power law of x.

    A stretch qualifies when a parabola through log y against log x bends by less than `tolerance` (change of the
    local exponent from end to end, over the exponent), or by less than two of its own standard errors. It must hold
    `min_points` different x over `min_decades`. Of equally long stretches the straighter is taken.

    Parameters
    ----------
    x, y
        The curve, shape [n], positive; in any order. Used as it stands: thin a dense curve with `thin` first.

    Raises
    ------
    FitError
        No stretch qualifies, or values that are not positive.
    """
    xs, ys = positive_curve(x, y)
    u, v = np.log(xs), np.log(ys)
    if len(u) > MOST:
        raise FitError(
            f"{len(u)} points", expected=f"at most {MOST}, as all stretches are tried", fix="thin the curve first"
        )
    first, last = _candidates(u, max(min_points, 3), min_decades)
    if not len(first):
        raise FitError(
            f"{len(u)} points over {np.ptp(u) / np.log(10):.2f} decades",
            expected=f"{min_points} points over {min_decades} decades",
            fix="measure further, or name the window yourself",
        )
    bend, straight = _bends(u, v, first, last, tolerance)
    if not straight.any():
        raise FitError(
            f"every stretch of {min_points} points over {min_decades} decades bends by more than {tolerance:.0%}",
            expected="a stretch that is straight in log x, log y",
            fix="the curve is not a power law there; raise the tolerance or fit an offset",
        )
    good = np.flatnonzero(straight)
    length = u[last[good]] - u[first[good]]
    best = good[np.lexsort((bend[good], -length.round(9)))[0]]
    i, j = first[best], last[best]
    rule = (
        f"the longest stretch (at least {min_points} points, {min_decades:g} decades) whose local exponent changes by "
        f"less than {tolerance:.0%} end to end, or by less than two standard errors"
    )
    return Stretch(float(xs[i]), float(xs[j]), int(j - i + 1), rule, float(bend[best]))


def _candidates(u: np.ndarray, min_points: int, min_decades: float) -> tuple[np.ndarray, np.ndarray]:
    """First and last index, shape [s] each, of every stretch of sorted log x that is long enough."""
    first, last = np.triu_indices(len(u), 1)  # [k(k−1)/2]
    new = np.concatenate([[True], np.diff(u) > 0, [True]])  # [k+1]: whether an x differs from the one before
    distinct = np.cumsum(new)
    enough = distinct[last] - distinct[first] + 1 >= min_points
    enough &= u[last] - u[first] >= min_decades * np.log(10)
    enough &= new[first] & new[last + 1]  # points of one x stay together
    return first[enough], last[enough]


def _bends(
    u: np.ndarray, v: np.ndarray, first: np.ndarray, last: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Bend of a parabola through each stretch of log y against log x, and whether it is straight, shape [s] each."""
    # sums over any stretch by differences of running sums; centered, or the fourth powers lose digits
    c = u - u.mean()  # [k]
    columns = np.stack([np.ones(len(u)), c, c**2, c**3, c**4, v, v * c, v * c**2, v**2])  # [9, k]
    running = np.concatenate([np.zeros((len(columns), 1)), np.cumsum(columns, axis=1)], axis=1)  # [9, k+1]
    s0, s1, s2, s3, s4, t0, t1, t2, vv = running[:, last + 1] - running[:, first]  # [s] each
    M = np.moveaxis(np.array([[s0, s1, s2], [s1, s2, s3], [s2, s3, s4]]), -1, 0)  # [s, 3, 3]
    T = np.stack([t0, t1, t2], axis=-1)  # [s, 3]
    inverse = np.linalg.pinv(M)  # [s, 3, 3]
    b = (inverse @ T[..., None])[..., 0]  # [s, 3]: v ≈ b0 + b1 c + b2 c²
    rss = np.maximum(vv - (b * T).sum(1), 0.0)  # [s]
    dof = s0 - 3
    error = np.sqrt(np.where(dof > 0, rss / np.maximum(dof, 1), 0.0) * inverse[:, 2, 2])
    middle = 0.5 * (u[last] + u[first]) - u.mean()
    slope = np.abs(b[:, 1] + 2 * b[:, 2] * middle)
    bend = 2 * np.abs(b[:, 2]) * (u[last] - u[first]) / np.maximum(slope, 1e-12)
    return bend, (bend <= tolerance) | ((np.abs(b[:, 2]) <= 2 * error) & (dof > 1))


def thin(x: ArrayLike, per_decade: int = PER_DECADE) -> np.ndarray:
    """Indices that keep about `per_decade` evenly spaced points per decade of positive x, sorted by x."""
    column = numbers("x", x)
    order = np.argsort(column, kind="stable")
    return order[thinned(np.log(column[order]), per_decade)]


def thinned(u: np.ndarray, per_decade: int) -> np.ndarray:
    """Of sorted log x, the points nearest to an even grid."""
    cells = max(1, int(np.ceil(np.ptp(u) / np.log(10) * per_decade)))
    grid = np.linspace(u[0], u[-1], cells + 1)
    after = np.clip(np.searchsorted(u, grid), 1, len(u) - 1) if len(u) > 1 else np.zeros(1, dtype=int)
    nearest = np.where(grid - u[after - 1] < u[after] - grid, after - 1, after)
    return np.unique(nearest)


def inside(xs: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """Which x lie on a stretch, its ends included: bool, shape [n]."""
    return (xs >= lo * (1 - 1e-9)) & (xs <= hi * (1 + 1e-9))


def positive_curve(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Positive x and y, sorted by x."""
    columns = as_columns(PowerLawSum(("x",)), x)
    values = numbers("y", y)
    if values.shape != columns["x"].shape:
        raise FitError(f"{len(columns['x'])} x and {len(values)} y", expected="one y for each x")
    if not (np.isfinite(values) & (values > 0)).all():
        raise FitError("a y that is not a positive number", expected="y > 0, as log y is taken")
    order = np.argsort(columns["x"], kind="stable")
    return columns["x"][order], values[order]
