"""Every pair of rows, or a sample of rows against all: one product per tile for all that needs the pairs.

From a tile of X_i·X_j come the centered |cos|, the raw |cos| (a matrix of rank two away) and the contests that say
which rows are represented: row i wins if d_i² > max_{j≠i} (W_i − μ)·(W_j − μ).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from llmprobe.errors import TensorError
from llmprobe.overlap.unit_rows import Rows

TILE = 1024  # rows and columns of one tile of cosines: two such float32 tiles stay in a core's cache
PANEL = 4  # tiles of rows that share the conversion of their columns
TIE = {torch.float32: 1e-5, torch.float64: 1e-12}  # contests closer than this, relative, are not decided by rounding


@dataclass(frozen=True)
class Pairs:
    """What the pairs say.

    Attributes
    ----------
    mean_abs_cos, stderr
        Mean raw |c| and its standard error over sampled rows (0 for all pairs).
    centered_mean_abs_cos
        The same of centered rows, NaN where a row equals the mean.
    max_abs_cos
        Over the pairs visited.
    represented, represented_stderr
        Share of rows that win their contest, and its binomial standard error (0 for all rows).
    ties
        Rows among those visited whose contest is within rounding of a draw: near-duplicates. They are not represented.
    """

    mean_abs_cos: float
    stderr: float
    centered_mean_abs_cos: float
    max_abs_cos: float
    represented: float
    represented_stderr: float
    ties: int


@dataclass(frozen=True)
class Contests:
    """Outcome of each row's contest, bool of shape [k]: won, or a draw up to rounding; neither is a loss."""

    won: Tensor
    tied: Tensor


@dataclass(frozen=True)
class _Tile:
    """Cosines of rows `left` against rows `right`: sums over columns of |c|, shape [k], and the strongest rivals."""

    left: Tensor
    right: slice
    raw: Tensor
    centered: Tensor
    largest: Tensor
    rival_of_left: Tensor  # max_j X_i·X_j s_j over j ≠ i, shape [k]
    rival_of_right: Tensor | None  # the same of the columns, where they are asked for


def all_pairs(data: Rows, progress: bool) -> Pairs:
    """Symmetric tiles over all pairs i < j."""
    everyone = torch.arange(data.n, device=data.W.device)
    raw = centered = largest = 0.0
    rival = torch.full((data.n,), -math.inf, dtype=data.dtype, device=data.W.device)
    for start in _bar(range(0, data.n, PANEL * TILE), progress, "all pairs"):
        panel = everyone[start : start + PANEL * TILE]
        for tile in _tiles(data, panel, start, symmetric=True):
            first, last = int(tile.left[0]), int(tile.left[-1])
            twice = 1.0 if first == tile.right.start else 2.0  # a tile on the diagonal holds both orders of its pairs
            raw += twice * float(tile.raw.sum())
            centered += twice * float(tile.centered.sum())
            largest = max(largest, float(tile.largest))
            rival[first : last + 1] = torch.maximum(rival[first : last + 1], tile.rival_of_left)
            if tile.rival_of_right is not None:
                rival[tile.right] = torch.maximum(rival[tile.right], tile.rival_of_right)
    pairs = data.n * (data.n - 1)
    outcome = _contests(data, everyone, rival)
    wins, ties = int(outcome.won.sum()), int(outcome.tied.sum())
    return Pairs(raw / pairs, 0.0, centered / pairs, largest, wins / data.n, 0.0, ties)


def sampled_pairs(data: Rows, k: int, seed: int, progress: bool) -> Pairs:
    """k rows drawn without replacement against all rows; errors shrink with √(1 − k/n).

    The binomial error takes (wins + ½)/(k + 1) for the share, so that a sample without a loser still has an error.

    Raises
    ------
    TensorError
        k < 2.
    """
    if k < 2:
        raise TensorError(f"a sample of {k} rows", expected="at least 2 rows", fix="raise --rows")
    n, device = data.n, data.W.device
    chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:k].to(device)
    raw = torch.zeros(k, dtype=torch.float64, device=device)
    centered, largest = torch.zeros_like(raw), 0.0
    rival = torch.full((k,), -math.inf, dtype=data.dtype, device=device)
    for start in _bar(range(0, k, PANEL * TILE), progress, "sampled rows"):
        panel = chosen[start : start + PANEL * TILE]
        for tile in _tiles(data, panel, 0, symmetric=False):
            offset = start + int((panel == tile.left[0]).nonzero()[0, 0])
            own = slice(offset, offset + len(tile.left))
            raw[own] += tile.raw
            centered[own] += tile.centered
            largest = max(largest, float(tile.largest))
            rival[own] = torch.maximum(rival[own], tile.rival_of_left)
    outcome = _contests(data, chosen, rival)
    wins, ties = int(outcome.won.sum()), int(outcome.tied.sum())
    left_out = 1 - k / n
    error = float(raw.std()) / (n - 1) * math.sqrt(left_out / k)
    share = (wins + 0.5) / (k + 1)
    binomial = math.sqrt(share * (1 - share) / k * left_out)
    mean = float(centered.mean()) / (n - 1)
    return Pairs(float(raw.mean()) / (n - 1), error, mean, largest, wins / k, binomial, ties)


def contests(data: Rows, progress: bool = False) -> Contests:
    """Of every row, whether it wins its contest against all others; as in `all_pairs`, without the cosines."""
    rival = torch.full((data.n,), -math.inf, dtype=data.dtype, device=data.W.device)
    everyone = torch.arange(data.n, device=data.W.device)
    for start in _bar(range(0, data.n, TILE), progress, "contests"):
        rows = slice(start, min(start + TILE, data.n))
        x = data.x(rows)
        for j in range(start, data.n, TILE):
            columns = slice(j, min(j + TILE, data.n))
            tile = x @ data.x(columns).T
            if j == start:
                tile.fill_diagonal_(0)
            rival[rows] = torch.maximum(rival[rows], (tile * data.scale[columns]).amax(1))
            rival[columns] = torch.maximum(rival[columns], tile.mul_(data.scale[rows, None]).amax(0))
    return _contests(data, everyone, rival)


def _contests(data: Rows, rows: Tensor, rival: Tensor) -> Contests:
    """Outcomes from the strongest rival of each row: max_j X_i·X_j s_j, which a win keeps below d_i²/s_i."""
    own = data.distances[rows] ** 2 / data.scale[rows].double()
    lead = 1 - rival.double() / own
    tied = lead.abs() <= TIE[data.dtype]
    return Contests((lead > 0) & ~tied, tied)


def _tiles(data: Rows, panel: Tensor, first: int, *, symmetric: bool) -> Iterator[_Tile]:
    """Tiles of a panel of rows against the columns from `first` on, each column converted once for the whole panel.

    Where `symmetric`, the panel begins at `first` and tiles below the diagonal are left out.
    """
    parts = panel.split(TILE)
    left = [data.x(ids) for ids in parts]
    for j in range(first, data.n, TILE):
        columns = slice(j, min(j + TILE, data.n))
        right = data.x(columns)
        for ids, x in zip(parts, left, strict=True):
            if symmetric and int(ids[0]) > j:
                break
            yield _tile(data, ids, x, columns, right, both=symmetric and int(ids[0]) < j)


def _tile(data: Rows, ids: Tensor, x: Tensor, columns: slice, y: Tensor, *, both: bool) -> _Tile:
    tile = x @ y.T  # [k, c]
    own = ((ids >= columns.start) & (ids < columns.stop)).nonzero()[:, 0]
    here = ids[own] - columns.start
    tile[own, here] = 0  # a row against itself: 0 can only be the largest product where every rival's is negative
    work = tile * data.scale[columns]
    rival_of_left = work.amax(1)
    rival_of_right = torch.mul(tile, data.scale[ids, None], out=work).amax(0) if both else None
    centered = (torch.abs(tile, out=work) @ data.centered_scale[columns]) * data.centered_scale[ids]
    tile.addmm_(data.rank_two[ids], data.rank_two[columns].flip(1).T)
    _patch_faint(data, tile, ids, columns)
    tile[own, here] = 0
    tile.abs_()
    return _Tile(ids, columns, tile.sum(1).double(), centered.double(), tile.max(), rival_of_left, rival_of_right)


def _patch_faint(data: Rows, tile: Tensor, ids: Tensor, columns: slice) -> None:
    """Raw cosines of faint rows as products of unit rows."""
    if not data.has_faint:
        return
    if len(rows := data.faint[ids].nonzero()[:, 0]):
        tile[rows] = data.unit(ids[rows], center=False) @ data.unit(columns, center=False).T
    if len(rows := data.faint[columns].nonzero()[:, 0]):
        tile[:, rows] = data.unit(ids, center=False) @ data.unit(rows + columns.start, center=False).T


def _bar(items: range, progress: bool, what: str) -> Iterable[int]:
    return tqdm(items, desc=what, unit="panel", disable=not progress, leave=False)
