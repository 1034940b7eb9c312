"""Which stretch of a curve is a power law: chosen by a stated rule, reported, and varied.

An exponent read off a curve depends on where one looks. Here the stretch is either given or the longest on which
the local exponent stays put, and every answer comes with the exponents of shorter and longer stretches beside it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.errors import FitError
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum, as_columns, numbers
from llmprobe.fitting.objective import Loss
from llmprobe.fitting.result import FitResult

PER_DECADE = 24
FEW = 100
"""A curve of up to this many points is used as it stands."""
MOST = 2000
SHIFT = 1 / 6


@dataclass(frozen=True)
class Window:
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


@dataclass(frozen=True, eq=False)
class WindowFit:
    """A fit on a window, and the same fit on windows near it.

    Attributes
    ----------
    result
        The fit on the window.
    window
        Where, and by what rule.
    sensitivity
        For each window near it: lo, hi, points, exponent, its standard error.
    """

    result: FitResult
    window: Window
    sensitivity: tuple[tuple[float, float, int, float, float], ...]

    @property
    def exponent(self) -> float:
        """The exponent on the window."""
        return self.result.params[self._name]

    @property
    def stderr(self) -> float:
        """Its standard error from the scatter about the law, which knows nothing of the window."""
        return self.result.stderr[self._name]

    @property
    def spread(self) -> tuple[float, float]:
        """Smallest and largest exponent over the windows near it, this one included."""
        exponents = [self.exponent, *(row[3] for row in self.sensitivity)]
        return min(exponents), max(exponents)

    @property
    def _name(self) -> str:
        return f"alpha_{self.result.law.x[0]}"

    def to_dict(self) -> dict[str, Any]:
        """For a report: window, rule, exponent, its error and what other windows give."""
        columns = ("lo", "hi", "n_points", "exponent", "stderr")
        return {
            "window": [self.window.lo, self.window.hi],
            "rule": self.window.rule,
            "n_points": self.window.n_points,
            "bend": self.window.bend,
            "exponent": self.exponent,
            "stderr": self.stderr,
            "spread": list(self.spread),
            "sensitivity": [dict(zip(columns, row, strict=True)) for row in self.sensitivity],
        }


def choose_window(
    x: ArrayLike, y: ArrayLike, *, tolerance: float = 0.1, min_points: int = 5, min_decades: float = 0.5
) -> Window:
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
    xs, ys = _sorted(x, y)
    u, v = np.log(xs), np.log(ys)
    k = len(u)
    if k > MOST:
        raise FitError(
            f"{k} points", expected=f"at most {MOST}, as all stretches are tried", fix="thin the curve first"
        )
    first, last = np.triu_indices(k, 1)
    # sums over any stretch by differences of running sums; centered, or the fourth powers lose digits
    c = u - u.mean()
    columns = np.stack([np.ones(k), c, c**2, c**3, c**4, v, v * c, v * c**2, v**2])
    running = np.concatenate([np.zeros((len(columns), 1)), np.cumsum(columns, axis=1)], axis=1)
    s0, s1, s2, s3, s4, t0, t1, t2, vv = running[:, last + 1] - running[:, first]
    new = np.concatenate([[True], np.diff(u) > 0, [True]])
    distinct = np.cumsum(new)
    enough = distinct[last] - distinct[first] + 1 >= max(min_points, 3)
    enough &= u[last] - u[first] >= min_decades * np.log(10)
    enough &= new[first] & new[last + 1]  # points of one x stay together
    if not enough.any():
        raise FitError(
            f"{k} points over {np.ptp(u) / np.log(10):.2f} decades",
            expected=f"{min_points} points over {min_decades} decades",
            fix="measure further, or name the window yourself",
        )
    pick = np.flatnonzero(enough)
    M = np.moveaxis(np.array([[s0, s1, s2], [s1, s2, s3], [s2, s3, s4]])[:, :, pick], -1, 0)
    T = np.stack([t0, t1, t2], axis=-1)[pick]
    inverse = np.linalg.pinv(M)
    b = (inverse @ T[..., None])[..., 0]
    rss = np.maximum(vv[pick] - (b * T).sum(1), 0.0)
    dof = s0[pick] - 3
    error = np.sqrt(np.where(dof > 0, rss / np.maximum(dof, 1), 0.0) * inverse[:, 2, 2])
    length = (u[last] - u[first])[pick]
    middle = 0.5 * (u[last] + u[first])[pick] - u.mean()
    slope = np.abs(b[:, 1] + 2 * b[:, 2] * middle)
    bend = 2 * np.abs(b[:, 2]) * length / np.maximum(slope, 1e-12)
    straight = (bend <= tolerance) | ((np.abs(b[:, 2]) <= 2 * error) & (dof > 1))
    if not straight.any():
        raise FitError(
            f"every stretch of {min_points} points over {min_decades} decades bends by more than {tolerance:.0%}",
            expected="a stretch that is straight in log x, log y",
            fix="the curve is not a power law there; raise the tolerance or fit an offset",
        )
    good = np.flatnonzero(straight)
    best = good[np.lexsort((bend[good], -length[good].round(9)))[0]]
    i, j = first[pick[best]], last[pick[best]]
    rule = (
        f"the longest stretch (at least {min_points} points, {min_decades:g} decades) whose local exponent changes by "
        f"less than {tolerance:.0%} end to end, or by less than two standard errors"
    )
    return Window(float(xs[i]), float(xs[j]), int(s0[pick[best]]), rule, float(bend[best]))


def fit_window(
    x: ArrayLike,
    y: ArrayLike,
    lo: float | int | None = None,
    hi: float | int | None = None,
    *,
    law: PowerLawSum | None = None,
    per_decade: int | None = PER_DECADE,
    tolerance: float = 0.1,
    sigma: ArrayLike | None = None,
    loss: Loss = "log",
    delta: float = 1e-3,
) -> WindowFit:
    """Fit a law on a stretch of a curve, given or chosen, with the sensitivity to it.

    Parameters
    ----------
    x
        Where the curve was measured, shape [n], positive; in any order.
    y
        The curve there, shape [n], positive.
    lo
        Lower end of the stretch, in the unit of x. Both ends left out: `choose_window`.
    hi
        Upper end of the stretch, in the unit of x.
    law
        A law of one x without groups; ``A x^(−α)`` when left out.
    per_decade
        A curve of more than 100 points is thinned to this many per decade first, so that its many late points do
        not outweigh its few early ones; None keeps all.
    tolerance
        See `choose_window`; without effect on a stretch that is given.
    sigma
        Standard error of each y, shape [n]; see `llmprobe.fitting.estimator.fit`.
    loss
        See `llmprobe.fitting.estimator.fit`.
    delta
        See `llmprobe.fitting.estimator.fit`.

    Returns
    -------
    The fit, the stretch and the rule that chose it, and the exponent on the stretches near it.

    Raises
    ------
    FitError
        One end without the other, no point inside, or what `fit` and `choose_window` refuse.

    Examples
    --------
    >>> import numpy as np
    >>> t = np.geomspace(1, 1e4, 60)
    >>> curve = 1 / (1 + t) ** 0.5
    >>> round(fit_window(t, curve, 100, 10_000).exponent, 2)
    0.5
    """
    law = law or PowerLawSum(("x",))
    if len(law.x) != 1 or law.grouped:
        raise FitError(f"a window of {law.formula}", expected="a law of one x without groups")
    if (lo is None) != (hi is None):
        raise FitError("one end of a window", expected="both ends, or none to have it chosen")
    xs, ys = _sorted(x, y)
    errors = None if sigma is None else numbers("sigma", sigma)[np.argsort(numbers("x", x), kind="stable")]
    thinned = ""
    if per_decade is not None and len(xs) > FEW:
        thinned = f"; of {len(xs)} points, {per_decade} per decade are used"
        few = _thinned(np.log(xs), per_decade)
        xs, ys, errors = xs[few], ys[few], None if errors is None else errors[few]
    if lo is None or hi is None:
        window = choose_window(xs, ys, tolerance=tolerance)
        window = replace(window, rule=window.rule + thinned)
    else:
        lo, hi = float(lo), float(hi)
        window = Window(lo, hi, int(_inside(xs, lo, hi).sum()), "given" + thinned)

    def within(low: float, high: float) -> FitResult:
        keep = _inside(xs, low, high)
        weights = None if errors is None else errors[keep]
        return fit(law, xs[keep], ys[keep], sigma=weights, loss=loss, delta=delta)

    name = f"alpha_{law.x[0]}"
    rows = []
    for low, high in _near(np.log(xs), window.lo, window.hi):
        try:
            other = within(low, high)
        except FitError:
            continue  # too few points are left for this law: the table shows the windows that remain
        rows.append((low, high, other.n_points, other.params[name], other.stderr[name]))
    return WindowFit(within(window.lo, window.hi), window, tuple(rows))


def thin(x: ArrayLike, per_decade: int = PER_DECADE) -> np.ndarray:
    """Indices that keep about `per_decade` evenly spaced points per decade of positive x, sorted by x."""
    column = numbers("x", x)
    order = np.argsort(column, kind="stable")
    return order[_thinned(np.log(column[order]), per_decade)]


def _thinned(u: np.ndarray, per_decade: int) -> np.ndarray:
    """Of sorted log x, the points nearest to an even grid."""
    cells = max(1, int(np.ceil(np.ptp(u) / np.log(10) * per_decade)))
    grid = np.linspace(u[0], u[-1], cells + 1)
    after = np.clip(np.searchsorted(u, grid), 1, len(u) - 1) if len(u) > 1 else np.zeros(1, dtype=int)
    nearest = np.where(grid - u[after - 1] < u[after] - grid, after - 1, after)
    return np.unique(nearest)


def _near(u: np.ndarray, lo: float, hi: float) -> list[tuple[float, float]]:
    """Windows with either end, or both, moved in and out by a sixth of the length and by one point at least."""
    xs = np.unique(u)
    a, b = np.log(lo), np.log(hi)
    inside = xs[(xs >= a - 1e-9) & (xs <= b + 1e-9)]
    if len(inside) < 3:
        return []
    move = SHIFT * (b - a)
    up = max(float(inside[1]), a + move)
    down = min(float(inside[-2]), b - move)
    below, above = xs[xs < inside[0]], xs[xs > inside[-1]]
    out_low = min(float(below[-1]), a - move) if len(below) else a
    out_high = max(float(above[0]), b + move) if len(above) else b
    out_low, out_high = max(out_low, float(xs[0])), min(out_high, float(xs[-1]))
    tried = [(up, b), (a, down), (up, down), (out_low, b), (a, out_high), (out_low, out_high)]
    unique = dict.fromkeys((p, q) for p, q in tried if (p, q) != (a, b) and p < q)
    return [(float(np.exp(p)), float(np.exp(q))) for p, q in unique]


def _inside(xs: np.ndarray, lo: float, hi: float) -> np.ndarray:
    return (xs >= lo * (1 - 1e-9)) & (xs <= hi * (1 + 1e-9))


def _sorted(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Positive x and y, sorted by x."""
    columns = as_columns(PowerLawSum(("x",)), x)
    values = numbers("y", y)
    if values.shape != columns["x"].shape:
        raise FitError(f"{len(columns['x'])} x and {len(values)} y", expected="one y for each x")
    if not (np.isfinite(values) & (values > 0)).all():
        raise FitError("a y that is not a positive number", expected="y > 0, as log y is taken")
    order = np.argsort(columns["x"], kind="stable")
    return columns["x"][order], values[order]
