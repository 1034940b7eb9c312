"""A closer look at the overlaps: their distribution, the closest pairs, and how they go with token frequency.

In the toy model rare features overlap more than frequent ones (arXiv:2505.10465); `by_frequency` asks whether the
tokens of a real model do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from llmprobe.errors import TensorError
from llmprobe.overlap.pairs import Contests
from llmprobe.overlap.statistics import add_gram
from llmprobe.overlap.unit_rows import Rows
from llmprobe.settings import Count, check

TILE = 2048
NEAR_THE_MEAN = 0.25  # of the median distance from it
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


@dataclass(frozen=True)
class Distribution:
    """Distribution of the cosines between a sample of rows and all rows.

    Attributes
    ----------
    edges, counts
        Histogram over [−1, 1]; shapes [bins + 1] and [bins].
    quantiles
        Cosine at each of `QUANTILES`, exact to a bin's width.
    """

    edges: Float[np.ndarray, " b1"]
    counts: Int[np.ndarray, " b"]
    quantiles: dict[float, float]


@dataclass(frozen=True)
class Pair:
    """Two rows i < j and their cosine."""

    i: int
    j: int
    cos: float


@dataclass(frozen=True)
class FrequencyBin:
    """Rows of like frequency, the most frequent first.

    `mean_sq_cos` is of these rows against all rows; `stderr` is its standard error over the rows of the bin.
    `represented` is the share of them that win their contest (`llmprobe.overlap.regime`).
    """

    tokens: int
    occurrences: int
    norm: float
    mean_sq_cos: float
    stderr: float
    represented: float


@dataclass(frozen=True)
class Unrepresented:
    """A row that does not win its contest.

    Attributes
    ----------
    row
        Its place in the matrix.
    why
        ``duplicate`` (a draw: another row is as good as the same), ``near the mean`` (closer to the mean row than a
        quarter of the median distance) or ``outdone`` (another row has the larger product).
    distance
        |W_i − μ|, relative to the median.
    """

    row: int
    why: Literal["duplicate", "near the mean", "outdone"]
    distance: float


def cosine_distribution(
    data: Rows, *, center: bool = False, rows: int = 1024, seed: int = 0, bins: int = 2000
) -> Distribution:
    """Histogram and quantiles of c_ij, from `rows` random rows against all others.

    Parameters
    ----------
    data
        The matrix.
    center
        Subtract the mean row first.
    rows, seed
        Size and seed of the sample.
    bins
        Of the histogram.

    Raises
    ------
    TensorError
        As for `overlap_statistics`.
    """
    check("rows", rows, Count)
    chosen = torch.randperm(data.n, generator=torch.Generator().manual_seed(seed))[:rows].to(data.W.device)
    left = data.unit(chosen, center=center)
    counts = torch.zeros(bins, dtype=torch.float64)
    for j in range(0, data.n, TILE):
        tile = left @ data.unit(slice(j, j + TILE), center=center).T
        counts += torch.histc(tile.clamp_(-1, 1).float().cpu(), bins, -1, 1).double()
    own = torch.histc((left * left).sum(1).clamp_(-1, 1).float().cpu(), bins, -1, 1)
    counts = (counts - own).clamp_(min=0).long()  # each row with itself
    edges = np.linspace(-1, 1, bins + 1)
    share = counts.double().cumsum(0).numpy() / max(1, int(counts.sum()))
    centres = (edges[1:] + edges[:-1]) / 2
    quantiles = {q: float(centres[min(bins - 1, int(np.searchsorted(share, q)))]) for q in QUANTILES}
    return Distribution(edges, counts.numpy(), quantiles)


def closest_pairs(data: Rows, *, k: int = 20, center: bool = False, progress: bool = False) -> list[Pair]:
    """The k pairs of rows with the largest cosine, over all pairs; the closest first.

    Rows are numbered as in the matrix that `data` was made of, rows left out included.

    Raises
    ------
    TensorError
        As for `overlap_statistics`.
    """
    check("k", k, Count)
    best: list[tuple[float, int, int]] = []
    floor = -math.inf
    for i in tqdm(range(0, data.n, TILE), desc="closest pairs", unit="tile row", disable=not progress, leave=False):
        left = data.unit(slice(i, i + TILE), center=center)
        for j in range(i, data.n, TILE):
            tile = left @ data.unit(slice(j, j + TILE), center=center).T
            if i == j:
                tile = tile.triu_(1).masked_fill_(torch.ones_like(tile, dtype=torch.bool).tril_(), -math.inf)
            if float(tile.max()) <= floor:
                continue
            values, places = tile.flatten().topk(min(k, tile.numel()))
            rows, columns = places // tile.shape[1] + i, places % tile.shape[1] + j
            best += [
                (c, a, b)
                for c, a, b in zip(values.tolist(), rows.tolist(), columns.tolist(), strict=True)
                if c > -math.inf
            ]
            best = sorted(best, key=lambda pair: (-pair[0], pair[1], pair[2]))[:k]
            floor = best[-1][0] if len(best) == k else -math.inf
    return [Pair(data.original(i), data.original(j), c) for c, i, j in best]


def by_frequency(
    data: Rows, counts: Int[np.ndarray, " k"], outcome: Contests, *, bins: int = 10, center: bool = False
) -> list[FrequencyBin]:
    """Norm, overlap and represented share of rows against how often their tokens occur.

    Parameters
    ----------
    counts
        Occurrences of each token in a corpus, one per row of the matrix that `data` was made of. Tokens that never
        occur make a bin of their own, the last; the others are cut into `bins` bins of equal size by rank.
    outcome
        As `contests` gives it.

    Raises
    ------
    TensorError
        The counts are not one per row.
    """
    check("bins", bins, Count)
    rows = data.n if data.kept is None else len(counts)
    if len(counts) != rows or (data.kept is not None and len(counts) <= int(data.kept[-1])):
        raise TensorError(f"{len(counts)} counts for {rows} rows", expected="one per row")
    if data.kept is not None:
        counts = counts[data.kept.cpu().numpy()]
    overlap = row_mean_sq_cos(data, center=center).cpu().numpy()
    norms, won = data.norms.cpu().numpy(), outcome.won.cpu().numpy()
    order = np.argsort(-counts, kind="stable")
    seen = order[counts[order] > 0]
    groups = [*np.array_split(seen, min(bins, len(seen))), order[counts[order] == 0]] if len(seen) else [order]
    return [
        FrequencyBin(
            tokens=len(group),
            occurrences=int(counts[group].sum()),
            norm=float(norms[group].mean()),
            mean_sq_cos=float(overlap[group].mean()),
            stderr=float(overlap[group].std(ddof=1) / math.sqrt(len(group))) if len(group) > 1 else math.nan,
            represented=float(won[group].mean()),
        )
        for group in groups
        if len(group)
    ]


def unrepresented(data: Rows, outcome: Contests) -> list[Unrepresented]:
    """The rows that do not win their contest, those nearest to the mean first, and why."""
    distance = data.distances / data.distances.median()
    rows = (~outcome.won).nonzero()[:, 0]
    found = []
    why: Literal["duplicate", "near the mean", "outdone"]
    for row in rows[distance[rows].argsort()].tolist():
        d = float(distance[row])
        why = "near the mean" if d < NEAR_THE_MEAN else "duplicate" if bool(outcome.tied[row]) else "outdone"
        found.append(Unrepresented(data.original(row), why, d))
    return found


def row_mean_sq_cos(data: Rows, *, center: bool) -> Float[Tensor, " n"]:
    """Mean c_ij² over j ≠ i for each row i, exact in O(n m²): (U_iᵀ G U_i − 1)/(n − 1)."""
    upper = torch.zeros(data.m, data.m, dtype=torch.float64, device=data.W.device)
    for where in data.slices():
        add_gram(upper, data.unit(where, center=center))
    gram = upper + upper.triu(1).T
    result = torch.empty(data.n, dtype=torch.float64, device=data.W.device)
    for where in data.slices():
        unit = data.unit(where, center=center).double()
        result[where] = ((unit @ gram) * unit).sum(1)
    return (result - 1) / (data.n - 1)
