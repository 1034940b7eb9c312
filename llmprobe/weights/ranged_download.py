"""A long range in parallel pieces, each kept on disk as it arrives, so that a broken transfer goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from llmprobe.cache import cache_dir, write_whole

PIECE = 8 << 20
THREADS = 4
Piece = Callable[[int, int], bytes]


def fetch_pieces(piece: Piece, identity: str, offset: int, length: int, what: str) -> bytearray:
    """Bytes [offset, offset + length) of a remote file.

    Parameters
    ----------
    piece
        Fetches one range (offset, length), whole or not at all.
    identity
        What fixes the file's content: pieces of an earlier try are used only if it is the same.
    what
        What to call it on the progress bar.
    """
    if length <= PIECE:
        return bytearray(piece(offset, length))
    data = bytearray(length)
    view = memoryview(data)
    starts = range(0, length, PIECE)
    with (
        _Partial(f"{identity}|{offset}|{length}|{PIECE}") as partial,
        tqdm(total=length, unit="B", unit_scale=True, desc=what, leave=False) as bar,
    ):
        missing = [start for start in starts if not partial.load(start, view[start : start + PIECE])]
        bar.update(length - sum(min(PIECE, length - start) for start in missing))

        def fetch(start: int) -> int:
            part = piece(offset + start, min(PIECE, length - start))
            view[start : start + len(part)] = part
            partial.keep(start, part)
            return len(part)

        pool = ThreadPoolExecutor(THREADS)
        try:
            for count in pool.map(fetch, missing):
                bar.update(count)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        partial.done()
    return data


class _Partial:
    """Pieces of one range in a folder of the cache; the folder goes when all are there."""

    def __init__(self, identity: str) -> None:
        self._folder = cache_dir() / "partial" / hashlib.sha256(identity.encode()).hexdigest()[:24]

    def __enter__(self) -> _Partial:
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def load(self, start: int, into: memoryview) -> bool:
        path = self._path(start)
        if not path.exists() or path.stat().st_size != len(into):
            return False
        into[:] = path.read_bytes()
        return True

    def keep(self, start: int, part: bytes) -> None:
        write_whole(self._path(start), part)

    def done(self) -> None:
        """Forget the pieces."""
        for path in self._folder.iterdir():
            path.unlink(missing_ok=True)

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:015d}"
