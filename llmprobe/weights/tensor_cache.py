"""Tensors of a remote checkpoint kept on disk, by commit and name, each checked against its hash when read."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import torch

from llmprobe.cache import CACHE_SPACE, write_whole, written
from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import LocalFile
from llmprobe.weights.safetensors import DTYPES, SafetensorsFile
from llmprobe.weights.tensor import StoredTensor

log = logging.getLogger(__name__)
COMMIT = re.compile(r"[0-9a-f]{40}")
LONGEST = 200  # bytes of a file's name before its suffix
CODES = {dtype: code for code, dtype in DTYPES.items()}


class KeptTensors:
    """What is kept of one repository at one commit.

    Parameters
    ----------
    folder
        The repository's folder in the cache.
    commit
        Full hash.
    """

    def __init__(self, folder: Path, commit: str) -> None:
        self._folder, self.commit = folder, commit

    @classmethod
    def at_revision(cls, folder: Path, revision: str) -> KeptTensors | None:
        """What is kept at the commit that a branch or tag stood at when last seen."""
        note = _sealed(folder / "revisions" / file_name(revision, ".json"))
        kept = cls(folder, note if isinstance(note, str) and COMMIT.fullmatch(note) else revision)
        return kept if COMMIT.fullmatch(kept.commit) and kept._listing() is not None else None

    def note_revision(self, revision: str) -> None:
        """Remember which commit a branch or tag stands at."""
        _seal(self._folder / "revisions" / file_name(revision, ".json"), self.commit)

    def remember(self, names: Sequence[str], config: dict[str, Any]) -> None:
        """Keep the names of all tensors and the configuration."""
        _seal(self._folder / self.commit / "listing.json", {"names": list(names), "config": config})

    def recall(self) -> tuple[list[str], dict[str, Any]]:
        """Names of all tensors and the configuration; none where they are not kept."""
        return self._listing() or ([], {})

    def _listing(self) -> tuple[list[str], dict[str, Any]] | None:
        table = _sealed(self._folder / self.commit / "listing.json")
        return (table["names"], table["config"]) if isinstance(table, dict) else None

    def read(self, name: str) -> StoredTensor | None:
        """A kept tensor, or None; one that is not as it was written is named and dropped."""
        path, note = self._paths(name)
        if not path.exists():
            return None
        try:
            stored = SafetensorsFile(LocalFile(path)).read("tensor")
        except (SourceError, KeyError) as error:
            log.warning("the kept copy of %s is damaged and dropped: %s", name, error)
        else:
            if _sealed(note) == _seals(stored):
                return StoredTensor(name, stored.values, stored.dtype, stored.sha256)
            log.warning("the kept copy of %s no longer matches its hash and is dropped", name)
        with written(path, fix=CACHE_SPACE):
            path.unlink(missing_ok=True)
        return None

    def write(self, stored: StoredTensor) -> None:
        """Keep a tensor as a safetensors file, written from its own memory."""
        path, note = self._paths(stored.name)
        raw = stored.values.contiguous().flatten().view(torch.uint8).numpy()
        entry = {"dtype": CODES[stored.values.dtype], "shape": list(stored.values.shape), "data_offsets": [0, len(raw)]}
        header = json.dumps({"tensor": entry}).encode()
        write_whole(path, len(header).to_bytes(8, "little"), header, raw.data)
        kept = StoredTensor(
            stored.name, stored.values, str(stored.values.dtype).removeprefix("torch."), _hash(raw.data)
        )
        _seal(note, _seals(kept))

    def _paths(self, name: str) -> tuple[Path, Path]:
        folder = self._folder / self.commit
        return folder / file_name(name, ".safetensors"), folder / file_name(name, ".seal.json")


def file_name(name: str, suffix: str = "") -> str:
    """A file's name for any name, one to one: ``%2F`` for what a path cannot hold, a hash for what is too long."""
    text = quote(name, safe="", errors="surrogatepass")
    if len(text) > LONGEST:
        text = f"%-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()}"  # no quoted name has %-
    return f"{text}{suffix}"


def _seals(stored: StoredTensor) -> list[Any]:
    """What a kept tensor must still be: its bytes, and how they are to be read."""
    return [stored.sha256, stored.dtype, list(stored.values.shape)]


def _hash(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


def _seal(path: Path, value: Any) -> None:
    """Keep a small value with its hash."""
    text = json.dumps(value)
    write_whole(path, json.dumps({"value": text, "sha256": _hash(memoryview(text.encode()))}).encode())


def _sealed(path: Path) -> Any:
    """What `_seal` kept, or None where it is not there or is damaged."""
    try:
        note = json.loads(path.read_bytes())
        text = str(note["value"])
        return json.loads(text) if _hash(memoryview(text.encode())) == note["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
