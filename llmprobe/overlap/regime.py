"""Where a matrix lies between no superposition and full superposition (arXiv:2505.10465, section 4; phi as there)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def represented_fraction(norms: Float[Tensor, " n"], threshold: float | None = None) -> float:
    """Share phi of rows that are represented.

    Parameters
    ----------
    norms
        Row norms |W_i|, shape [n].
    threshold
        A row counts when its norm exceeds this. A toy's norms gather near 0 and 1, so its phi_{1/2} takes 0.5
        and its phi_1 takes 1. A language model's scale is free: the default is half the median norm.
    """
    if threshold is None:
        threshold = 0.5 * float(norms.median())
    return float((norms > threshold).double().mean())


def superposition(phi: float, n: int, m: int) -> float:
    """Coordinate ``(phi − m/n) / (1 − m/n)``, clipped to [0, 1].

    0 where only m of n rows are represented (no superposition), 1 where all are (full superposition). NaN when
    n ≤ m: there is nothing to superpose.
    """
    if n <= m:
        return float("nan")
    return min(1.0, max(0.0, (phi - m / n) / (1 - m / n)))
