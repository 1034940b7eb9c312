"""Finding the outputs of ReLU(P h) that fire, without computing those that provably cannot.

Once a model is trained about one output in five hundred fires. Two exact arguments rule most of the rest out:

* |W_j·h| ≤ |W_j||h|, so output j is silent in every row with |h| ≤ −b_j/|W_j|. With rows in order of |h| and
  features in order of that threshold, what may fire is a staircase.
* A row with a single active feature i of amplitude u has z_j = u W_i·W_j + b_j. Rows that share i lie on one ray, and
  where b_j ≤ 0 an output silent in the longest of them is silent in all: only the longest is computed, and the
  others follow from it as z_j = (u/u_max)(z_max,j − b_j) + b_j.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.superposition.features import Batch

BLOCK_ROWS = 256  # fewer rows follow the staircase closer, more cost fewer calls


@dataclass(frozen=True)
class Firing:
    """Outputs above zero: their slots, features and values, in order of slots."""

    row: Int[np.ndarray, " firing"]
    column: Int[np.ndarray, " firing"]
    value: Float[np.ndarray, " firing"]


class Finder:
    """Finds what fires, batch after batch, in buffers kept between calls.

    Parameters
    ----------
    block_bytes
        Size of one block of outputs.
    """

    def __init__(self, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self._outputs, self._above = torch.empty(0), np.empty(0, dtype=bool)

    def __call__(self, P: Float[Tensor, "n m1"], h: Float[Tensor, "slots m1"], batch: Batch) -> Firing:
        """Outputs of ReLU(P h) above zero; P = [W | b], h = [Wᵀx | 1] by slot, for one replica on a CPU."""
        bias = P[:, -1].numpy()  # [n]
        reach, threshold = _bounds(h, P)  # [slots], [n]
        rays = _Rays.of(batch)
        every = np.arange(len(P))
        found = [self._staircase(P, h, rays.computed, every, reach, threshold)]
        positive = (bias > 0).nonzero()[0]
        if len(positive) and len(rays.member):
            found.append(self._staircase(P, h, rays.member, positive, reach, threshold))
        row, column, value = found[0]
        found.append(rays.followers(row, column, value, bias))
        row, column, value = (np.concatenate(part) for part in zip(*found, strict=True))
        order = stable_order(row, len(h))
        return Firing(row[order], column[order], value[order])

    def _staircase(
        self, P: Tensor, h: Tensor, rows: np.ndarray, columns: np.ndarray, reach: np.ndarray, threshold: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = rows[reach[rows].argsort()]
        columns = columns[threshold[columns].argsort()]
        widths = threshold[columns].searchsorted(reach[rows])  # [rows]: columns that a row may fire
        # index_select copies rows several times faster than indexing does
        h = h.index_select(0, torch.from_numpy(rows))  # [rows, m + 1]
        P = P.index_select(0, torch.from_numpy(columns)).T  # [m + 1, columns]
        limit = self.block_bytes // P.element_size()
        none = np.empty(0, dtype=np.int64)
        found = [(none, none, np.empty(0, dtype=h.numpy().dtype))]
        first = 0
        while first < len(rows):
            last = min(first + BLOCK_ROWS, len(rows))
            last = max(first + 1, min(last, first + limit // max(1, int(widths[last - 1]))))
            width = int(widths[last - 1])
            if width:
                place, value = self._above_zero(h[first:last], P[:, :width])
                row = place // width  # [firing], within the block
                found.append((rows[row + first], columns[place - row * width], value))
            first = last
        row, column, value = (np.concatenate(part) for part in zip(*found, strict=True))
        return row, column, value

    def _above_zero(self, h: Tensor, PT: Tensor) -> tuple[np.ndarray, np.ndarray]:
        size = h.shape[0] * PT.shape[1]
        if len(self._above) < size or self._outputs.dtype != h.dtype:
            self._outputs, self._above = h.new_empty(size), np.empty(size, dtype=bool)
        flat = self._outputs[:size]  # [rows · width], a block of outputs laid out flat
        torch.mm(h, PT, out=flat.view(h.shape[0], -1))  # [rows, width]
        values = flat.numpy()
        place = np.greater(values, 0, out=self._above[:size]).nonzero()[0]  # [firing]
        return place, values[place]


@dataclass(frozen=True)
class _Rays:
    """Rows that share their single active feature, each ray led by its longest row.

    `computed` are the slots to compute: leaders, and rows with several features. `member` are the others, grouped
    by ray, at the share `ratio` of their leader; those of leader s are member[start[s] : start[s] + count[s]].
    """

    computed: np.ndarray
    member: np.ndarray
    ratio: np.ndarray
    start: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, batch: Batch) -> _Rays:
        begin, unit, value = batch.slot_start.numpy(), batch.unit.numpy(), batch.value.numpy()  # [slots], [events] × 2
        slots = len(begin)
        sizes = _gaps(begin, len(unit))  # [slots]: active features of each
        single = (sizes == 1).nonzero()[0]  # [singles]
        amplitude, feature = value[begin[single]], unit[begin[single]]  # [singles] each
        # longest first within each feature: a stable sort by feature after one by falling amplitude
        order = (-amplitude).argsort()
        order = order[stable_order(feature[order], int(unit.max(initial=0)) + 1)]
        slot, amplitude, feature = single[order], amplitude[order], feature[order]  # [singles] each
        leads = np.ones(len(slot), dtype=bool)
        leads[1:] = feature[1:] != feature[:-1]
        leader = leads.nonzero()[0]  # [rays]
        length = _gaps(leader, len(slot)) - 1  # [rays]: members beside the leader
        member = ~leads  # [singles]
        longest = amplitude[leader].repeat(length)  # [members]
        ratio = np.divide(amplitude[member], longest, out=np.zeros_like(longest), where=longest > 0)  # [members]
        start, count = np.zeros(slots, dtype=np.int64), np.zeros(slots, dtype=np.int64)  # [slots] each
        start[slot[leader]], count[slot[leader]] = leader - np.arange(len(leader)), length
        computed = np.concatenate([(sizes > 1).nonzero()[0], slot[leader]])  # [several + rays]
        return cls(computed, slot[member], ratio, start, count)

    def followers(
        self, row: np.ndarray, column: np.ndarray, value: np.ndarray, bias: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What fires on the members of rays where the bias is not positive, given what fires on their leaders."""
        led = (self.count[row] > 0) & (bias[column] <= 0)  # [firing]
        row, column, value = row[led], column[led], value[led]  # [led] each
        count = self.count[row]  # [led]
        ends = count.cumsum()
        index = np.arange(ends[-1] if len(ends) else 0) + (self.start[row] - (ends - count)).repeat(count)
        offset = bias[column]  # [led]
        z = self.ratio[index] * (value - offset).repeat(count) + offset.repeat(count)  # [followers]
        fires = (z > 0).nonzero()[0]
        return self.member[index[fires]], column.repeat(count)[fires], z[fires]


def stable_order(index: Int[np.ndarray, " entries"], count: int) -> Int[np.ndarray, " entries"]:
    """Order that sorts integers below `count`, equal ones kept as they stand; 16 bits sort by counting."""
    return (index.astype(np.uint16) if count <= 2**16 else index).argsort(kind="stable")


def _gaps(start: np.ndarray, end: int) -> np.ndarray:
    """How far each of some ascending places lies from the next, the last from `end`."""
    gaps = np.empty_like(start)
    np.subtract(start[1:], start[:-1], out=gaps[:-1])
    gaps[-1:] = end - start[-1:]
    return gaps


def _bounds(h: Tensor, P: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """|h| of each row, and the |h| up to which each output is silent, rounding errors allowed for."""
    slack = 1 + 4 * P.shape[1] * torch.finfo(P.dtype).eps
    reach = torch.linalg.vector_norm(h[:, :-1], dim=1).mul_(slack)  # [slots]
    norm = torch.linalg.vector_norm(P[:, :-1], dim=1).clamp_min_(torch.finfo(P.dtype).tiny)  # [n]
    return reach.numpy(), (-P[:, -1] / norm).numpy()
