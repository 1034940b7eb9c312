"""Closed forms of softmax training under gradient flow: where the exponent 1/3 comes from, and where it ends.

**One peaked target** (no inputs, all V logits free, from 0): the gap g of the target's logit to the others obeys
g' = V/(V − 1) (1 − p), so that (e^g − 1)/(V − 1) + g = V τ/(V − 1). The loss falls as 1/τ: peaked targets alone are not
the one-third law.

**Many inputs, a boundary between them.** A student aligned with the teacher, W = β W_teacher, has logit gaps β δ where
the teacher has δ/T. Inputs near a boundary decide: with ρ the density of the teacher's top-two gap δ at 0,

    L(β) = ρ ∫_0^∞ KL(σ(δ/T) ‖ σ(βδ)) dδ = c (1 − βT)²/β,      c = π² ρ/12
    dβ/dτ = −L′(β)/N = k (1/β² − T²),                            k = c/N,  N = ‖∂W/∂β‖²
    τ = [artanh(βT) − βT]/(k T³)                                 → β³ = 3 k τ for T → 0

so L = c (3 k τ)^(−1/3) for βT ≪ 1, exponential in τ once βT is near 1, and the local exponent in between is
(1 + βT)² [artanh(βT) − βT]/(βT)³. Where the density of gaps goes as δ^q, the same argument gives (1 + q)/(3 + q):
1/3 for a boundary, 1 for no inputs near it.

Proved: for V = 2 and isotropic inputs gradient flow from 0 stays on W = β W_teacher (any direction across it is cut off
by symmetry), and what is left out is of order 1/β² and T². Not proved: that the flow is aligned for V > 2, where gaps
to a third token add terms of order 1/β; `aligned_curve` leaves only the former out.

Source: worked out here; the exponent 1/3 is arXiv:2602.03685's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import cumulative_trapezoid
from scipy.special import lambertw

SERIES = 0.05  # b below which artanh(b) − b loses digits and is summed as a series


def single_target_loss(vocabulary: int, tau: ArrayLike | float | int) -> np.ndarray:
    """Loss in nats of one peaked target among V free logits at τ, from 0; shape as `tau`."""
    others = vocabulary - 1
    # e^g/(V − 1) + g = c, so g = c − w with w e^w = e^c/(V − 1)
    c = np.asarray(vocabulary * np.asarray(tau, dtype=float) / others + 1 / others)
    w = np.array([_lambert(one - math.log(others)) for one in c.ravel()]).reshape(c.shape)
    return np.asarray(np.log1p(others * np.exp(w - c)))


def margin_exponent(q: float) -> float:
    """(1 + q)/(3 + q): exponent in τ where the density of gaps between the best two tokens goes as δ^q."""
    return (1 + q) / (3 + q)


@dataclass(frozen=True)
class Boundary:
    """What the one-third law needs to know of a task.

    Attributes
    ----------
    density
        ρ of the top-two gap of the teacher's logits (before division by T) at 0.
    inertia
        N = ‖∂W/∂β‖², the squared norm of the teacher less its mean row.
    """

    density: float
    inertia: float

    @property
    def c(self) -> float:
        """π² ρ/12."""
        return math.pi**2 / 12 * self.density

    def loss(self, beta: ArrayLike | float | int, temperature: float) -> np.ndarray:
        """L = c (1 − βT)²/β, shape as `beta`."""
        b = np.asarray(beta, dtype=float)
        return np.asarray(self.c * (1 - b * temperature) ** 2 / b)

    def tau(self, beta: ArrayLike | float | int, temperature: float) -> np.ndarray:
        """τ at which the student has come to β < 1/T, shape as `beta`."""
        b = np.asarray(beta, dtype=float)
        return np.asarray(_g(b * temperature) * b**3 * self.inertia / self.c)

    def local_exponent(self, beta: ArrayLike | float | int, temperature: float) -> np.ndarray:
        """−d ln L/d ln τ at β, shape as `beta`: 1/3 (1 + 2 βT + …)."""
        b = np.asarray(np.asarray(beta, dtype=float) * temperature)
        return np.asarray((1 + b) ** 2 * _g(b))

    def curve(self, tau: ArrayLike | float | int, temperature: float) -> np.ndarray:
        """L at τ, shape as `tau`."""
        tau = np.asarray(tau, dtype=float)
        # from far below to a hair under the teacher's own 1/T, where the loss is numerically 0
        share = np.concatenate([np.geomspace(1e-9, 0.5, 4000), 1 - np.geomspace(0.5, 1e-15, 4000)[1:]])
        beta = share / temperature
        return np.asarray(
            np.exp(np.interp(np.log(tau), np.log(self.tau(beta, temperature)), np.log(self.loss(beta, temperature))))
        )


def two_token_boundary(teacher: np.ndarray) -> Boundary:
    """Exact for V = 2: the gap is d·x, x uniform on the sphere of radius √m, d the difference of the rows [2, m]."""
    d, m = teacher[0] - teacher[1], teacher.shape[1]
    length = float(np.linalg.norm(d))
    log_density = math.lgamma(m / 2) - math.lgamma((m - 1) / 2) - 0.5 * math.log(math.pi * m)  # of one coordinate at 0
    return Boundary(2 * math.exp(log_density) / length, length**2 / 2)


def aligned_curve(
    teacher: np.ndarray, x: np.ndarray, tau: ArrayLike | float | int, temperature: float, points: int = 80
) -> np.ndarray:
    """L(τ) of a student that stays aligned with its teacher, by quadrature over β and inputs; shape as `tau`.

    NaN once β is within 5 % of the teacher's 1/T, where the loss is as good as 0.

    Parameters
    ----------
    teacher
        W_teacher before division by T, shape [V, m].
    x
        Inputs, shape [n, m].
    points
        Values of β between 0 and 1/T.
    """
    z = x @ (teacher - teacher.mean(axis=0)).T
    inertia = float(np.sum((teacher - teacher.mean(axis=0)) ** 2))
    target = _log_softmax(z / temperature)
    p = np.exp(target)
    beta = np.geomspace(1e-2, 0.95 / temperature, points)
    loss, slope = np.empty(points), np.empty(points)
    for k, b in enumerate(beta):
        q = _log_softmax(b * z)
        loss[k] = (p * (target - q)).sum(axis=1).mean()
        slope[k] = ((p - np.exp(q)) * z).sum(axis=1).mean()
    # dτ = N dβ/−L′ over ln β; below the first β the slope is the first one's
    times = inertia * cumulative_trapezoid(beta / slope, np.log(beta), initial=0) + inertia * beta[0] / slope[0]
    return np.asarray(
        np.exp(np.interp(np.log(np.asarray(tau, dtype=float)), np.log(times), np.log(loss), right=np.nan))
    )


def top_two_density(teacher: np.ndarray, x: np.ndarray, share: float = 0.02) -> float:
    """ρ: density at 0 of the gap between the two largest logits, from the `share` of inputs whose gap is smallest."""
    top = np.partition(x @ teacher.T, -2, axis=1)[:, -2:]
    gap = np.abs(top[:, 1] - top[:, 0])
    return share / float(np.quantile(gap, share))


def _g(share: ArrayLike | float | int) -> np.ndarray:
    """(artanh b − b)/b³, 1/3 at 0."""
    b = np.asarray(share, dtype=float)
    small = b < SERIES
    safe = np.where(small, 0.5, b)
    series = sum(b ** (2 * k) / (2 * k + 3) for k in range(8))
    return np.asarray(np.where(small, series, (np.arctanh(safe) - safe) / safe**3))


def _lambert(log_argument: float) -> float:
    """W(e^y), by Newton's method on w + ln w = y where e^y would overflow."""
    if log_argument < 300:
        return float(lambertw(math.exp(log_argument)).real)
    w = log_argument - math.log(log_argument)
    for _ in range(20):
        w -= (w + math.log(w) - log_argument) * w / (w + 1)
    return w


def _log_softmax(z: np.ndarray) -> np.ndarray:
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))
