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
import zlib
from functools import cache

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from llmprobe.errors import ProbeError, SourceError, first_line
from llmprobe.weights.byte_source import ByteSource
from llmprobe.weights.tensor import StoredTensor

LOCAL_HEADER = struct.Struct("<4s2B4HL2L2H")  # of a zip member; its last two fields are the lengths that follow
END = struct.Struct("<4s4H2LH")  # a zip's last record
END64 = struct.Struct("<4sQ2H2L4Q4sLQL")  # and the two that a large one has before it
CHUNK = 64 << 10
MEMBERS = 100_000  # of a zip: more than any model has tensors
PICKLE_BYTES = 16 << 20  # a hundred times what the tables of the largest models take
FLAGS = 0x808  # of a member: names in UTF-8, lengths after the data
FOLDER = 0x10  # attribute of a member that is one, whose bytes torch does not read
UNCHECKED = 0  # what stands for a checksum where torch was told not to make any


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
        for name, tensor in self._tensors.items():
            if tensor.layout == torch.strided:
                self._record(name, tensor)

    def names(self) -> list[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> StoredTensor:
        """The tensor as stored; `SourceError` if it is not a float or its bytes are missing."""
        tensor = self._tensors[name]
        if not tensor.is_floating_point() or tensor.layout != torch.strided or tensor.is_quantized:
            raise SourceError(f"{name} in {self.source.name} is stored as {tensor.dtype}", expected="a float type")
        member = self._record(name, tensor)
        header = self.source.read(member.header_offset, LOCAL_HEADER.size)
        mark, *_, name_length, extra_length = LOCAL_HEADER.unpack(header)
        if mark != b"PK\3\4":
            raise SourceError(f"{member.filename} of {self.source.name} has no header", fix="download it again")
        start = member.header_offset + LOCAL_HEADER.size + name_length + extra_length
        if start + member.file_size > self.source.size:
            raise SourceError(f"{member.filename} of {self.source.name} reaches past its end", fix="download it again")
        span = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))
        itemsize = tensor.dtype.itemsize
        first, length = tensor.storage_offset() * itemsize, span * itemsize
        if max(first + length, tensor.numel() * itemsize) > member.file_size:
            raise SourceError(f"{name} reaches past its record {member.filename} in {self.source.name}")
        data = self.source.read(start + first, length)
        if length == member.file_size and member.CRC and zlib.crc32(data) != member.CRC:
            raise SourceError(
                f"{name} in {self.source.name} does not match its checksum",
                fix="the file is corrupt: download it again",
            )
        if tensor.is_contiguous():
            return StoredTensor.from_bytes(name, data, tensor.dtype, tuple(tensor.shape))
        flat = StoredTensor.from_bytes(name, data, tensor.dtype, (span,))
        values = flat.values.as_strided(tensor.shape, tensor.stride()).contiguous()
        return StoredTensor(name, values, flat.dtype, flat.sha256)

    def _directory(self) -> tuple[dict[str, torch.Tensor], dict[int, zipfile.ZipInfo]]:
        try:
            with zipfile.ZipFile(_Seekable(self.source)) as archive:
                members = archive.infolist()
                self._check(members)
                _check_end(self.source, archive.start_dir, members)
                skeleton, records = _skeleton(archive, members)
        except ProbeError:
            raise
        except Exception as error:  # of whatever kind: the file is another's
            raise SourceError(
                f"{self.source.name} cannot be read as a torch zip: {first_line(error)[:200]}",
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
        except Exception as error:  # of whatever kind: the pickle is another's
            raise SourceError(f"{self.source.name} cannot be read as a torch zip: {first_line(error)[:200]}") from error
        if not isinstance(loaded, dict):
            raise SourceError(f"{self.source.name} holds a {type(loaded).__name__}", expected="a dictionary of tensors")
        return {str(k): v for k, v in loaded.items() if isinstance(v, torch.Tensor) and v.numel()}, records

    def _record(self, name: str, tensor: torch.Tensor) -> zipfile.ZipInfo:
        """The member of the zip that holds a tensor's storage, exactly as long as the pickle says."""
        storage = tensor.untyped_storage()
        member = self._records.get(storage._checkpoint_offset or -1)
        length = storage.nbytes() // (tensor.element_size() if _overstates() else 1)
        if member is None or member.file_size != length:
            there = "no record" if member is None else f"a record of {member.file_size} bytes"
            raise SourceError(
                f"{name} has {there} in {self.source.name}",
                expected=f"{length} bytes",
                fix="the file is corrupt: download it again",
            )
        return member

    def _check(self, members: list[zipfile.ZipInfo]) -> None:
        """Refuse what torch never writes and what makes a small file a large one."""
        if len(members) > MEMBERS:
            raise SourceError(f"{self.source.name} is a zip of {len(members)} members", expected=f"at most {MEMBERS}")
        if any(member.compress_type != zipfile.ZIP_STORED or member.volume for member in members):
            raise SourceError(
                f"{self.source.name} is a compressed or split zip", expected="a zip written by torch.save"
            )
        if any(member.flag_bits & ~FLAGS or member.external_attr & FOLDER for member in members):
            raise SourceError(
                f"{self.source.name} holds folders or encrypted members", expected="a zip written by torch.save"
            )
        if len({member.filename for member in members}) < len(members):
            raise SourceError(f"{self.source.name} holds two members of one name", fix="do not trust this file")
        if sum(m.file_size for m in members if "/data/" not in m.filename) > PICKLE_BYTES:
            raise SourceError(
                f"{self.source.name} holds a pickle of more than {PICKLE_BYTES} bytes",
                fix="it is not an ordinary checkpoint: do not open it, take the model from its publisher",
            )
        if any(members) and min(member.header_offset for member in members) > 0:
            raise SourceError(f"{self.source.name} has something before its first member", fix="do not trust this file")
        at = 0
        for member in sorted(members, key=lambda member: member.header_offset):
            if member.header_offset < at or member.file_size != member.compress_size:
                raise SourceError(
                    f"{member.filename} of {self.source.name} overlaps another", fix="do not trust this file"
                )
            at = member.header_offset + LOCAL_HEADER.size + member.compress_size
        if at > self.source.size:
            raise SourceError(
                f"{self.source.name} ends after {self.source.size} bytes",
                expected=f"at least {at}",
                fix="the file is truncated or corrupt: download it again",
            )


@cache
def _overstates() -> bool:
    """Whether this torch, when it loads descriptions alone, takes bytes for elements: as 2.9 does."""
    buffer = io.BytesIO()
    torch.save(torch.zeros(1), buffer)
    buffer.seek(0)
    with FakeTensorMode():
        described: torch.Tensor = torch.load(buffer, weights_only=True)
    return described.untyped_storage().nbytes() != described.element_size()


def _check_end(source: ByteSource, start: int, members: list[zipfile.ZipInfo]) -> None:
    """Refuse a zip whose last records say anything but what lies before them: readers differ in which they believe."""
    count, size = len(members), sum(_entry_size(member) for member in members)
    after = start + size
    large = source.size - END.size - after == END64.size
    if not large and source.size - END.size != after:
        raise zipfile.BadZipFile("its directory is not as long as it says")
    mark, *numbers = END.unpack(source.read(source.size - END.size, END.size))
    true = [0, 0, count, count, size, start, 0]
    full = [2 ** (8 * length) - 1 for length in (2, 2, 2, 2, 4, 4)]  # "see the records before"
    said = [b if large and a == most else a for a, b, most in zip(numbers, true, [*full, None], strict=True)]
    if mark != b"PK\5\6" or said != true:
        raise zipfile.BadZipFile("its last record contradicts its directory")
    if large:
        mark, length, _, _, *rest = END64.unpack(source.read(after, END64.size))
        if [mark, length, *rest] != [b"PK\6\6", 44, 0, 0, count, count, size, start, b"PK\6\7", 0, after, 1]:
            raise zipfile.BadZipFile("its last records contradict its directory")


def _entry_size(member: zipfile.ZipInfo) -> int:
    """Bytes of a member in the zip's directory."""
    name = member.orig_filename.encode("utf-8" if member.flag_bits & 0x800 else "cp437")
    return 46 + len(name) + len(member.extra) + len(member.comment)


def _skeleton(
    archive: zipfile.ZipFile, members: list[zipfile.ZipInfo]
) -> tuple[io.BytesIO, dict[int, zipfile.ZipInfo]]:
    """The same zip with empty storages, and which real member stands at each of its data offsets."""
    skeleton, records = io.BytesIO(), {}
    with zipfile.ZipFile(skeleton, "w") as copy:
        for member in members:
            folder, _, record = member.filename.partition("/")
            is_storage = record.startswith("data/")
            if member.CRC == UNCHECKED:
                member.CRC = None  # type: ignore[assignment]  # which zipfile takes for: not to be checked
            content = b"" if is_storage else archive.read(member)
            if record != "data.pkl":
                content.decode("utf-8")
            if record == ".storage_alignment" and not content.strip().isdigit():
                raise zipfile.BadZipFile(f"its alignment is {content[:20]!r}")
            if record == "byteorder" and content != b"little":  # torch would turn storages around, empty ones too
                raise zipfile.BadZipFile(f"its byte order is {content[:20]!r}")
            if record.startswith("."):  # alignment hints would make torch guess offsets instead of reading ours
                continue
            empty = zipfile.ZipInfo(f"{folder}/{record}")
            copy.writestr(empty, content)
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
