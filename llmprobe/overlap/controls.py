"""Matrices that nobody trained, to hold a trained one against."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def gaussian_rows(W: Float[Tensor, "n m"], *, seed: int = 0) -> Float[Tensor, "n m"]:
    """Rows in random directions, with the norms of W.

    Parameters
    ----------
    W
        Matrix, shape [n, m], on any device.
    seed
        Of the directions.

    Returns
    -------
    Shape [n, m], float32 on the CPU; a row of W that is zero stays zero.
    """
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(W.shape, generator=generator)
    lengths = torch.linalg.vector_norm(W, dim=1, dtype=torch.float64).cpu()
    scale = (lengths / torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)).float()
    return rows.mul_(scale[:, None])
