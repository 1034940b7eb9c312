"""Folders made once and kept in the cache: whole, by one owner, and checked file by file before they are used again."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path

from llmprobe.cache import CACHE_SPACE, claimed, forget, remove, write_whole, written

log = logging.getLogger(__name__)
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"


def build_once(folder: Path, build: Callable[[Path], None]) -> Path:
    """A cached folder, built elsewhere first so that it appears whole or not at all.

    Length and sha256 of each of its files lie beside them; a folder that no longer matches is built again.

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
    if is_whole(folder):
        return folder
    if folder.exists():
        log.warning("what is kept in %s is damaged and made anew", folder)
    with claimed(folder.parent, f"{UNFINISHED}{folder.name}") as unfinished:
        try:
            with written(f"the cache {folder}", fix=CACHE_SPACE):
                remove(unfinished)
                unfinished.mkdir(parents=True)
                build(unfinished)
                write_whole(unfinished / MANIFEST, json.dumps(_facts(unfinished)).encode())
                if not is_whole(folder):  # another process may have been faster
                    remove(folder)
                    unfinished.replace(folder)
        finally:
            remove(unfinished)
            forget(folder.parent, f"{UNFINISHED}{folder.name}")
    return folder


def is_whole(folder: Path) -> bool:
    """Whether a built folder is there and every file is as it was when it was made."""
    try:
        kept = json.loads((folder / MANIFEST).read_bytes())
        return bool(kept) and kept == _facts(folder)
    except (OSError, ValueError, RecursionError):
        return False


def _facts(folder: Path) -> dict[str, list[int | str]]:
    facts: dict[str, list[int | str]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts[path.relative_to(folder).as_posix()] = [path.stat().st_size, digest]
    return facts
