"""Where things are kept between runs: converted models, tensors from the Hub. `LLMPROBE_CACHE` moves it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from llmprobe.errors import StoreError


def cache_dir() -> Path:
    """``$LLMPROBE_CACHE``, else ``$XDG_CACHE_HOME/llmprobe``, else ``~/.cache/llmprobe``."""
    if chosen := os.environ.get("LLMPROBE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "llmprobe"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """A cached folder, built elsewhere first so that it appears whole or not at all.

    Parameters
    ----------
    folder
        Where it shall be.
    build
        Fills the empty folder it is given.

    Raises
    ------
    StoreError
        The disk is full or not writable.
    """
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        build(temporary)
        temporary.replace(folder)
    except OSError as error:
        if folder.is_dir():  # another process was faster
            return folder
        raise StoreError(
            f"cannot write the cache {folder}: {error.strerror or error}",
            fix="free some space, or set LLMPROBE_CACHE to a folder on another disk",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Write a cached file so that it appears whole or not at all.

    Raises
    ------
    StoreError
        The disk is full or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part)
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(
            f"cannot write the cache {path}: {error.strerror}",
            fix="free some space, or set LLMPROBE_CACHE to a folder on another disk",
        ) from error
