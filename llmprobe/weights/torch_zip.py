"""One tensor of a torch .bin file (a zip of a pickle and raw storages), without executing the pickle.

The zip's directory and the small pickle are read, and torch's own restricted loader (``weights_only=True``) is
given a copy of the zip whose storages are empty. Under `FakeTensorMode` it builds shapes, strides and record
names only; the one storage that is wanted is then read by range.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import ByteSource
from llmprobe.weights.tensor import StoredTensor

LOCAL_HEADER = struct.Struct("<4s2B4HL2L2H")  # of a zip member; its last two fields are the lengths that follow
CHUNK = 64 << 10


class TorchZipFile:
    """The tensors of one .bin file, on disk or at the Hub.

    Raises
    ------
    SourceError
        The file is truncated, is not a torch zip (files written before torch 1.6 are not), or its pickle asks
        for anything but tensors.
    """

    def __init__(self, source: ByteSource) -> None:
        self.source = source
        self._tensors, self._records = self._directory()

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> StoredTensor:
        """The tensor as stored; `SourceError` if it is not a float or its bytes are missing."""
        tensor = self._tensors[name]
        if not tensor.is_floating_point():
            raise SourceError(f"{name} in {self.source.name} is stored as {tensor.dtype}", expected="a float type")
        member = self._records[tensor.untyped_storage()._checkpoint_offset]  # type: ignore[index]
        header = self.source.read(member.header_offset, LOCAL_HEADER.size)
        *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
        start = member.header_offset + LOCAL_HEADER.size + name_length + extra_length
        span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        itemsize = tensor.dtype.itemsize
        first = tensor.storage_offset() * itemsize
        if first + span * itemsize > member.file_size:
            raise SourceError(f"{name} reaches past its record {member.filename} in {self.source.name}")
        data = self.source.read(start + first, span * itemsize)
        if tensor.is_contiguous():
            return StoredTensor.from_bytes(name, data, tensor.dtype, tuple(tensor.shape))
        flat = StoredTensor.from_bytes(name, data, tensor.dtype, (span,))
        values = flat.values.as_strided(tensor.shape, tensor.stride()).contiguous()
        return StoredTensor(name, values, flat.dtype, flat.sha256)

    def _directory(self) -> tuple[dict[str, torch.Tensor], dict[int, zipfile.ZipInfo]]:
        try:
            with zipfile.ZipFile(_Seekable(self.source)) as archive:
                members = archive.infolist()
                if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                    raise SourceError(f"{self.source.name} is a compressed zip", expected="a zip written by torch.save")
                skeleton, records = _skeleton(archive, members)
        except (zipfile.BadZipFile, EOFError, struct.error) as error:
            raise SourceError(
                f"{self.source.name} is no readable torch zip: {error}",
                expected="a file written by torch.save since torch 1.6",
                fix="the file is truncated, corrupt or in the old format: take another revision or convert it",
            ) from error
        try:
            with FakeTensorMode():
                loaded = torch.load(skeleton, weights_only=True)
        except pickle.UnpicklingError as error:
            raise SourceError(
                f"{self.source.name} holds a pickle that asks for more than tensors; it was not run",
                expected="a plain dictionary of tensors",
                fix="do not trust this file",
            ) from error
        except (RuntimeError, KeyError, EOFError, ValueError) as error:
            raise SourceError(f"{self.source.name} is no readable torch zip: {error}") from error
        if not isinstance(loaded, dict):
            raise SourceError(f"{self.source.name} holds a {type(loaded).__name__}", expected="a dictionary of tensors")
        tensors = {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor) and v.numel()}
        return tensors, records


def _skeleton(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]
) -> tuple[io.BytesIO, dict[int, zipfile.ZipInfo]]:
    """The same zip with empty storages, and which real member stands at each of its data offsets."""
    skeleton, records = io.BytesIO(), {}
    with zipfile.ZipFile(skeleton, "w") as copy:
        for member in members:
            folder, _, record = member.filename.partition("/")
            if record.startswith("."):  # alignment hints would make torch guess offsets instead of reading ours
                continue
            is_storage = record.startswith("data/")
            empty = zipfile.ZipInfo(f"{folder}/{record}")
            copy.writestr(empty, b"" if is_storage else archive.read(member))
            if is_storage:
                offset = empty.header_offset + LOCAL_HEADER.size + len(empty.filename.encode()) + len(empty.extra)
                records[offset] = member
    skeleton.seek(0)
    return skeleton, records


class _Seekable(io.RawIOBase):
    """A byte source as a file for `zipfile`, which reads a little at the end and a little here and there."""

    def __init__(self, source: ByteSource) -> None:
        self._source, self._at, self._chunks = source, 0, dict[int, bytearray]()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._source.size)[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._source.size if size < 0 else min(self._at + size, self._source.size)
        pieces = []
        while self._at < stop:
            index, inside = divmod(self._at, CHUNK)
            if index not in self._chunks:
                base = index * CHUNK
                self._chunks[index] = self._source.read(base, min(CHUNK, self._source.size - base))
            piece = bytes(self._chunks[index][inside : inside + stop - self._at])
            self._at += len(piece)
            pieces.append(piece)
        return b"".join(pieces)
