"""A law fitted on a stretch of a curve, and on the stretches near it.

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
from llmprobe.fitting.law import PowerLawSum, numbers
from llmprobe.fitting.objective import Loss
from llmprobe.fitting.result import FitResult
from llmprobe.fitting.stretch import PER_DECADE, Stretch, choose_window, inside, positive_curve, thinned

FEW = 100
"""A curve of up to this many points is used as it stands."""
SHIFT = 1 / 6


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
    window: Stretch
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
    xs, ys = positive_curve(x, y)
    errors = None if sigma is None else numbers("sigma", sigma)[np.argsort(numbers("x", x), kind="stable")]
    note = ""
    if per_decade is not None and len(xs) > FEW:
        note = f"; of {len(xs)} points, {per_decade} per decade are used"
        few = thinned(np.log(xs), per_decade)
        xs, ys, errors = xs[few], ys[few], None if errors is None else errors[few]
    if lo is None or hi is None:
        window = choose_window(xs, ys, tolerance=tolerance)
        window = replace(window, rule=window.rule + note)
    else:
        lo, hi = float(lo), float(hi)
        window = Stretch(lo, hi, int(inside(xs, lo, hi).sum()), "given" + note)

    def within(low: float, high: float) -> FitResult:
        keep = inside(xs, low, high)
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
