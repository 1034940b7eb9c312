"""Where bytes lie: a tree of named files, each read by offset. A folder here; `hub.py` has the Hub's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

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
            self.size = path.stat().st_size
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from error

    def read(self, offset: int, length: int) -> bytearray:
        check_range(self, offset, length)
        data = bytearray(length)
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


def truncated(source: ByteSource, wanted: int) -> SourceError:
    """The error for a file that ends too early."""
    return SourceError(
        f"{source.name} ends after {source.size} bytes",
        expected=f"at least {wanted}",
        fix="the file is truncated or corrupt: download it again",
    )
