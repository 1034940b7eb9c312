"""How the rows of a matrix overlap: one measure for unembeddings and for trained toys.

With unit rows U_i = W_i/|W_i| and c_ij = U_i·U_j over the n(n−1)/2 pairs i < j:

* mean c and mean c² need no pairs: G = UᵀU (m×m) holds them, in O(n m²);
* mean |c| and the represented rows do: all pairs in symmetric tiles, or a random sample of rows against all rows.

Raw overlaps of real models are dominated by a common mean direction, so centered ones (mean row subtracted, then
normalized) are always measured beside them, from the same product; see `llmprobe.overlap.unit_rows`.

Sources: arXiv:2505.10465 section 4 and Figure 8a; Welch (1974) for the lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from llmprobe.overlap.pairs import all_pairs, sampled_pairs
from llmprobe.overlap.regime import superposition
from llmprobe.overlap.unit_rows import Rows

Method = Literal["auto", "exact", "sampled"]
AUTO_EXACT = 3e12  # n²m up to which `auto` visits all pairs: about ten seconds on two laptop cores
GRAM_BLOCKS = 16  # columns of blocks of a Gram matrix, of which the upper triangle is made: 136 of 256 products
GRAM_PART = 512  # rows of it that are squared at a time


@dataclass(frozen=True)
class Moments:
    """Exact moments of the cosines over all pairs of rows.

    Attributes
    ----------
    mean_cos, mean_sq_cos
        Mean c and mean c².
    participation_ratio
        (tr G)²/‖G‖_F², the effective number of directions, between 1 and m; mean c² ≈ 1/PR.
    """

    mean_cos: float
    mean_sq_cos: float
    participation_ratio: float


@dataclass(frozen=True)
class CenteredOverlaps:
    """Overlaps of rows minus the mean row; `mean_abs_cos` is NaN where a row equals the mean row."""

    mean_abs_cos: float
    mean_sq_cos: float
    mean_cos: float


@dataclass(frozen=True)
class Norms:
    """Row norms |W_i|."""

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class OverlapStatistics:
    """Everything measured about the overlaps of one matrix; fields are the keys of ``llmprobe overlap --json``.

    Attributes
    ----------
    n
        Rows.
    m
        Width.
    method
        Whether all pairs were visited or a sample of rows against all.
    rows_sampled
        How many rows were visited.
    mean_abs_cos
        Mean |c|.
    mean_abs_cos_stderr
        Its standard error, 0 when all pairs were visited.
    mean_sq_cos
        Mean c², exact.
    mean_cos
        Mean c, exact.
    max_abs_cos
        Over the pairs visited: for a sample a lower bound.
    centered
        The same of rows minus the mean row.
    welch_mean_sq
        Welch's lower bound on mean c².
    random_mean_sq
        1/m, the mean c² of random directions.
    participation_ratio
        (tr G)²/‖G‖_F² of the unit rows: their effective number of directions.
    norm
        Mean, standard deviation, least and largest of |W_i|.
    represented_fraction
        Share phi of rows that win their own contest (`llmprobe.overlap.regime`), over all rows or the sampled ones.
    represented_stderr
        Its binomial error, 0 when all pairs were visited.
    ties
        Rows among them whose contest is a draw up to rounding: near-duplicates, which are not represented.
    superposition
        (phi − m/n)/(1 − m/n), clipped to [0, 1]; NaN where n ≤ m.

    Examples
    --------
    >>> found = overlap_statistics(torch.eye(3).repeat(2, 1))  # each direction twice: nobody wins
    >>> found.represented_fraction, found.ties, round(found.mean_sq_cos, 6)
    (0.0, 6, 0.2)
    """

    n: int
    m: int
    method: Literal["exact", "sampled"]
    rows_sampled: int
    mean_abs_cos: float
    mean_abs_cos_stderr: float
    mean_sq_cos: float
    mean_cos: float
    max_abs_cos: float
    centered: CenteredOverlaps
    welch_mean_sq: float
    random_mean_sq: float
    participation_ratio: float
    norm: Norms
    represented_fraction: float
    represented_stderr: float
    ties: int
    superposition: float


def welch_mean_sq(n: int, m: int) -> float:
    """Welch's lower bound (n−m)/(m(n−1)) on mean c² of n unit vectors in m dimensions; 0 when n ≤ m."""
    return max(0.0, (n - m) / (m * (n - 1)))


def second_moments(W: Float[Tensor, "n m"], *, center: bool = False, drop_zero_rows: bool = False) -> Moments:
    """Mean c, mean c² and participation ratio over all pairs, exact in O(n m²) time.

    Parameters
    ----------
    W
        Matrix, shape [n, m]; any float type, on any device. Products are float32 (float64 for a float64 W), summed
        in float64.
    center
        Subtract the mean row first.
    drop_zero_rows
        Leave out rows of norm zero, which have no direction, instead of refusing them.

    Returns
    -------
    See `Moments`; numbers without a unit.

    Raises
    ------
    TensorError
        Fewer than two rows, a value that is not finite, or a zero row.

    Examples
    --------
    >>> W = torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])  # a triangle: Welch's bound
    >>> round(second_moments(W).mean_sq_cos, 6) == round(welch_mean_sq(3, 2), 6) == 0.25
    True
    """
    rows = Rows(W, drop_zero_rows=drop_zero_rows)
    return _moments(rows, center)


def overlap_statistics(
    W: Float[Tensor, "n m"],
    *,
    method: Method = "auto",
    rows: int = 1024,
    seed: int = 0,
    drop_zero_rows: bool = False,
    progress: bool = False,
) -> OverlapStatistics:
    """Measure how the rows of W overlap, raw and centered, and how many are represented.

    Parameters
    ----------
    W
        Matrix, shape [n, m]; any float type, on any device. It is read in blocks and never copied whole.
    method
        ``exact`` visits all pairs; ``sampled`` visits `rows` random rows against all rows and gives standard errors
        for mean |c| and the represented share; ``auto`` visits all pairs when that takes seconds. Second moments are
        exact always.
    rows, seed
        Size and seed of the sample.
    drop_zero_rows
        Leave out rows of norm zero instead of refusing them.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    See `OverlapStatistics`.

    Raises
    ------
    TensorError
        Fewer than two rows, a value that is not finite, or a zero row.
    """
    data = Rows(W, drop_zero_rows=drop_zero_rows)
    n, m = data.n, data.m
    exact = method == "exact" or (method == "auto" and float(n) * n * m <= AUTO_EXACT) or rows >= n
    pairs = all_pairs(data, progress) if exact else sampled_pairs(data, rows, seed, progress)
    raw, centered = (_moments(data, center, progress) for center in (False, True))
    norms = data.norms
    return OverlapStatistics(
        n=n,
        m=m,
        method="exact" if exact else "sampled",
        rows_sampled=n if exact else rows,
        mean_abs_cos=pairs.mean_abs_cos,
        mean_abs_cos_stderr=pairs.stderr,
        mean_sq_cos=raw.mean_sq_cos,
        mean_cos=raw.mean_cos,
        max_abs_cos=pairs.max_abs_cos,
        centered=CenteredOverlaps(pairs.centered_mean_abs_cos, centered.mean_sq_cos, centered.mean_cos),
        welch_mean_sq=welch_mean_sq(n, m),
        random_mean_sq=1 / m,
        participation_ratio=raw.participation_ratio,
        norm=Norms(float(norms.mean()), float(norms.std(correction=0)), float(norms.min()), float(norms.max())),
        represented_fraction=pairs.represented,
        represented_stderr=pairs.represented_stderr,
        ties=pairs.ties,
        superposition=superposition(pairs.represented, n, m),
    )


def _moments(rows: Rows, center: bool, progress: bool = False) -> Moments:
    n, pairs = rows.n, rows.n * (rows.n - 1)
    gram = torch.zeros(rows.m, rows.m, dtype=torch.float64, device=rows.W.device)
    total = torch.zeros(rows.m, dtype=torch.float64, device=rows.W.device)
    name = "second moments, centered" if center else "second moments"
    for where in tqdm([*rows.slices()], desc=name, unit="block", disable=not progress, leave=False):
        unit = rows.unit(where, center=center)
        add_gram(gram, unit)
        total += unit.sum(0)
    upper = sum(float(part.square().sum()) for part in gram.split(GRAM_PART))  # gram is half a gigabyte at m = 8192
    square, trace = 2 * upper - float(gram.diagonal().square().sum()), float(gram.trace())
    return Moments(
        mean_cos=(float(total.square().sum()) - trace) / pairs,
        mean_sq_cos=(square - n) / pairs,
        participation_ratio=trace**2 / square,
    )


def add_gram(gram: Float[Tensor, "m m"], unit: Float[Tensor, "k m"]) -> None:
    """Add the upper triangle of UᵀU to a Gram matrix: little more than half of a full product's work."""
    m = unit.shape[1]
    step = max(64, -(-m // GRAM_BLOCKS))
    for i in range(0, m, step):
        block = unit[:, i : i + step].T @ unit[:, i:]
        block[:, : block.shape[0]].triu_()
        gram[i : i + step, i:] += block
