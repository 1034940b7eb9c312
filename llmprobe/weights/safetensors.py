"""One tensor of a .safetensors file: the header says where its bytes lie, so only they are read.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes at ``data_offsets``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import torch

from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import ByteSource
from llmprobe.weights.tensor import StoredTensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
HEADER_LIMIT = 100 << 20  # the format's own limit


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class SafetensorsFile:
    """The tensors of one .safetensors file, on disk or at the Hub.

    Raises
    ------
    SourceError
        The file is truncated or its header is not that of a safetensors file.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self._entries = self._header()

    def names(self) -> list[str]:
        return list(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def read(self, name: str) -> StoredTensor:
        """The tensor as stored.

        Raises
        ------
        SourceError
            Its type is not a float, or its bytes are not where the header says.
        """
        entry = self._entries[name]
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise SourceError(
                f"{name} in {self.source.name} is stored as {entry.dtype}",
                expected=f"one of {', '.join(DTYPES)}",
                fix="quantised weights are not measured: take the unquantised model",
            )
        length = entry.stop - entry.start
        if length != math.prod(entry.shape) * dtype.itemsize:
            raise self._corrupt(f"{name} has {length} bytes for shape {list(entry.shape)} of {entry.dtype}")
        data = self.source.read(entry.start, length)
        return StoredTensor.from_bytes(name, data, dtype, entry.shape)

    def _header(self) -> dict[str, _Entry]:
        if self.source.size < 8:
            raise self._corrupt(f"it has only {self.source.size} bytes")
        # One read serves the length and, for most files, the whole header.
        head = self.source.read(0, min(self.source.size, 64 << 10))
        length = int.from_bytes(head[:8], "little")
        if not 2 <= length <= min(HEADER_LIMIT, self.source.size - 8):
            raise self._corrupt(f"its first 8 bytes give a header of {length} bytes")
        if 8 + length > len(head):
            head += self.source.read(len(head), 8 + length - len(head))
        try:
            table = json.loads(head[8 : 8 + length])
            table.pop("__metadata__", None)
            base = 8 + length
            return {
                name: _Entry(
                    str(entry["dtype"]),
                    tuple(int(size) for size in entry["shape"]),
                    base + int(entry["data_offsets"][0]),
                    base + int(entry["data_offsets"][1]),
                )
                for name, entry in table.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise self._corrupt(f"its header cannot be read ({error})") from error

    def _corrupt(self, what: str) -> SourceError:
        return SourceError(
            f"{self.source.name} is no readable safetensors file: {what}",
            expected="an 8-byte length, a JSON header, then the tensors",
            fix="the file is truncated or corrupt: download it again",
        )
