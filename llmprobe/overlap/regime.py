"""Where a matrix lies between no superposition and full superposition (arXiv:2505.10465, section 4).

A row is *represented* if it wins its own contest: ``|W_i − μ|² > max_{j≠i} (W_i − μ)·(W_j − μ)``, μ the mean row. The
hidden state W_i − μ then gives token i the largest logit (a shift common to all logits changes no softmax). The test
has no threshold, and does not change under rotation, a common scale or a common shift. `overlap_statistics` measures
the share phi of such rows; what the paper counts in toys, rows longer than 1/2 or 1, is `fraction_longer`.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def fraction_longer(norms: Float[Tensor, " n"], threshold: float) -> float:
    """Share of rows longer than a threshold: phi_{1/2} and phi_1 of arXiv:2505.10465, whose norms gather at 0 and 1.

    Parameters
    ----------
    norms
        Row norms |W_i|, shape [n].
    threshold
        Length above which a row counts.
    """
    return float((norms > threshold).double().mean())


def superposition(phi: float, n: int, m: int) -> float:
    """Coordinate ``(phi − m/n) / (1 − m/n)``, clipped to [0, 1].

    0 where only m of n rows are represented (no superposition), 1 where all are (full superposition). NaN when
    n ≤ m: there is nothing to superpose.
    """
    if n <= m:
        return float("nan")
    return min(1.0, max(0.0, (phi - m / n) / (1 - m / n)))
