"""One tensor of a .gguf file, dequantised with the `gguf` package; the file is memory-mapped, not loaded."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import numpy as np
import torch

from llmprobe.errors import SourceError
from llmprobe.weights.tensor import StoredTensor

ROWS = 8192  # dequantised at a time, so that the quantised kinds' temporaries stay small


class GgufFile:
    """The tensors of one .gguf file.

    Raises
    ------
    SourceError
        The file is truncated or not GGUF.
    """

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        self.path, self.bytes_read = path, 0
        try:
            self._reader = GGUFReader(path)
        except (ValueError, IndexError, KeyError, struct.error, OverflowError, OSError) as error:
            raise SourceError(
                f"{path} is no readable GGUF file: {error}",
                fix="the file is truncated or corrupt: download it again",
            ) from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    @property
    def architecture(self) -> str:
        """``general.architecture``: ``llama``, ``gemma2``, ..."""
        field = self._reader.get_field("general.architecture")
        return str(field.contents()) if field else ""

    @property
    def split_count(self) -> int:
        """``split.count``: how many files the model was split into; 1 for a whole one."""
        field = self._reader.get_field("split.count")
        return int(field.contents()) if field else 1

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def read(self, name: str) -> StoredTensor:
        """The tensor in float32 (float16 and float32 stay as stored); `dtype` names the quantisation."""
        from gguf.quants import dequantize

        tensor, shape = self._tensors[name], self.shape(name)
        kind = tensor.tensor_type.name
        data = tensor.data
        if int(tensor.data_offset) + int(tensor.n_bytes) > self.path.stat().st_size:
            raise SourceError(f"{self.path} ends inside {name}", fix="the file is truncated: download it again")
        self.bytes_read += int(tensor.n_bytes)
        values = torch.empty(shape, dtype=torch.float32)
        try:
            for i in range(0, len(data), ROWS):
                block = dequantize(data[i : i + ROWS], tensor.tensor_type)
                values[i : i + ROWS] = torch.from_numpy(np.array(block, dtype=np.float32))
        except (NotImplementedError, ValueError) as error:
            raise SourceError(f"{name} in {self.path} is quantised as {kind}, which cannot be read: {error}") from error
        return StoredTensor(name, values, kind, hashlib.sha256(data.data).hexdigest())
