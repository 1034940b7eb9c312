"""A long range in parallel pieces, each kept on disk as it arrives and checked before it is used again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from llmprobe.cache import cache_dir, claimed, forget, remove, write_whole
from llmprobe.names import printable

PIECE = 8 << 20
THREADS = 4
Piece = Callable[[int, int], bytes]


def fetch_pieces(piece: Piece, identity: str, offset: int, room: bytearray, what: str) -> bytearray:
    """Bytes of a remote file from `offset` on, as many as there is room for.

    Parameters
    ----------
    piece
        Fetches one range (offset, length), whole or not at all.
    identity
        What fixes the file's content: pieces of an earlier try are used only if it is the same.
    room
        Filled and given back.
    what
        What to call it on the progress bar.
    """
    length = len(room)
    if length <= PIECE:
        return bytearray(piece(offset, length))
    data = room
    view = memoryview(data)
    starts = range(0, length, PIECE)
    name = hashlib.sha256(f"{identity}|{offset}|{length}|{PIECE}".encode()).hexdigest()[:24]
    with (
        claimed(cache_dir() / "partial", name) as folder,
        tqdm(total=length, unit="B", unit_scale=True, desc=printable(what), leave=False) as bar,
    ):
        missing = [start for start in starts if not _load(folder, start, view[start : start + PIECE])]
        bar.update(length - sum(min(PIECE, length - start) for start in missing))

        def fetch(start: int) -> int:
            part = piece(offset + start, min(PIECE, length - start))
            view[start : start + len(part)] = part
            write_whole(_piece(folder, start), hashlib.sha256(part).digest(), part)
            return len(part)

        pool = ThreadPoolExecutor(THREADS)
        try:
            for count in pool.map(fetch, missing):
                bar.update(count)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        remove(folder)
    forget(cache_dir() / "partial", name)
    return data


def _load(folder: Path, start: int, into: memoryview) -> bool:
    """Whether a piece of an earlier try is there, whole and unharmed; it is then in place."""
    try:
        kept = memoryview(_piece(folder, start).read_bytes())
    except OSError:
        return False
    if len(kept) != 32 + len(into) or hashlib.sha256(kept[32:]).digest() != kept[:32]:
        return False
    into[:] = kept[32:]
    return True


def _piece(folder: Path, start: int) -> Path:
    return folder / f"{start:015d}"
