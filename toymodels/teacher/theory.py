"""Closed forms of teacher–student training: what the student without superposition does, exactly, and what is expected.

Features i = 1..N occur with probability p_i ∝ i^(−a), one at a time, and the teacher scales feature i by i^(−b).
A linear student with one dimension per feature learns each feature by itself, so that with λ_i = p_i ⟨v²⟩

    L(t) = ½ Σ_i λ_i i^(−2b) exp(−2 λ_i t),    t = rate · steps,

a power law of exponent (a + 2b − 1)/a while the features being learned are neither the first nor the last few.

Source: arXiv:2602.01045; the record law is worked out here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.errors import FitError

FIRST = 4.0  # features learned before the sum over features may be taken for an integral
POLLUTION = 0.02  # share of the loss that the features beyond N would carry at the window's end


@dataclass(frozen=True)
class Task:
    """What is to be learned: N features, one at a time.

    Attributes
    ----------
    n
        Features N.
    a
        p_i ∝ i^(−a), Σ p_i = 1.
    b
        The teacher is diag(i^(−b)).
    mean_square
        ⟨v²⟩ of the amplitude: 1/3 for v ~ U(0, 1), 1 for v = 1.
    density
        1: one feature at a time. Otherwise features are independent, active with min(1, density · p_i).
    """

    n: int
    a: float
    b: float
    mean_square: float = 1 / 3
    density: float = 1.0

    @property
    def probabilities(self) -> np.ndarray:
        """Of each feature being active, shape [N]."""
        p = np.arange(1, self.n + 1, dtype=float) ** -self.a
        return np.minimum(1.0, self.density * p / p.sum())

    @property
    def weights(self) -> np.ndarray:
        """λ_i = p_i ⟨v²⟩, shape [N]."""
        return self.probabilities * self.mean_square

    @property
    def teacher(self) -> np.ndarray:
        """Diagonal of the teacher, shape [N]."""
        return np.arange(1, self.n + 1, dtype=float) ** -self.b

    @property
    def zero_loss(self) -> float:
        """Loss of the student that always answers 0: what is above it has learned less than nothing."""
        return float(0.5 * np.sum(self.weights * self.teacher**2))


def unsuperposed_loss(task: Task, t: ArrayLike | float) -> np.ndarray:
    """L(t) of gradient flow from zero without superposition (K = N, W = 1, linear); shape as t."""
    times = np.asarray(t, dtype=float)
    weights = task.weights
    return np.asarray(0.5 * np.exp(-2 * times[..., None] * weights) @ (weights * task.teacher**2))


def unsuperposed_exponent(a: float, b: float) -> float:
    """(a + 2b − 1)/a; NaN where that is not positive, as the sum over features then has no limit."""
    alpha = (a + 2 * b - 1) / a
    return alpha if alpha > 0 else math.nan


def unsuperposed_time(task: Task, loss: float) -> float:
    """When the loss without superposition has come down to `loss`; NaN where it starts below.

    Bisection on log t: the curve falls everywhere.
    """
    if not 0 < loss < task.zero_loss:
        return math.nan
    low, high = -30.0, 60.0
    for _ in range(100):
        middle = 0.5 * (low + high)
        above = unsuperposed_loss(task, math.exp(middle)) > loss
        low, high = (middle, high) if above else (low, middle)
    return math.exp(0.5 * (low + high))


def finite_window(task: Task, *, first: float = FIRST, pollution: float = POLLUTION) -> tuple[float, float]:
    """Where the law of infinitely many features holds with N of them.

    At time t the features up to i* = (2 λ_1 t)^(1/a) are learned. The window opens at i* = `first` and closes when the
    features that are not there, i > N, would carry the share `pollution` of the loss.

    Returns
    -------
    lo, hi
        In the unit of t.

    Raises
    ------
    FitError
        The window is empty: N is too small for this a and b, most of all where a + 2b − 1 is small.
    """
    decay = task.a + 2 * task.b - 1
    rate = 2 * float(task.weights[0])
    # loss of i > i*, as integrals: (i*^(−decay) − N^(−decay)) and N^(−decay)
    last = task.n * pollution ** (1 / decay) if decay > 0 else 0.0
    if last < 1.5 * first:
        raise FitError(
            f"N = {task.n} features at a = {task.a:g}, b = {task.b:g}: the missing ones carry more than "
            f"{pollution:.0%} of the loss from feature {max(last, 0):.2g} on",
            expected=f"a window from feature {first:g} on, for the exponent (a + 2b − 1)/a to show",
            fix="raise N, a or b",
        )
    return first**task.a / rate, last**task.a / rate


def local_exponent(t: ArrayLike, loss: ArrayLike) -> np.ndarray:
    """−d ln L / d ln t at each point, by central differences; shape [n]."""
    return -np.gradient(np.log(np.asarray(loss, dtype=float)), np.log(np.asarray(t, dtype=float)))


def linear_floor(n: int, k: int) -> float:
    """1 − K/N: share of ‖1 − Wᵀ B W‖² that no linear student of rank K can remove (all features alike)."""
    return max(0.0, 1.0 - k / n)


# exponent of the interference loss by the tail of the overlaps, given a: what the record's excess adds to 1
RECORD_LAWS = {
    "exponential": lambda a: 1.0,
    "gaussian": lambda a: 1.0,
    "uniform": lambda a: (a + 2) / a,
}


def record_exponent(overlaps: str, a: float) -> float:
    """Exponent of the interference loss while biases fall to the records of random overlaps.

    Features up to i* ∝ t^(1/a) are frequent enough to have pushed the bias below their overlaps; feature i* + 1
    exceeds that record with probability 1/(i* + 1), whatever the distribution. The loss Σ_{i > i*} p_i / i* ∝ i*^(−a)
    falls as 1/t, times the squared excess over the record: constant for exponential tails, a logarithm for Gaussian
    ones (the exponent is above 1 at any finite time), i*^(−2) for uniform ones.
    """
    return float(RECORD_LAWS[overlaps](a))
