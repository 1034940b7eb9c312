"""Tensors of a remote checkpoint kept on disk, by commit and name, each checked against its hash when read."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llmprobe.cache import write_whole
from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import LocalFile
from llmprobe.weights.safetensors import DTYPES, SafetensorsFile
from llmprobe.weights.tensor import StoredTensor

log = logging.getLogger(__name__)
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
        note = folder / "revisions" / _name(revision)
        commit = note.read_text().strip() if note.is_file() else revision
        return cls(folder, commit) if (folder / commit / "listing.json").is_file() else None

    def note_revision(self, revision: str) -> None:
        """Remember which commit a branch or tag stands at."""
        write_whole(self._folder / "revisions" / _name(revision), self.commit.encode())

    def remember(self, names: Sequence[str], config: dict[str, Any]) -> None:
        """Keep the names of all tensors and the configuration."""
        write_whole(
            self._folder / self.commit / "listing.json", json.dumps({"names": names, "config": config}).encode()
        )

    def recall(self) -> tuple[list[str], dict[str, Any]]:
        """Names of all tensors and the configuration."""
        table = json.loads((self._folder / self.commit / "listing.json").read_text())
        return table["names"], table["config"]

    def read(self, name: str) -> StoredTensor | None:
        """A kept tensor, or None; one that no longer matches its hash is named and dropped."""
        path, note = self._paths(name)
        if not path.exists() or not note.exists():
            return None
        try:
            stored = SafetensorsFile(LocalFile(path)).read("tensor")
        except SourceError as error:
            log.warning("the kept copy of %s is damaged and dropped: %s", name, error)
            path.unlink(missing_ok=True)
            return None
        if stored.sha256 != note.read_text().strip():
            log.warning("the kept copy of %s no longer matches its hash and is dropped", name)
            path.unlink(missing_ok=True)
            return None
        return StoredTensor(name, stored.values, stored.dtype, stored.sha256)

    def write(self, stored: StoredTensor) -> None:
        """Keep a tensor as a safetensors file, written from its own memory."""
        path, note = self._paths(stored.name)
        raw = stored.values.contiguous().flatten().view(torch.uint8).numpy()
        entry = {"dtype": CODES[stored.values.dtype], "shape": list(stored.values.shape), "data_offsets": [0, len(raw)]}
        header = json.dumps({"tensor": entry}).encode()
        write_whole(path, len(header).to_bytes(8, "little"), header, raw.data)
        digest = hashlib.sha256(raw.data).hexdigest()
        write_whole(note, digest.encode())

    def _paths(self, name: str) -> tuple[Path, Path]:
        path = self._folder / self.commit / f"{_name(name)}.safetensors"
        return path, path.with_suffix(".sha256")


def _name(text: str) -> str:
    return text.replace("/", "--")
