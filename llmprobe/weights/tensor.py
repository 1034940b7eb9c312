"""A tensor with what is known of how it was stored."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as its file holds it.

    Attributes
    ----------
    name, values
        Its name in the file and its values.
    dtype
        The stored type's name: ``float32``, ``bfloat16``, ``Q8_0``, ...
    sha256
        Of the stored bytes.
    """

    name: str
    values: Tensor
    dtype: str
    sha256: str

    @classmethod
    def from_bytes(cls, name: str, data: bytearray, dtype: torch.dtype, shape: tuple[int, ...]) -> StoredTensor:
        """Take `data` over without copying it."""
        values = torch.frombuffer(data, dtype=dtype).reshape(shape)
        return cls(name, values, str(dtype).removeprefix("torch."), hashlib.sha256(data).hexdigest())
