"""What stands at the front of a .gguf file: keys and values, and where each tensor lies.

Every length is checked against the file before it is believed, and tensors lie end to end as llama.cpp demands, so a
header that was damaged, cut or made up is refused in one line and in little time.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import LocalFile

VERSIONS = (2, 3)
DIMENSIONS = 4  # most of a tensor
NAME = 64  # bytes of a tensor's name, as in llama.cpp
NESTING = 8  # arrays in arrays
# Size and name of each kind of value; text and arrays carry their length.
FIXED = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
TEXT, ARRAY = 8, 9
Value = int | float | bool | str | None  # None stands for an array


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: its shape [rows, ..., columns], its ggml type's number, its first byte and their count."""

    shape: tuple[int, ...]
    kind: int
    start: int
    length: int


@dataclass(frozen=True)
class GgufHeader:
    """Keys with their values (None for arrays), and tensors by name."""

    values: dict[str, Value]
    tensors: dict[str, Place]


def read_header(path: Path) -> GgufHeader:
    """The header of a .gguf file.

    Raises
    ------
    SourceError
        The file is not GGUF, is truncated, or says what cannot be.
    """
    size = LocalFile(path).size  # refuses what is not a file, or not there
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Cursor(data, size).header()
    except (ValueError, IndexError, struct.error, OSError, OverflowError) as error:
        raise SourceError(
            f"{path} cannot be read as GGUF: {error}",
            fix="the file is truncated or corrupt: download it again",
        ) from error


class _Cursor:
    """A place in the file that moves on as values are read."""

    def __init__(self, data: mmap.mmap, size: int) -> None:
        self.data, self.size, self.at = data, size, 0

    def header(self) -> GgufHeader:
        if self.data[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self.at = 4
        version = self.number("<I")
        if version not in VERSIONS:
            raise ValueError(f"it is of version {version}, and {' and '.join(map(str, VERSIONS))} are known")
        tensors, keys = self.count(24), self.count(12)
        values: dict[str, Value] = {}
        for _ in range(keys):
            key = self.name()
            if key in values:
                raise ValueError(f"it has the key {key!r} twice")
            values[key] = self.value(self.number("<I"))
        alignment = values.get("general.alignment", 32)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            raise ValueError(f"its alignment is {alignment!r}, not a power of two")
        places = [self.tensor() for _ in range(tensors)]
        return GgufHeader(values, self.laid_out(places, alignment))

    def take(self, length: int) -> int:
        """Pass over `length` bytes; where they begin."""
        first = self.at
        if length > self.size - first:
            raise ValueError(f"it ends inside its header, at byte {self.size} of {first + length}")
        self.at += length
        return first

    def number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.data, self.take(struct.calcsize(form)))
        return value

    def count(self, smallest: int) -> int:
        """How many things follow, each of at least `smallest` bytes."""
        count = self.number("<Q")
        if count * smallest > self.size - self.at:
            raise ValueError(f"it announces {count} entries in {self.size - self.at} bytes")
        return count

    def name(self) -> str:
        """Text that names something: UTF-8, or `ValueError`."""
        length = self.number("<Q")
        first = self.take(length)
        return self.data[first : first + length].decode("utf-8")

    def text(self) -> str:
        length = self.number("<Q")
        first = self.take(length)
        return self.data[first : first + length].decode("utf-8", "backslashreplace")

    def texts(self) -> None:
        """Pass over an array of texts."""
        count, length_at = self.count(8), struct.Struct("<Q").unpack_from
        data, at, size = self.data, self.at, self.size
        for _ in range(count):
            at += 8 + length_at(data, at)[0]
            if at > size:
                raise ValueError(f"it ends inside an array of texts, at byte {size}")
        self.at = at

    def value(self, kind: int, depth: int = 0) -> Value:
        if kind in FIXED:
            return self.number(FIXED[kind])
        if kind == TEXT:
            return self.text()
        if kind != ARRAY or depth == NESTING:
            raise ValueError(f"it has a value of the unknown kind {kind}")
        inner = self.number("<I")
        if inner in FIXED:
            size = struct.calcsize(FIXED[inner])
            self.take(self.count(size) * size)
        elif inner == TEXT:
            self.texts()
        else:
            for _ in range(self.count(12)):
                self.value(inner, depth + 1)
        return None

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self.name()
        rank = self.number("<I")
        if len(name) > NAME or not 1 <= rank <= DIMENSIONS:
            raise ValueError(f"tensor {name[:NAME]!r} has {rank} dimensions")
        shape = tuple(self.number("<Q") for _ in range(rank))
        return name, tuple(reversed(shape)), self.number("<I"), self.number("<Q")

    def laid_out(self, found: list[tuple[str, tuple[int, ...], int, int]], alignment: int) -> dict[str, Place]:
        start = -(-self.at // alignment) * alignment
        places: dict[str, Place] = {}
        expected = 0
        for name, shape, kind, offset in found:
            length = n_bytes(shape, kind)
            if name in places:
                raise ValueError(f"it has the tensor {name!r} twice")
            if offset != expected:
                raise ValueError(f"tensor {name!r} is at byte {offset} of the data, where {expected} is due")
            if start + offset + length > self.size:
                raise ValueError(f"it ends inside {name!r}, at byte {self.size} of {start + offset + length}")
            places[name] = Place(shape, kind, start + offset, length)
            expected += -(-length // alignment) * alignment
        return places


def n_bytes(shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor of this shape and ggml type; `ValueError` if there is no such tensor."""
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    if 0 in shape or shape[-1] % block:
        raise ValueError(f"a tensor of shape {list(shape)} does not consist of blocks of {block}")
    return math.prod(shape) // block * size
