"""The toy model of superposition, y = ReLU(W Wᵀ x + b), and its gradients in closed form.

W (n×m) and b are kept as one array P = [W | b] of shape [R, n, m+1] for R replicas: with h = [Wᵀx | 1] the outputs
are y = ReLU(P h), the bias comes with the product, and its gradient too. For the loss L = Σ_j I_j (y_j − x_j)²,
with d = 2 I ⊙ (y − x) where y > 0 and 0 elsewhere,

    ∂L/∂P = d hᵀ + x gᵀ,    g = Wᵀ d,

summed over the batch. The work follows what is there, exactly:

* x has about E entries per row, so Wᵀx and x gᵀ are sums over events (`gather_sum`);
* rows without an active feature all give relu(b): done once, with their count;
* d is zero where the output is silent. While many outputs fire, three dense products per block of rows are
  fastest (`dense_gradient`); once they are rare, one product finds them and the rest is a sum over them
  (`sparse_gradient`). `Gradient` takes whichever the density of firing outputs asks for.

Source: arXiv:2505.10465, section 3, after Elhage et al. 2022.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from toymodels.superposition.features import Batch
from toymodels.superposition.sparse import Finder, stable_order

# share of firing outputs below which summing over them beats dense products on a CPU: measured, linear in m
SPARSE_BELOW = (0.010, 0.0006)
CACHE_BYTES = 2**20  # one block of outputs on a CPU: about a core's second-level cache
LEAST_ROWS = 128  # of such a block: with fewer, adding to the gradient costs more than the cache saves
DEVICE_BYTES = 2**31  # one block of outputs on a GPU
LOOK_AGAIN = 32  # dense steps between two looks at the density


def gather_sum(
    table: Float[Tensor, "rows width"],
    index: Int[Tensor, " events"],
    start: Int[Tensor, " bags"],
    weight: Float[Tensor, " events"],
) -> Float[Tensor, "bags width"]:
    """Σ weight · table[index] over each bag of consecutive events; bag k begins at start[k]. Deterministic."""
    # the operator itself: the checks of torch.nn.functional's wrapper would cost a twentieth of a sparse step
    return torch.embedding_bag(table, index, start, False, 0, False, weight)[0]


def forward(P: Float[Tensor, "R n m1"], x: Float[Tensor, "R rows n"]) -> Float[Tensor, "R rows n"]:
    """y = ReLU(W Wᵀ x + b), written as in the paper: the reference for everything below."""
    W, b = P[..., :-1], P[..., -1]
    return torch.relu(x @ W @ W.mT + b[:, None, :])


class Gradient:
    """Loss and gradient of one batch after another, dense or sparse by the measured density of firing outputs.

    Parameters
    ----------
    importance
        I_j, shape [n], or None for 1.
    block_bytes
        Size of the largest intermediate array; the batch is cut into blocks to fit. None chooses by device.
    compiled
        Let `torch.compile` fuse the passes over the outputs, of which a GPU has many; the first step takes a minute.

    Attributes
    ----------
    density
        Share of outputs that fired when last counted (1 before the first look). Set it when resuming a run.
    """

    def __init__(
        self, importance: Float[Tensor, " n"] | None = None, block_bytes: int | None = None, *, compiled: bool = False
    ) -> None:
        self.importance, self.block_bytes = importance, block_bytes
        self._residual = torch.compile(residual, dynamic=True) if compiled else residual
        self.density, self._dense_steps = 1.0, 0
        self._outputs: Tensor | None = None
        self._find = Finder(block_bytes or CACHE_BYTES)

    def __call__(self, P: Float[Tensor, "R n m1"], batch: Batch) -> tuple[Float[Tensor, " R"], Float[Tensor, "R n m1"]]:
        """Σ over the batch of the loss, and of its gradient with respect to P = [W | b].

        Divide by the number of rows for means.
        """
        R, n, width = P.shape
        h = gather_sum(P.view(R * n, width), batch.unit, batch.slot_start, batch.value)
        h[:, -1] = batch.occupied
        if R == 1 and P.device.type == "cpu" and self.density < SPARSE_BELOW[0] + SPARSE_BELOW[1] * (width - 1):
            loss, grad, g = self.sparse_gradient(P, h, batch)
        else:
            loss, grad, g = self.dense_gradient(P, h, batch)
        g[:, -1] = 0  # b has no part in h
        grad += gather_sum(g, batch.unit_slot, batch.unit_start, batch.unit_value).view(R, n, width)
        silent = torch.relu(P[..., -1])
        weighted = silent if self.importance is None else silent * self.importance
        loss += batch.empty * (silent * weighted).sum(-1)
        grad[..., -1] += 2 * batch.empty[:, None] * weighted
        return loss, grad

    def state(self) -> list[float]:
        """What decides between dense and sparse: to be kept with a checkpoint, see `restore`."""
        return [self.density, float(self._dense_steps)]

    def restore(self, state: Sequence[float]) -> None:
        """Resume where `state` was taken."""
        self.density, self._dense_steps = float(state[0]), int(state[1])

    def dense_gradient(
        self, P: Float[Tensor, "R n m1"], h: Float[Tensor, "slots m1"], batch: Batch
    ) -> tuple[Float[Tensor, " R"], Float[Tensor, "R n m1"], Float[Tensor, "slots m1"]]:
        """Loss, d hᵀ and g = Wᵀd of the occupied rows by products of blocks of rows.

        Both products back are made transposed: with n as the long side they are up to four times faster on a CPU.
        """
        R, n, width = P.shape
        rows = batch.rows
        h = h.view(R, rows, width)
        loss, turned, g = P.new_zeros(R), P.new_zeros(R, width, n), torch.empty_like(h)
        if P.device.type == "cpu":
            self._dense_steps += 1
        look = self._dense_steps % LOOK_AGAIN == 1
        firing = 0
        for replicas, part, events in self._blocks(P, batch):
            hb, Pb = h[replicas, part], P[replicas]
            count, height = hb.shape[:2]
            y = self._buffer(P, count * height * n).view(count, height, n)
            torch.bmm(hb, Pb.mT, out=y)
            first = replicas.start * rows + part.start
            at = (batch.slot[events] - first) * n + batch.unit[events] % n
            if look:
                firing += int(torch.count_nonzero(y > 0))
            loss[replicas] += self._residual(y, at, batch.value[events], self.importance)
            turned[replicas].baddbmm_(hb.mT, y)
            g[replicas, part] = torch.bmm(Pb.mT, y.mT).mT
        if look:
            self.density = firing / max(1, R * rows * n)
        return loss, turned.mul_(2).mT.contiguous(), g.view(-1, width).mul_(2)

    def sparse_gradient(
        self, P: Float[Tensor, "1 n m1"], h: Float[Tensor, "slots m1"], batch: Batch
    ) -> tuple[Float[Tensor, " 1"], Float[Tensor, "1 n m1"], Float[Tensor, "slots m1"]]:
        """The same by visiting the outputs that fire, on one replica on a CPU."""
        n, rows = P.shape[1], batch.rows
        firing = self._find(P[0], h, batch)
        row, column, d = firing.row, firing.column, firing.value
        x, unit = batch.value.numpy(), batch.unit.numpy()
        active, here = batch.slot.numpy() * n + unit, row * n + column
        match = active.searchsorted(here)
        match[match == len(active)] = 0
        hit = (active[match] == here).nonzero()[0] if len(active) else match
        match = match[hit]
        d[hit] -= x[match]  # d holds y, and now y − x
        missed = x.copy()
        missed[match] = 0
        if self.importance is None:
            loss = float(missed @ missed) + float(d @ d)
        else:
            importance = self.importance.numpy()
            loss = float(missed**2 @ importance[unit]) + float(d**2 @ importance[column])
            d *= importance[column]
        d *= 2
        g = gather_sum(P[0], *_bags(column, row, rows, d))
        order = stable_order(column, n)
        grad = gather_sum(h, *_bags(row[order], column[order], n, d[order]))
        self.density = len(row) / (rows * n)
        return P.new_tensor([loss]), grad[None], g

    def _height(self, P: Tensor, n: int) -> int:
        row = n * P.element_size()
        budget = self.block_bytes or (max(CACHE_BYTES, LEAST_ROWS * row) if P.device.type == "cpu" else DEVICE_BYTES)
        return max(1, budget // row)

    def _buffer(self, P: Tensor, size: int) -> Tensor:
        kept = self._outputs
        if kept is None or len(kept) < size or kept.dtype != P.dtype:
            kept = self._outputs = P.new_empty(size)
        return kept[:size]

    def _blocks(self, P: Tensor, batch: Batch) -> list[tuple[slice, slice, slice]]:
        """Blocks (replicas, rows, events): several whole replicas, or some rows of one."""
        R, n, rows = P.shape[0], P.shape[1], batch.rows
        height = self._height(P, n)
        together = height // rows
        if together:
            cuts = [(slice(r, min(r + together, R)), slice(0, rows)) for r in range(0, R, together)]
        else:
            parts = [slice(a, min(a + height, rows)) for a in range(0, rows, height)]
            cuts = [(slice(r, r + 1), part) for r in range(R) for part in parts]
        if len(cuts) == 1:
            return [(*cuts[0], slice(0, len(batch.slot)))]
        first = torch.tensor([r.start * rows + part.start for r, part in cuts], device=batch.slot_start.device)
        starts = [*batch.slot_start[first].tolist(), len(batch.slot)]
        return [(r, part, slice(*starts[k : k + 2])) for k, (r, part) in enumerate(cuts)]


def residual(
    y: Float[Tensor, "R rows n"],
    at: Int[Tensor, " events"],
    value: Float[Tensor, " events"],
    importance: Float[Tensor, " n"] | None,
) -> Float[Tensor, " R"]:
    """Pre-activations become d/2 = I (ReLU(y) − x) where y > 0 and 0 elsewhere, in place; gives the loss.

    The active features' amplitudes `value` lie at the flat places `at` of x.
    """
    flat = y.clamp_min_(0).view(-1)
    fired = flat[at]
    flat[at] = fired - value
    if importance is None:
        loss = _square(y)
    else:
        whole = y.clone()
        y *= importance
        loss = (y * whole).sum((1, 2))
    flat[at] = flat[at].masked_fill_(fired <= 0, 0)
    return loss


def _square(y: Float[Tensor, "R rows n"]) -> Float[Tensor, " R"]:
    if len(y) == 1:
        flat = y.view(-1)
        return flat.dot(flat)[None]
    return torch.linalg.vector_norm(y.flatten(1), dim=1).square()


def _bags(index: np.ndarray, bag: np.ndarray, count: int, weight: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments of `gather_sum` for entries sorted by bag."""
    size = np.bincount(bag, minlength=count)
    return torch.from_numpy(index), torch.from_numpy(size.cumsum() - size), torch.from_numpy(weight)
