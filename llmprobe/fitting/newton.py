"""Thousands of refits of one law at once: resamples, left-out points, points of a profile.

A damped Newton method (Levenberg 1944, Marquardt 1963, with the exact Hessian) runs over all rows together; rows
that have arrived leave the batch. Each row ends at the optimum of its own weights and y, not at a one-step estimate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from llmprobe.fitting.objective import Problem

ROUNDS = 400
CHUNK = 256
"""Rows at a time: a chunk's Jacobians stay in the processor's cache."""
TOLERANCE = 1e-9
SMALLEST = 1e-9
"""Share of the points' total weight below which a curvature counts as none."""
LOWEST = -40.0
"""Log amplitudes stop here: the term is then 1e-17 of y."""


@dataclass(frozen=True, eq=False)
class Refits:
    """θ at each row's optimum [B, p], its summed loss [B] and whether it was reached [B]."""

    theta: np.ndarray
    value: np.ndarray
    converged: np.ndarray


def refit(
    problem: Problem,
    theta: np.ndarray,
    free: np.ndarray,
    *,
    weights: np.ndarray | None = None,
    y: np.ndarray | None = None,
    rounds: int = ROUNDS,
) -> Refits:
    """Minimize each row from where it starts.

    Parameters
    ----------
    theta
        Start of each row, shape [B, p]; parameters that are not free stay as they are.
    free
        Which parameters move, bool, shape [p].
    weights, y
        Of each row, shape [B, n], or of the problem when left out; y in the problem's scaled units.
    rounds
        Steps at most.
    """
    parts = []
    for i in range(0, len(theta), CHUNK):
        rows = slice(i, i + CHUNK)
        own_weights = None if weights is None else weights[rows]
        own_y = None if y is None else y[rows]
        parts.append(_newton(problem, theta[rows], free, own_weights, own_y, rounds))
    joined = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Refits(*joined)


def _newton(
    problem: Problem, start: np.ndarray, free: np.ndarray, weights: np.ndarray | None, y: np.ndarray | None, rounds: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    B = len(start)
    theta, moving = start.copy(), np.flatnonzero(free)  # [B, p] and [q]: B rows, p parameters of which q move
    W = np.broadcast_to(problem.weights if weights is None else weights, (B, len(problem.y)))  # [B, n]
    Y = np.broadcast_to(problem.y if y is None else y, (B, len(problem.y)))  # [B, n]
    value, gradient, hessian = problem.derivatives(theta, W, Y)  # [B], [B, p], [B, p, p]
    damping = np.full(B, 1e-3)  # [B]
    done, idle = np.zeros(B, dtype=bool), np.zeros(B, dtype=int)
    eye = np.eye(len(moving))
    if not len(moving):
        return theta, value, np.ones(B, dtype=bool)
    stiffness = max(float(problem.weights.sum()), 1e-300)
    low = np.where(problem.is_amplitude[moving], LOWEST, -np.inf)  # [q]
    for _ in range(rounds):
        a = np.flatnonzero(~done)  # [b]: the rows still on their way
        if not len(a):
            break
        g, H = gradient[a][:, moving], hessian[a][:, moving[:, None], moving]  # [b, q], [b, q, q]
        size = np.maximum(np.abs(H[:, range(len(moving)), range(len(moving))]).max(1), SMALLEST * stiffness)  # [b]
        step = -np.linalg.solve(H + (damping[a] * size)[:, None, None] * eye, g[..., None])[..., 0]  # [b, q]
        step *= np.minimum(1.0, 3.0 / np.maximum(np.abs(step).max(1), 1e-300))[:, None]
        trial = theta[a]  # [b, p]
        trial[:, moving] = np.maximum(trial[:, moving] + step, np.minimum(low, trial[:, moving]))
        v, dg, dh = problem.derivatives(trial, W[a], Y[a])  # [b], [b, p], [b, p, p]
        better = v <= value[a]  # [b]
        gain = value[a] - v
        won = a[better]  # indices among the B rows
        theta[won], value[won], gradient[won], hessian[won] = trial[better], v[better], dg[better], dh[better]
        damping[won] = np.maximum(damping[won] / 10, 1e-12)
        damping[a[~better]] = np.minimum(np.maximum(damping[a[~better]], 1e-10) * 8, 1e12)
        flat = np.abs(gradient[a][:, moving]).max(1) <= TOLERANCE * np.sqrt(value[a] * size)  # [b]
        idle[a] = np.where(np.abs(gain) <= 1e-14 * value[a], idle[a] + 1, 0)
        done[a] = flat | (idle[a] > 2) | (damping[a] >= 1e12)
    rest = np.abs(gradient[:, moving]).max(1)  # [B]
    size = np.maximum(np.abs(hessian[:, moving, moving]).max(1), SMALLEST * stiffness)
    return theta, value, done & (rest <= 1e-6 * np.sqrt(value * size))
