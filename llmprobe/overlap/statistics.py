"""How the rows of a matrix overlap: one measure for unembeddings and for trained toys.

With unit rows U_i = W_i/|W_i| and c_ij = U_i·U_j over the n(n−1)/2 pairs i < j:

* mean c and mean c² need no pairs: G = UᵀU (m×m) holds them, in O(n m²);
* mean |c| does: all pairs in symmetric tiles, or a random sample of rows against all rows.

Raw overlaps of real models are dominated by a common mean direction, so centred ones (mean row subtracted, then
normalised) are always measured beside them. Both come from one product per tile: with X_i = (W_i − μ)/|W_i|,
centred cosines are X_i·X_j scaled per row and column, and raw ones are X_i·X_j plus a matrix of rank two.

Sources: arXiv:2505.10465 section 4 and Figure 8a; Welch (1974) for the lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from llmprobe.errors import TensorError
from llmprobe.overlap.regime import represented_fraction, superposition
from llmprobe.overlap.unit_rows import BLOCK, Rows

Method = Literal["auto", "exact", "sampled"]
TILE = 1024  # rows and columns of one tile of cosines: two such float32 tiles stay in a core's cache
AUTO_EXACT = 3e12  # n²m up to which `auto` visits all pairs: about ten seconds on two laptop cores


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
class OverlapStatistics:
    """Everything measured about the overlaps of one matrix; fields are the keys of ``llmprobe overlap --json``.

    `mean_abs_cos_stderr` is 0 when all pairs were visited. `max_abs_cos` is over the pairs visited: for a sample
    it is a lower bound. `centered` holds ``mean_abs_cos``, ``mean_sq_cos`` and ``mean_cos`` of centred rows (NaN
    where a row equals the mean row). `norm` holds ``mean``, ``std``, ``min`` and ``max`` of |W_i|.
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
    centered: dict[str, float]
    welch_mean_sq: float
    random_mean_sq: float
    participation_ratio: float
    norm: dict[str, float]
    represented_fraction: float
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

    Raises
    ------
    TensorError
        Fewer than two rows, a value that is not finite, or a zero row.
    """
    rows = Rows(W, drop_zero_rows=drop_zero_rows)
    return _moments(rows, center)


def overlap_statistics(
    W: Float[Tensor, "n m"],
    *,
    method: Method = "auto",
    rows: int = 1024,
    seed: int = 0,
    threshold: float | None = None,
    drop_zero_rows: bool = False,
    progress: bool = False,
) -> OverlapStatistics:
    """Measure how the rows of W overlap, raw and centred.

    Parameters
    ----------
    W
        Matrix, shape [n, m]; any float type, on any device. It is read in blocks and never copied whole.
    method
        ``exact`` visits all pairs; ``sampled`` visits `rows` random rows against all rows and gives a standard
        error for mean |c|; ``auto`` visits all pairs when that takes seconds. Second moments are exact always.
    rows, seed
        Size and seed of the sample.
    threshold
        Norm above which a row counts as represented; see `represented_fraction`.
    drop_zero_rows
        Leave out rows of norm zero instead of refusing them.
    progress
        Show a progress bar on stderr.

    Raises
    ------
    TensorError
        Fewer than two rows, a value that is not finite, or a zero row.
    """
    data = Rows(W, drop_zero_rows=drop_zero_rows)
    n, m = data.n, data.m
    exact = method == "exact" or (method == "auto" and float(n) * n * m <= AUTO_EXACT) or rows >= n
    pairs = _all_pairs(data, progress) if exact else _sampled_pairs(data, rows, seed, progress)
    raw, centred = _moments(data, center=False), _moments(data, center=True)
    phi = represented_fraction(data.norms, threshold)
    return OverlapStatistics(
        n=n,
        m=m,
        method="exact" if exact else "sampled",
        rows_sampled=n if exact else rows,
        mean_abs_cos=pairs.raw,
        mean_abs_cos_stderr=pairs.raw_stderr,
        mean_sq_cos=raw.mean_sq_cos,
        mean_cos=raw.mean_cos,
        max_abs_cos=pairs.largest,
        centered={
            "mean_abs_cos": pairs.centred,
            "mean_sq_cos": centred.mean_sq_cos,
            "mean_cos": centred.mean_cos,
        },
        welch_mean_sq=welch_mean_sq(n, m),
        random_mean_sq=1 / m,
        participation_ratio=raw.participation_ratio,
        norm={
            "mean": float(data.norms.mean()),
            "std": float(data.norms.std(correction=0)),
            "min": float(data.norms.min()),
            "max": float(data.norms.max()),
        },
        represented_fraction=phi,
        superposition=superposition(phi, n, m),
    )


@dataclass(frozen=True)
class _Pairs:
    raw: float
    raw_stderr: float
    centred: float
    largest: float


def _moments(rows: Rows, center: bool) -> Moments:
    n, m = rows.n, rows.m
    gram = torch.zeros(m, m, dtype=torch.float64, device=rows.W.device)
    total = torch.zeros(m, dtype=torch.float64, device=rows.W.device)
    for i in range(0, n, BLOCK):
        unit = rows.unit(slice(i, i + BLOCK), center=center)
        gram += unit.T @ unit
        total += unit.sum(0)
    square, trace, pairs = float(gram.square().sum()), float(gram.trace()), n * (n - 1)
    return Moments(
        mean_cos=(float(total.square().sum()) - trace) / pairs,
        mean_sq_cos=(square - n) / pairs,
        participation_ratio=trace**2 / square,
    )


def _all_pairs(data: Rows, progress: bool) -> _Pairs:
    starts = range(0, data.n, TILE)
    raw = centred = largest = 0.0
    for i in _bar(starts, progress, "all pairs"):
        ids = torch.arange(i, min(i + TILE, data.n), device=data.W.device)
        for j, r, c, top in _tiles(data, ids, first=i):
            twice = 1.0 if i == j else 2.0  # the diagonal tile holds both orders of its pairs
            raw += twice * float(r.sum())
            centred += twice * float(c.sum())
            largest = max(largest, float(top))
    pairs = data.n * (data.n - 1)
    return _Pairs(raw / pairs, 0.0, centred / pairs, largest)


def _sampled_pairs(data: Rows, k: int, seed: int, progress: bool) -> _Pairs:
    """k rows drawn without replacement; the error of their mean shrinks with √(1 − k/n)."""
    if k < 2:
        raise TensorError(f"a sample of {k} rows", expected="at least 2 rows", fix="raise --rows")
    n, device = data.n, data.W.device
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k].to(device)
    raw = torch.zeros(k, dtype=torch.float64, device=device)
    centred, largest = torch.zeros_like(raw), 0.0
    for i in _bar(range(0, k, TILE), progress, "sampled rows"):
        for _, r, c, top in _tiles(data, chosen[i : i + TILE], first=0):
            raw[i : i + TILE] += r
            centred[i : i + TILE] += c
            largest = max(largest, float(top))
    spread = float(raw.std()) / (n - 1)
    error = spread * math.sqrt((1 - k / n) / k)
    return _Pairs(float(raw.mean()) / (n - 1), error, float(centred.mean()) / (n - 1), largest)


def _tiles(data: Rows, ids: Tensor, first: int) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
    """For rows `ids` against each tile of columns from `first` on: Σ|c| per row raw and centred, max |c| raw."""
    x, scale = data.x(ids), data.centred_scale[ids]
    h, g = data.rank_two(ids, x)
    left = torch.stack([h, g], dim=1)
    for j in range(first, data.n, TILE):
        columns = slice(j, min(j + TILE, data.n))
        y = data.x(columns)
        h, g = data.rank_two(columns, y)
        tile = x @ y.T
        own = ((ids >= j) & (ids < columns.stop)).nonzero()[:, 0]
        tile[own, ids[own] - j] = 0
        centred = (tile.abs() @ data.centred_scale[columns]) * scale
        tile.addmm_(left, torch.stack([g, h]))
        tile[own, ids[own] - j] = 0
        tile.abs_()
        yield j, tile.sum(1).double(), centred.double(), tile.max()


def _bar(items: range, progress: bool, what: str) -> Iterable[int]:
    return tqdm(items, desc=what, unit="tile row", disable=not progress, leave=False)
