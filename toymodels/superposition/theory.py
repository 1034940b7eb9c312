"""Closed forms that the toy models are compared with.

Superposition, arXiv:2505.10465: where decay leaves the rarer features unlearned (weak superposition) the loss is
what these features carry; where growth makes all of them share the width (strong superposition) it is the squared
overlap, which cannot fall below Welch's bound ≈ 1/m.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from toymodels.superposition.features import AMPLITUDE_LAWS


def unlearned_loss(
    probabilities: Float[Tensor, " n"], learned: Bool[Tensor, " n"] | int, *, amplitude: str = "uniform"
) -> float:
    """Loss of a model that gives `learned` features exactly and 0 for the others: ⟨v²⟩ Σ p_i over the unlearned.

    Parameters
    ----------
    probabilities
        p_i, shape [n].
    learned
        Which features are learned; a number k stands for the k most frequent (the published form, k = φ n).
    amplitude
        A row of `AMPLITUDE_LAWS`.
    """
    p = probabilities.double()
    unlearned = p.sort(descending=True).values[learned:] if isinstance(learned, int) else p[~learned]
    return AMPLITUDE_LAWS[amplitude].mean_square * float(unlearned.sum())


def weak_exponent(data_exponent: float) -> float:
    """α_m = α − 1 for p_i ∝ i^(−α) with the first ~m features learned; NaN for α ≤ 1, where no power law follows."""
    return data_exponent - 1 if data_exponent > 1 else math.nan


def strong_exponent(data_exponent: float) -> float:
    """α_m = 1 for even frequencies, rising towards 2(α − 1) for steep ones: the larger of the two limits."""
    return max(1.0, 2 * (data_exponent - 1))


def zero_loss(density: float, *, amplitude: str = "uniform") -> float:
    """Loss of the model that always answers 0: ⟨v²⟩ E. A model above it has learned less than nothing."""
    return AMPLITUDE_LAWS[amplitude].mean_square * density


def plain_overlaps(W: Float[Tensor, "n m"]) -> float:
    """Mean of (W_i·W_j)² over pairs i < j, rows not normalized: what enters the loss. Exact in O(n m²)."""
    W = W.double()
    n = len(W)
    norms = W.square().sum(1)
    return float(((W.T @ W).square().sum() - norms.square().sum()) / (n * (n - 1)))


def long_rows(W: Float[Tensor, "n m"], threshold: float = 1.0) -> Float[Tensor, "k m"]:
    """Rows with |W_i| above `threshold`: the well represented features, whose overlaps are reported apart."""
    return W[torch.linalg.vector_norm(W, dim=1) > threshold]
