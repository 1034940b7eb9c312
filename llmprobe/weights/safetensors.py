"""One tensor of a .safetensors file: the header says where its bytes lie, so only they are read.

Format: 8 bytes little-endian header length, a JSON header, then the tensors' bytes at ``data_offsets``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from llmprobe.errors import SourceError
from llmprobe.names import printable
from llmprobe.weights.byte_source import ByteSource, parsed_json
from llmprobe.weights.tensor import StoredTensor

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
# Bits of every type the format knows: the layout of what is not read is checked too.
BITS = {code: 8 * dtype.itemsize for code, dtype in DTYPES.items()} | {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16, "U32": 32,
    "I32": 32, "U64": 64, "I64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
HEADER_LIMIT = 100 << 20  # the format's own limit
FRONT = 4096  # bytes read first


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
        The file is truncated, or the reference reader would refuse its header.
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
                fix="quantized weights are not measured: take the unquantized model",
            )
        if 0 in entry.shape:
            raise SourceError(
                f"{name} in {self.source.name} has shape {list(entry.shape)}", expected="at least one value"
            )
        data = self.source.read(entry.start, entry.stop - entry.start)
        return StoredTensor.from_bytes(name, data, dtype, entry.shape)

    def _header(self) -> dict[str, _Entry]:
        if self.source.size < 8:
            raise self._corrupt(f"it has only {self.source.size} bytes")
        head = self.source.read(0, min(self.source.size, FRONT))  # the length, and perhaps the whole header
        length = int.from_bytes(head[:8], "little")
        if not 2 <= length <= min(HEADER_LIMIT, self.source.size - 8):
            raise self._corrupt(f"its first 8 bytes give a header of {length} bytes")
        if 8 + length > len(head):
            head += self.source.read(len(head), 8 + length - len(head))
        table = parsed_json(self.source, head[8 : 8 + length])
        if not isinstance(table, dict):
            raise self._corrupt("its header is not a table")
        self._check_metadata(table.pop("__metadata__", None))
        entries = {name: self._entry(name, entry, 8 + length) for name, entry in table.items()}
        self._check_layout(entries, 8 + length)
        return entries

    def _entry(self, name: str, entry: Any, base: int) -> _Entry:
        try:
            dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
            sizes = [*shape, start, stop]
        except (KeyError, TypeError, ValueError) as error:
            raise self._corrupt(f"its entry of {name} cannot be read ({error})") from error
        if not isinstance(dtype, str) or not isinstance(shape, list) or set(entry) - {"dtype", "shape", "data_offsets"}:
            raise self._corrupt(f"its entry of {name} is not one of dtype, shape and data_offsets")
        if any(type(size) is not int or not 0 <= size < 1 << 63 for size in sizes):
            raise self._corrupt(f"shape {shape} at {[start, stop]} of {name} holds what is not a size")
        if (bits := BITS.get(dtype)) is None:
            raise self._corrupt(f"{name} is of the unknown type {printable(dtype)}")
        if 8 * (stop - start) != math.prod(shape) * bits:
            raise self._corrupt(f"{name} has {stop - start} bytes for shape {shape} of {dtype}")
        return _Entry(dtype, tuple(shape), base + start, base + stop)

    def _check_metadata(self, notes: Any) -> None:
        if notes is not None and not (isinstance(notes, dict) and all(isinstance(v, str) for v in notes.values())):
            raise self._corrupt("its __metadata__ is not a table of texts")

    def _check_layout(self, entries: Mapping[str, _Entry], base: int) -> None:
        """Tensors lie end to end from the header to the end of the file: what shifted or lost bytes breaks this."""
        at, last = base, "the header"
        for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start != at or entry.stop < at:
                raise self._corrupt(f"{name} begins at byte {entry.start}, where {last} ends at {at}")
            at, last = entry.stop, name
        if at != self.source.size:
            raise self._corrupt(f"its tensors end at byte {at} of {self.source.size}")

    def _corrupt(self, what: str) -> SourceError:
        return SourceError(
            f"{self.source.name} cannot be read as safetensors: {what}",
            expected="an 8-byte length, a JSON header, then the tensors",
            fix="the file is truncated or corrupt: download it again",
        )
