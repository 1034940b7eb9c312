"""AdamW whose decay may be negative: weight decay for γ ≥ 0, growth towards unit rows for γ < 0.

The decay is decoupled, acts on W only, and comes before the Adam step with the scheduled rate η:

    γ ≥ 0:  W_i ← W_i − ηγ W_i
    γ < 0:  W_i ← W_i + ηγ (1 − 1/|W_i|) W_i        (rows shorter than 1 grow, longer ones shrink)

Source: arXiv:2505.10465, section 3; AdamW as in Loshchilov & Hutter 2019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """Moments and update of P = [W | b], shape [R, n, m+1], in place.

    Parameters
    ----------
    P
        The parameters; kept and changed.
    weight_decay
        γ of each of the R replicas.

    Attributes
    ----------
    mean, square
        First and second moment, shape of P.
    steps
        Updates done.
    """

    def __init__(self, P: Float[Tensor, "R n m1"], weight_decay: Sequence[float]) -> None:
        self.P, self.W = P, P[..., :-1]
        self.mean, self.square = torch.zeros_like(P), torch.zeros_like(P)
        self.steps = 0
        self._root = torch.empty_like(P)
        decay = torch.tensor(list(weight_decay), dtype=torch.float64).to(P)
        self._strength = decay.abs()[:, None]
        self._grows = (decay < 0).to(P)[:, None]
        self._any_growth, self._any_decay = min(weight_decay) < 0, any(weight_decay)

    def decay(self, rate: float) -> None:
        """The decoupled part: shrink rows, or move their norms towards 1. A zero row has no direction and stays."""
        if not self._any_decay:
            return
        if self._any_growth:
            norm = torch.linalg.vector_norm(self.W, dim=-1).clamp_min_(torch.finfo(self.P.dtype).tiny)
            factor = 1 - rate * self._strength * (1 - self._grows / norm)
        else:
            factor = 1 - rate * self._strength
        self.W.mul_(factor[..., None])

    def step(self, grad: Float[Tensor, "R n m1"], rate: float, bias_rate: float) -> None:
        """One update with the gradient of the mean loss; `rate` for W, `bias_rate` for b."""
        self.decay(rate)
        self.steps += 1
        self.mean.lerp_(grad, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(grad, grad, value=1 - BETA2)
        # mean̂ / (√squarê + ε) with both bias corrections moved into scalars: one pass less over P
        correction = math.sqrt(1 - BETA2**self.steps)
        scale = correction / (1 - BETA1**self.steps)
        root = torch.sqrt(self.square, out=self._root).add_(EPSILON * correction)
        if rate == bias_rate:
            self.P.addcdiv_(self.mean, root, value=-rate * scale)
        else:
            self.W.addcdiv_(self.mean[..., :-1], root[..., :-1], value=-rate * scale)
            self.P[..., -1].addcdiv_(self.mean[..., -1], root[..., -1], value=-bias_rate * scale)
