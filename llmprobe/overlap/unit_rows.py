"""The rows of a matrix, block by block, ready for products: checked, centred, normalised, never copied whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import torch
from torch import Tensor

from llmprobe.errors import TensorError

BLOCK = 4096  # rows at a time


class Rows:
    """W as blocks of X_i = (W_i − μ)/|W_i|, made when asked for, with the scales that turn X into cosines.

    Attributes
    ----------
    W, n, m
        The matrix, shape [n, m], never copied whole.
    mean
        μ, the mean row; shape [m].
    norms, inverse
        |W_i| in float64 and 1/|W_i|; shape [n].
    centred_scale
        |W_i| / |W_i − μ|, NaN for a row that equals the mean; shape [n].

    Raises
    ------
    TensorError
        Fewer than two rows, a value that is not finite, or (unless they are dropped) a zero row.
    """

    def __init__(self, W: Tensor, *, drop_zero_rows: bool = False) -> None:
        self.dtype = torch.float64 if W.dtype == torch.float64 else torch.float32
        self.W, self.norms = _with_direction(W, self.dtype, drop_zero_rows)
        self.n, self.m = self.W.shape
        self.inverse = (1 / self.norms).to(self.dtype)

    @cached_property
    def mean(self) -> Tensor:
        total = torch.zeros(self.m, dtype=torch.float64, device=self.W.device)
        for _, block in self.blocks():
            total += block.double().sum(0)
        return (total / self.n).to(self.dtype)

    @cached_property
    def centred_scale(self) -> Tensor:
        centred = torch.empty_like(self.norms)
        for where, block in self.blocks():
            centred[where] = _norms(block - self.mean)
        degenerate = centred <= 8 * torch.finfo(self.dtype).eps * self.norms
        return (self.norms / centred.masked_fill(degenerate, math.nan)).to(self.dtype)

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """W in blocks of rows, in the type that products are taken in."""
        for i in range(0, self.n, BLOCK):
            yield slice(i, i + BLOCK), self.W[i : i + BLOCK].to(self.dtype)

    def x(self, rows: slice | Tensor) -> Tensor:
        """X_i of some rows, shape [k, m]."""
        return (self.W[rows].to(self.dtype) - self.mean) * self.inverse[rows, None]

    def unit(self, rows: slice | Tensor, *, center: bool) -> Tensor:
        """Unit rows U_i, of W or of W minus its mean row."""
        if center:
            return self.x(rows) * self.centred_scale[rows, None]
        return self.W[rows].to(self.dtype) * self.inverse[rows, None]

    def rank_two(self, rows: slice | Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors h, g such that U_i·U_j = X_i·X_j + h_i g_j + g_i h_j."""
        h = self.inverse[rows]
        return h, torch.mv(x, self.mean) + 0.5 * h * self.mean.dot(self.mean)


def _norms(block: Tensor) -> Tensor:
    return torch.linalg.vector_norm(block, dim=1, dtype=torch.float64)


def _with_direction(W: Tensor, dtype: torch.dtype, drop_zero_rows: bool) -> tuple[Tensor, Tensor]:
    """W and its row norms, or W without its zero rows."""
    if W.ndim != 2 or W.shape[0] < 2 or W.shape[1] < 1 or not W.is_floating_point():
        raise TensorError(
            f"a {W.dtype} tensor of shape {tuple(W.shape)}", expected="a float matrix [n, m] with n ≥ 2 rows"
        )
    # Written in place: small results kept between large temporaries would pin the heap's pages.
    norms = torch.empty(len(W), dtype=torch.float64, device=W.device)
    for i in range(0, len(W), BLOCK):
        norms[i : i + BLOCK] = _norms(W[i : i + BLOCK].to(dtype))
    broken = (~torch.isfinite(norms)).nonzero()[:, 0]
    if len(broken):
        raise TensorError(
            f"{len(broken)} of {len(W)} rows hold NaN or infinity, the first is row {int(broken[0])}",
            expected="finite weights",
            fix="the file is damaged or the model diverged: read it again or take another revision",
        )
    zero = norms == 0
    if not zero.any():
        return W, norms
    if not drop_zero_rows:
        first, count = int(zero.nonzero()[0, 0]), int(zero.sum())
        raise TensorError(
            f"{count} of {len(W)} rows are zero, the first is row {first}",
            expected="rows with a direction",
            fix="leave them out with --drop-zero-rows",
        )
    return _with_direction(W[~zero], dtype, drop_zero_rows=False)
