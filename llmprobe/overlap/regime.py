"""Where a matrix lies between no superposition and full superposition (arXiv:2505.10465, section 4).

A row is *represented* if it wins its own contest: ``|W_i − μ|² > max_{j≠i} (W_i − μ)·(W_j − μ)``, μ the mean row. The
hidden state W_i − μ then gives token i the largest logit (a shift common to all logits changes no softmax). The test
has no threshold, and does not change under rotation, a common scale or a common shift. `overlap_statistics` measures
the share phi of such rows; what the paper counts in toys, rows longer than 1/2 or 1, is `fraction_longer`.
"""

from __future__ import annotations

from typing import Literal

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


WEAK, STRONG = 0.1, 0.5  # of the superposition coordinate: below the one weak, above the other strong
NEAR_RANDOM = 10.0  # centered mean c² in units of 1/m up to which the rows fill their dimensions

RULE = (
    f"strong: the superposition coordinate is above {STRONG:g} by two standard errors and the centered mean c² is "
    f"below {NEAR_RANDOM:g}/m; weak: the coordinate is below {WEAK:g} by two standard errors; else it cannot be told"
)

Regime = Literal["strong", "weak", "cannot tell"]


def regime(coordinate: float, stderr: float, centered_sq_times_m: float) -> Regime:
    """The regime of a matrix by `RULE`.

    A weak toy and a strong one lie near 0 and 1; so do Gaussian rows near 1, without any training, so that being
    strong is necessary for superposition to explain a loss and no evidence of learning.

    Parameters
    ----------
    coordinate, stderr
        Superposition coordinate and its standard error.
    centered_sq_times_m
        Centered mean c² times m: 1 for random directions; NaN where it is not known.
    """
    if coordinate + 2 * stderr < WEAK:
        return "weak"
    if coordinate - 2 * stderr > STRONG and centered_sq_times_m < NEAR_RANDOM:
        return "strong"
    return "cannot tell"
