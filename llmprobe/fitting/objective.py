"""What a fit minimizes, with its exact gradient and Hessian, for one parameter vector or thousands at once.

Every term of a law is the exponential of something linear in θ = (log amplitudes, exponents): term t at point i is
``exp(D[t,i]·θ)``, an offset being a term with an amplitude alone. So value, gradient and Hessian are a few matrix
products whatever the law, and resamples, profiles and left-out points share one pass. x and y are scaled first
(mean of log x to 0, of |y| to 1, each exponent's column to unit size), which makes the answer independent of units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from llmprobe.fitting.law import PowerLawSum

Loss = Literal["log", "linear", "huber"]
LOG_ZERO = -150.0
"""Log of an amplitude that is zero: −∞ would make 0·∞, and the fourth power of exp(±150) is still a number."""


@dataclass(frozen=True)
class Problem:
    """A law laid over data, in scaled units.

    Attributes
    ----------
    D
        Derivative of each term's logarithm by each parameter, shape [terms, n, p].
    y
        Scaled y, shape [n].
    weights
        Weight of each point's loss, shape [n], mean 1.
    loss, delta
        ``linear``: ½(ŷ − y)²; ``log``: ½(log ŷ − log y)²; ``huber``: Huber's function of log ŷ − log y, quadratic
        below delta. Always summed over points.
    names
        Of the p parameters: amplitudes, exponents, offsets.
    start
        θ where parameters are held, NaN where they are free, shape [p].
    y_unit
        What y was divided by.
    shift
        Mean log x that each amplitude's x was divided by, shape [p]; 0 for the rest.
    stretch
        What each exponent was multiplied by, shape [p]; 1 for the rest.
    partner
        For each amplitude the index of the exponent its scaling involves, −1 where there is none, shape [p].
    """

    D: Float[np.ndarray, "terms n p"]
    y: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]
    loss: Loss
    delta: float
    names: tuple[str, ...]
    start: Float[np.ndarray, " p"]
    y_unit: float
    shift: Float[np.ndarray, " p"]
    stretch: Float[np.ndarray, " p"]
    partner: Int[np.ndarray, " p"]

    @cached_property
    def is_amplitude(self) -> np.ndarray:
        """Which parameters are log amplitudes (offsets included), shape [p]."""
        return np.array([not name.startswith("alpha_") for name in self.names])

    @cached_property
    def products(self) -> np.ndarray:
        """D D^T of each term, shape [terms, n, p·p]."""
        terms, n, p = self.D.shape
        return np.einsum("tni,tnj->tnij", self.D, self.D).reshape(terms, n, p * p)

    def logs(self, theta: np.ndarray) -> np.ndarray:
        """Logarithm of each term, shape [..., terms, n]."""
        terms, n, p = self.D.shape
        flat = theta @ self.D.reshape(terms * n, p).T
        return np.clip(flat, LOG_ZERO, -LOG_ZERO).reshape(*theta.shape[:-1], terms, n)

    def predict(self, theta: np.ndarray) -> np.ndarray:
        """Scaled ŷ, shape [..., n]."""
        return np.exp(self.logs(theta)).sum(-2)

    def residuals(self, theta: np.ndarray, y: np.ndarray | None = None) -> np.ndarray:
        """ŷ − y for the linear loss, log ŷ − log y for the others, shape [..., n]."""
        y = self.y if y is None else y
        fitted = self.predict(theta)
        return fitted - y if self.loss == "linear" else np.log(fitted) - np.log(y)

    def rho(self, r: np.ndarray) -> np.ndarray:
        """The loss of a residual."""
        if self.loss != "huber":
            return 0.5 * r**2
        size = np.abs(r)
        return np.where(size <= self.delta, 0.5 * r**2, self.delta * (size - 0.5 * self.delta))

    def psi(self, r: np.ndarray) -> np.ndarray:
        """Its derivative."""
        return np.clip(r, -self.delta, self.delta) if self.loss == "huber" else r

    def psi_slope(self, r: np.ndarray) -> np.ndarray:
        """Its second derivative."""
        return (np.abs(r) <= self.delta).astype(float) if self.loss == "huber" else np.ones_like(r)

    def value(
        self, theta: np.ndarray, weights: np.ndarray | None = None, y: np.ndarray | None = None
    ) -> np.ndarray | np.floating:
        """Summed loss for each θ: theta [..., p], weights and y [n] or [..., n]; shape [...]."""
        weights = self.weights if weights is None else weights
        return (weights * self.rho(self.residuals(theta, y))).sum(-1)

    def derivatives(
        self, theta: np.ndarray, weights: np.ndarray | None = None, y: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Summed loss [B], gradient [B, p] and Hessian [B, p, p] at theta [B, p]; weights and y [n] or [B, n]."""
        weights = self.weights if weights is None else weights
        y = self.y if y is None else y
        terms, n, p = self.D.shape
        c = np.exp(self.logs(theta))
        fitted = c.sum(-2)
        if self.loss == "linear":
            r = fitted - y
        else:
            r = np.log(fitted) - np.log(y)
            c /= fitted[..., None, :]
        psi = weights * self.psi(r)
        J = sum(c[:, t, :, None] * self.D[t] for t in range(terms))
        # log ŷ bends by −∇∇ᵀ besides its terms' own curvature, ŷ itself does not
        bend = weights * self.psi_slope(r) - (0.0 if self.loss == "linear" else psi)
        gradient = (psi[:, None, :] @ J)[:, 0, :]
        hessian = np.swapaxes(J * bend[..., None], 1, 2) @ J
        own = (psi[:, None, :] * c).reshape(len(theta), terms * n) @ self.products.reshape(terms * n, p * p)
        return (weights * self.rho(r)).sum(-1), gradient, hessian + own.reshape(len(theta), p, p)

    def to_params(self, theta: np.ndarray) -> np.ndarray:
        """Parameters in the user's units, shape [..., p]."""
        exponent = np.where(self.is_amplitude, 0.0, theta / self.stretch)
        moved = self.shift * np.where(self.partner >= 0, exponent[..., self.partner], 0.0)
        size = np.exp(np.minimum(theta + moved, 600.0)) * self.y_unit
        return np.where(self.is_amplitude, np.where(theta <= LOG_ZERO, 0.0, size), exponent)

    def jacobian_of_params(self, theta: np.ndarray) -> np.ndarray:
        """d(user's parameters)/d(scaled amplitudes, scaled exponents), shape [p, p]; amplitudes not as logarithms."""
        params = self.to_params(theta)
        scale = np.where(self.is_amplitude, np.exp(np.where(self.is_amplitude, theta, 0.0)), 1.0)
        T = np.diag(1 / self.stretch)
        for j in np.flatnonzero(self.is_amplitude):
            k = self.partner[j]
            T[j, j] = params[j] / scale[j] if params[j] > 0 else self.y_unit
            if k >= 0:
                if params[j] == 0:
                    T[j, j] *= np.exp(self.shift[j] * theta[k] / self.stretch[k])
                T[j, k] = params[j] * self.shift[j] / self.stretch[k]
        return T


def problem_of(
    law: PowerLawSum,
    x: Mapping[str, np.ndarray],
    y: np.ndarray,
    groups: tuple[str, ...],
    membership: np.ndarray | None,
    weights: np.ndarray,
    loss: Loss,
    delta: float,
) -> Problem:
    """The `Problem` of a law over columns that were checked before.

    Parameters
    ----------
    membership
        Index into `groups` of each point, shape [n], or None.
    """
    names = law.names(groups)
    index = {name: i for i, name in enumerate(names)}
    n, p = len(y), len(names)
    shift, stretch, partner = np.zeros(p), np.ones(p), np.full(p, -1)
    held = np.array([law.fixed.get(name, np.nan) for name in names])

    def columns(name: str, share: str) -> np.ndarray:
        if share == "shared" or membership is None:
            return np.full(n, index[name])
        return np.array([index[f"{name}[{g}]"] for g in groups])[membership]

    y_unit = float(np.mean(np.abs(y))) or 1.0
    rows = np.arange(n)
    D = np.zeros((len(law.x) + (law.offset != "none"), n, p))
    for t, name in enumerate(law.x):
        a, e = columns(f"A_{name}", law.amplitudes), columns(f"alpha_{name}", law.exponents)
        logs = np.log(x[name])
        # an amplitude that is held, or shared by several exponents, has a meaning at x = 1 that must not move
        if np.isnan(held[a]).all() and not (law.amplitudes == "shared" and law.exponents == "group"):
            shift[a], partner[a] = logs.mean(), e
            logs = logs - logs.mean()
        stretch[e] = max(float(np.sqrt(np.mean(logs**2))), 1e-12)
        D[t, rows, a] = 1.0
        D[t, rows, e] = -logs / stretch[e]
    if law.offset != "none":
        D[-1, rows, columns("E", law.offset)] = 1.0
    amplitude = np.array([not name.startswith("alpha_") for name in names])
    with np.errstate(divide="ignore"):
        logs_held = np.maximum(np.log(np.where(amplitude, held, 1.0) / y_unit), LOG_ZERO)
    start = np.where(amplitude, logs_held, held * stretch)
    return Problem(D, y / y_unit, weights, loss, delta, names, start, y_unit, shift, stretch, partner)
