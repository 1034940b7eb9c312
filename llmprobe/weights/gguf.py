"""One tensor of a .gguf file, dequantized with the `gguf` package; only its bytes are read."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import torch

from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import LocalFile
from llmprobe.weights.gguf_header import read_header
from llmprobe.weights.tensor import StoredTensor

ROWS = 8192  # dequantized at a time, so that the quantized kinds' temporaries stay small


class GgufFile:
    """The tensors of one .gguf file.

    Raises
    ------
    SourceError
        The file is truncated or not GGUF.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.bytes_read = path, 0
        self._source = LocalFile(path)
        self._header = read_header(path)

    @property
    def architecture(self) -> str:
        """``general.architecture``: ``llama``, ``gemma2``, ..."""
        return str(self._header.values.get("general.architecture") or "")

    @property
    def split_count(self) -> int:
        """``split.count``: how many files the model was split into; 1 for a whole one."""
        count = self._header.values.get("split.count")
        return count if isinstance(count, int) and count > 0 else 1

    def names(self) -> list[str]:
        return list(self._header.tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._header.tensors[name].shape

    def read(self, name: str) -> StoredTensor:
        """The tensor in float32 (float16 and float32 stay as stored); `dtype` names the quantization."""
        from gguf.constants import GGMLQuantizationType
        from gguf.quants import dequantize

        place, kind = self._header.tensors[name], GGMLQuantizationType(self._header.tensors[name].kind)
        data = np.frombuffer(self._source.read(place.start, place.length), dtype=np.uint8)
        self.bytes_read += place.length
        rows = data.reshape(math.prod(place.shape[:-1]), -1)
        values = torch.empty(len(rows), place.shape[-1], dtype=torch.float32)
        try:
            for i in range(0, len(rows), ROWS):
                block = dequantize(rows[i : i + ROWS], kind)
                values[i : i + ROWS] = torch.from_numpy(np.array(block, dtype=np.float32))
        except (NotImplementedError, ValueError, TypeError) as error:
            raise SourceError(
                f"{name} in {self.path} is quantized as {kind.name}, which cannot be read: {error}"
            ) from error
        return StoredTensor(name, values.reshape(place.shape), kind.name, hashlib.sha256(data.data).hexdigest())
