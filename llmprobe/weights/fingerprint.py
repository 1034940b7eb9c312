"""Which bytes a source holds now, so that what was measured of other bytes under the same name is not taken for it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from llmprobe.cache import cache_dir, write_whole
from llmprobe.errors import ProbeError
from llmprobe.weights.source import parse_source

WEIGHTS = (".safetensors", ".bin", ".gguf")
BESIDE = ("config.json", "*.index.json", "tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "*.model")
SETTLED = 2.0  # seconds after which a change of a file shows in its times


def fingerprint(source: str) -> str:
    """32 hex digits of the content of a local model's files; empty for one at the Hub, whose commit says as much.

    Files are hashed once; the hash is looked up afterwards while size, times and inode stay as they are.

    Parameters
    ----------
    source
        As for `read_unembedding`; a name that nothing local stands for has an empty fingerprint.
    """
    try:
        path = parse_source(source).path
        if path is None:
            return ""
        total = hashlib.sha256()
        for file in _files(path):
            total.update(f"{file.name}|{_sha256(file)}\n".encode("utf-8", "surrogateescape"))
    except (ProbeError, OSError):
        return ""
    return total.hexdigest()[:32]


def tensors_sha256(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash of named tensors as they lie in memory."""
    total = hashlib.sha256()
    for name, tensor in tensors:
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|{tensor.device.type == 'meta'}\n".encode())
        if tensor.device.type != "meta":
            total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    beside = {file for pattern in BESIDE for file in path.glob(pattern)}
    yield from sorted(f for f in {*path.iterdir(), *beside} if (f.suffix in WEIGHTS or f in beside) and f.is_file())


def _sha256(file: Path) -> str:
    facts = file.stat()
    identity = (str(file.resolve()), facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
    note = cache_dir() / "hashes" / f"{hashlib.sha256(repr(identity).encode()).hexdigest()[:32]}.json"
    with suppress(OSError, ValueError, TypeError, KeyError):
        known = json.loads(note.read_bytes())
        if known["file"] == list(identity) and len(known["sha256"]) == 64:
            return str(known["sha256"])
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if time.time() - max(facts.st_mtime, facts.st_ctime) > SETTLED and file.stat() == facts:
        with suppress(ProbeError):  # a full cache is no reason not to know
            write_whole(note, json.dumps({"file": identity, "sha256": digest}).encode("utf-8", "surrogateescape"))
    return digest
