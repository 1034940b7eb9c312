"""The rows of a matrix, block by block, ready for products: checked, centered, scaled, never copied whole.

Products are taken of X_i = (W_i − μ)/s_i, μ the mean row. Raw and centered cosines both follow from X_i·X_j:

* centered: X_i·X_j · (s_i/d_i)(s_j/d_j), with d_i = |W_i − μ|;
* raw: X_i·X_j plus a matrix of rank two, where s_i = |W_i|.

The second is a difference of large numbers where |W_i| is far below |μ|. Such *faint* rows (untrained tokens) take
s_i = d_i, and their raw cosines are products of their own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from llmprobe.errors import TensorError

BLOCK_NUMBERS = 1 << 23  # numbers of W worked on at a time
FAINT = 1 / 16  # of the length of μ: rounding in a raw cosine of longer rows stays below 2^8 units in the last place
ROUNDING = 2.0**-44  # of its length by which a row equal to the mean may seem to differ from it


class Rows:
    """W as blocks of X_i, made when asked for, with the scales that turn products into cosines.

    Attributes
    ----------
    W, n, m
        The matrix, shape [n, m], never copied whole.
    kept
        Which of the rows given these are, shape [n]; None for all.
    norms, distances
        |W_i| and d_i = |W_i − μ|, the latter 0 for a row that equals the mean up to rounding; float64, shape [n].
    scale
        s_i, shape [n].
    centered_scale
        s_i / d_i, NaN for a row that equals the mean; shape [n].
    faint, has_faint
        Whether |W_i| is far below |μ|, bool of shape [n]; and whether any is.
    rank_two
        Columns h, g such that U_i·U_j = X_i·X_j + h_i g_j + g_i h_j between rows that are not faint; shape [n, 2].

    Raises
    ------
    TensorError
        Fewer than two rows, a value that is not finite, or (unless they are dropped) a zero row.
    """

    def __init__(self, W: Tensor, *, drop_zero_rows: bool = False) -> None:
        self.dtype = torch.float64 if W.dtype == torch.float64 else torch.float32
        self.W, self.norms, self.kept = _with_direction(W, drop_zero_rows)
        self.n, self.m = self.W.shape
        mean = torch.zeros(self.m, dtype=torch.float64, device=W.device)
        for _, block in self.blocks():
            mean += block.double().sum(0) / self.n
        # μ as a sum of two numbers of the working type: W − μ then keeps its digits where W_i is close to μ.
        self._mean = mean.to(self.dtype)
        self._rest = (mean - self._mean.double()).to(self.dtype)
        self._measure(mean)

    def _measure(self, mean: Tensor) -> None:
        size = float(mean.norm())
        direction = mean / size if size > 0 else mean
        self.distances, along = torch.empty_like(self.norms), torch.empty_like(self.norms)
        for where, block in self.blocks():
            self.distances[where] = _norms(self._minus_mean(block))
            along[where] = block.double() @ direction
        self.distances[self.distances <= ROUNDING * self.norms] = 0
        self.faint = self.norms < FAINT * size
        self.has_faint = bool(self.faint.any())
        scale = torch.where(self.faint, self.distances, self.norms)
        h, g = size / self.norms, (along - size / 2) / self.norms
        pair = torch.stack([h, g], dim=1).masked_fill_(self.faint[:, None], 0)
        self.scale, self.rank_two = scale.to(self.dtype), pair.to(self.dtype)
        self.centered_scale = (scale / self.distances.masked_fill(self.distances == 0, math.nan)).to(self.dtype)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """W in blocks of rows, in the type that products are taken in."""
        for where in self.slices():
            yield where, self.W[where].to(self.dtype)

    def slices(self) -> Iterator[slice]:
        """Where the blocks lie."""
        step = block_rows(self.m)
        for i in range(0, self.n, step):
            yield slice(i, min(i + step, self.n))

    def x(self, rows: slice | Tensor) -> Tensor:
        """X_i of some rows, shape [k, m]."""
        return self._minus_mean(_taken(self.W, rows).to(self.dtype)) / self.scale[rows, None]

    def unit(self, rows: slice | Tensor, *, center: bool) -> Tensor:
        """Unit rows U_i, of W or of W minus its mean row (NaN for a row that equals it); shape [k, m]."""
        if center:
            return self.x(rows) * self.centered_scale[rows, None]
        return _taken(self.W, rows).to(self.dtype) / self.norms[rows, None].to(self.dtype)

    def original(self, row: int) -> int:
        """The place of a row in the matrix given."""
        return row if self.kept is None else int(self.kept[row])

    def _minus_mean(self, block: Tensor) -> Tensor:
        return (block - self._mean).sub_(self._rest)


def block_rows(m: int) -> int:
    """Rows of width m worked on at a time."""
    return max(64, min(4096, BLOCK_NUMBERS // m))


def _taken(W: Tensor, rows: slice | Tensor) -> Tensor:
    """Some rows; of FP8 by their bytes, since older torch does not index it."""
    if isinstance(rows, slice) or W.element_size() > 1:
        return W[rows]
    return W.view(torch.uint8)[rows].view(W.dtype)


def _norms(block: Tensor) -> Tensor:
    wide = block.float() if block.dtype.itemsize == 1 else block  # FP8 does not go to float64 by itself
    return torch.linalg.vector_norm(wide, dim=1, dtype=torch.float64)


def _with_direction(W: Tensor, drop_zero_rows: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """W and its row norms, or W without its zero rows and which those left are."""
    if W.ndim != 2 or W.shape[0] < 2 or W.shape[1] < 1 or not W.is_floating_point():
        raise TensorError(
            f"a {W.dtype} tensor of shape {tuple(W.shape)}", expected="a float matrix [n, m] with n ≥ 2 rows"
        )
    # Written in place: small results kept between large temporaries would pin the heap's pages.
    norms, step = torch.empty(len(W), dtype=torch.float64, device=W.device), block_rows(W.shape[1])
    for i in range(0, len(W), step):
        norms[i : i + step] = _norms(W[i : i + step])
    broken = (~torch.isfinite(norms)).nonzero()[:, 0]
    if len(broken):
        raise TensorError(
            f"{len(broken)} of {len(W)} rows hold NaN or infinity, the first is row {int(broken[0])}",
            expected="finite weights",
            fix="the file is damaged or the model diverged: read it again or take another revision",
        )
    zero = norms == 0
    if not zero.any():
        return W, norms, None
    if not drop_zero_rows:
        first, count = int(zero.nonzero()[0, 0]), int(zero.sum())
        raise TensorError(
            f"{count} of {len(W)} rows are zero, the first is row {first}",
            expected="rows with a direction",
            fix="leave them out with --drop-zero-rows",
        )
    kept = (~zero).nonzero()[:, 0]
    if len(kept) < 2:
        raise TensorError(f"{len(kept)} of {len(W)} rows are not zero", expected="at least two rows with a direction")
    return _taken(W, kept), norms[kept], kept
