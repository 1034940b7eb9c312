"""Where bytes lie: a tree of named files, each read by offset. A folder here; `hub.py` has the Hub's."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from llmprobe.errors import SourceError


@runtime_checkable
class ByteSource(Protocol):
    """One file, read by ranges.

    Attributes
    ----------
    name
        What to call it in errors.
    size
        Its length in bytes.
    bytes_read
        Bytes fetched so far.
    """

    name: str
    size: int
    bytes_read: int

    def read(self, offset: int, length: int) -> bytearray:
        """Exactly `length` bytes from `offset`; `SourceError` if the file ends before."""
        ...


@runtime_checkable
class FileTree(Protocol):
    """The files of one checkpoint.

    Attributes
    ----------
    label
        What to call the tree in errors.
    revision
        The commit it stands at; empty for a local folder.
    """

    label: str
    revision: str

    def names(self) -> Sequence[str]:
        """Paths of all files, relative to the tree."""
        ...

    def open(self, name: str) -> ByteSource:
        """A file of the tree; `SourceError` if there is none."""
        ...

    def local(self, name: str) -> Path:
        """The whole file on this disk, downloaded if need be."""
        ...


class LocalFile:
    """A file on this machine."""

    def __init__(self, path: Path) -> None:
        self.path, self.name, self.bytes_read = path, str(path), 0
        try:
            facts = path.stat()
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error
        if not stat.S_ISREG(facts.st_mode):
            raise SourceError(f"{path} is not a regular file", expected="a file that lies on a disk")
        self.size = facts.st_size

    def read(self, offset: int, length: int) -> bytearray:
        check_range(self, offset, length)
        data = buffer(self, length)
        try:
            with self.path.open("rb", buffering=0) as file:
                file.seek(offset)
                view, done = memoryview(data), 0
                while done < length:
                    count = file.readinto(view[done:])
                    if not count:
                        raise truncated(self, offset + length)
                    done += count
        except OSError as error:
            raise SourceError(f"cannot read {self.path}: {error.strerror}") from error
        self.bytes_read += length
        return data


class LocalTree:
    """A folder on this machine, or a single file in it."""

    revision = ""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        self._folder = path if path.is_dir() else path.parent
        self._names = sorted(p.name for p in path.iterdir() if p.is_file()) if path.is_dir() else [path.name]

    def names(self) -> Sequence[str]:
        return self._names

    def open(self, name: str) -> LocalFile:
        return LocalFile(self.local(name))

    def local(self, name: str) -> Path:
        return self._folder / name


def check_range(source: ByteSource, offset: int, length: int) -> None:
    """Refuse a range that the file does not hold."""
    if offset < 0 or length < 0 or offset + length > source.size:
        raise truncated(source, offset + length)


def buffer(source: ByteSource, length: int) -> bytearray:
    """Room for `length` bytes of a file; `SourceError` where this machine has not that much memory."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if length <= memory:
        try:
            return bytearray(length)
        except MemoryError:
            pass
    raise SourceError(
        f"{length / 1e9:.1f} GB of {source.name} do not fit into memory ({memory / 1e9:.1f} GB in all)",
        fix="take a machine with more memory",
    )


def parsed_json(source: ByteSource, data: bytes | bytearray) -> Any:
    """JSON that a file holds.

    Raises
    ------
    SourceError
        It is not JSON, nested more deeply than any real file, made of far more parts than its length accounts for, or
        names a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            raise ValueError("a name occurs twice")
        return table

    try:
        if data.count(b"{") + data.count(b"[") > 64 + len(data) // 4:
            raise ValueError("it is made of brackets")
        return json.loads(data.decode("utf-8"), object_pairs_hook=unique)
    except (ValueError, RecursionError, MemoryError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise SourceError(
            f"{source.name} holds no readable JSON: {why}", fix="the file is corrupt: download it again"
        ) from error


def truncated(source: ByteSource, wanted: int) -> SourceError:
    """The error for a file that ends too early."""
    return SourceError(
        f"{source.name} ends after {source.size} bytes",
        expected=f"at least {wanted}",
        fix="the file is truncated or corrupt: download it again",
    )
