"""Files that appear whole or not at all, things with one owner, and where they are kept between runs.

Ownership is a lock that the system holds for a living process (`flock`): it ends with the process however that ends,
and unlike a process number it means the same in every container. Nobody waits for a lock: a second process takes the
next free place, and what a killed one left is taken over by the next that asks. `LLMPROBE_CACHE` moves the cache.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from llmprobe.errors import StoreError

ROOM = re.compile(r"\.[0-9a-f]{16}\.tmp")
SPACE = "free some space or choose another folder; what was stored before is unharmed"
CACHE_SPACE = "free some space, or set LLMPROBE_CACHE to a folder on another disk"


def cache_dir() -> Path:
    """``$LLMPROBE_CACHE``, else ``$XDG_CACHE_HOME/llmprobe``, else ``~/.cache/llmprobe``."""
    if chosen := os.environ.get("LLMPROBE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llmprobe"


@contextmanager
def atomic(path: Path, *, what: str = "", fix: str = SPACE) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end of the block, or leaves no trace if that fails.

    Whoever reads `path` sees what was there before or the whole of the new; that holds for several writers at once
    and through a loss of power. What killed writers left in the folder is removed.

    Parameters
    ----------
    path
        The file that shall appear; its folder is made.
    what
        What to call it in errors, before its path.
    fix
        What the user can do when it cannot be written.

    Raises
    ------
    StoreError
        The disk is full or failing, or the folder cannot be written.
    """
    with written(f"{what}{path}", fix=fix):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        room, handle = _room(path.parent)
        try:
            temporary = room / path.name
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            remove(room)
            os.close(handle)


@contextmanager
def written(what: object, *, fix: str = SPACE) -> Iterator[None]:
    """Turn a disk's refusal inside the block into a `StoreError` that names `what`."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise StoreError(f"cannot write {what}: {why}", fix=fix) from error


def write_whole(path: Path, *parts: bytes | memoryview, fix: str = CACHE_SPACE) -> None:
    """Write a file of the cache by `atomic`."""
    with atomic(path, what="the cache ", fix=fix) as temporary, temporary.open("wb") as file:
        for part in parts:
            file.write(part)


@contextmanager
def claimed(folder: Path, name: str, suffix: str = "", *, what: str = "", fix: str = CACHE_SPACE) -> Iterator[Path]:
    """A path that is this process's alone for the length of the block.

    It is ``folder/name+suffix`` where nobody holds that, else ``name-1``, ``name-2``, ...; places that exist come
    first, so that what a killed process left is taken over. The path itself is not made or removed.

    Raises
    ------
    StoreError
        The folder cannot be written.
    """
    with written(f"{what}{folder}", fix=fix):
        folder.mkdir(parents=True, exist_ok=True)
        there = places(folder, name, suffix)
        free = (_place(folder, name, suffix, k) for k in range(len(there) + 64))
        path, handle = next((p, h) for p in [*there, *free] if (h := _lock(_lock_of(p))) is not None)
    try:
        yield path
    finally:
        _unlock(_lock_of(path), handle)


def forget(folder: Path, name: str, suffix: str = "") -> None:
    """Remove every place of this name that no living process holds."""
    for path in places(folder, name, suffix):
        with suppress(OSError):
            handle = _lock(_lock_of(path))
            if handle is None:
                continue
            try:
                remove(path)
            finally:
                _unlock(_lock_of(path), handle)


def places(folder: Path, name: str, suffix: str = "") -> list[Path]:
    """The paths that `claimed` may give and that exist, the first first."""
    try:
        present = {entry.name for entry in os.scandir(folder)}
    except OSError:
        return []
    begun = [p for p in present if p.startswith(name) and p.endswith(suffix)]
    numbers = {p.removeprefix(name).removesuffix(suffix).removeprefix("-") for p in begun}
    found = (_place(folder, name, suffix, int(k or 0)) for k in sorted(numbers) if not k or k.isdecimal())
    return [path for path in found if path.name in present]


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it; what is not there is not an error."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _place(folder: Path, name: str, suffix: str, number: int) -> Path:
    return folder / (f"{name}-{number}{suffix}" if number else f"{name}{suffix}")


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _lock(path: Path) -> int | None:
    """An open file that holds the lock, or None if another process does."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except BaseException:
            os.close(handle)
            raise
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # its owner removed it between our two calls: lock the file that is there now


def _unlock(path: Path, handle: int) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)
    os.close(handle)


def _room(folder: Path) -> tuple[Path, int]:
    """A new folder to write in, since libraries leave files of their own behind, and a lock that says we live."""
    while True:
        room = folder / f".{secrets.token_hex(8)}.tmp"
        room.mkdir()
        if (handle := _lock_folder(room)) is not None:
            return room, handle


def _remove_abandoned(folder: Path) -> None:
    for entry in os.scandir(folder):
        if ROOM.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
            room = Path(entry.path)
            if (handle := _lock_folder(room)) is not None:
                remove(room)
                os.close(handle)


def _lock_folder(room: Path) -> int | None:
    try:
        handle = os.open(room, os.O_RDONLY)
    except OSError:  # gone again
        return None
    with suppress(OSError):
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if room.is_dir():
            return handle
    os.close(handle)
    return None
