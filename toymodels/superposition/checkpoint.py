"""Checkpoints of a training run: one safetensors file each, which says whose it is and is replaced whole.

A run that was killed at any moment finds either its last state or the one before, never half of one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmprobe.cache import SPACE, atomic, claimed, forget
from llmprobe.errors import StoreError

RESUMES = "free some space; the run resumes from the checkpoint before"


def write_checkpoint(path: Path, run: str, arrays: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Keep a state; the file appears whole or not at all.

    Parameters
    ----------
    run
        What identifies the run; see `read_checkpoint`.
    arrays, state
        Tensors on any device, and what can be written as JSON.

    Raises
    ------
    StoreError
        The file cannot be written; what was there before is still there.
    """
    with atomic(path, what="checkpoint ", fix=RESUMES) as temporary:
        here, text = {name: array.cpu() for name, array in arrays.items()}, json.dumps(state)
        save_file(here, temporary, {"run": run, "state": text, "sha256": _digest(here, run, text)})


def read_checkpoint(path: Path, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The arrays (on the CPU) and the state that `write_checkpoint` kept; None where there is no file.

    Raises
    ------
    StoreError
        The file is damaged, or belongs to another run.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        whole = notes.get("sha256") == _digest(arrays, notes["run"], notes["state"])
    except (OSError, SafetensorError, KeyError) as error:
        raise StoreError(f"checkpoint {path} cannot be read: {error}", fix="delete it to start again") from error
    if not whole:
        raise StoreError(f"checkpoint {path} does not match its sha256", fix="delete it to start again")
    if notes["run"] != run:
        raise StoreError(f"checkpoint {path} belongs to another run", fix="delete it, or choose another folder")
    return arrays, json.loads(notes["state"])


@contextmanager
def own_checkpoint(path: Path | None) -> Iterator[Path | None]:
    """A checkpoint of this process alone: `path`, or one beside it while another process trains the same run."""
    if path is None:
        yield None
        return
    with claimed(path.parent, path.stem, path.suffix, what="checkpoint ", fix=SPACE) as own:
        yield own


def forget_checkpoint(path: Path | None) -> None:
    """Remove a run's checkpoints, once its observation is stored."""
    if path is not None:
        forget(path.parent, path.stem, path.suffix)


def _digest(arrays: Mapping[str, Tensor], run: str, state: str) -> str:
    digest = hashlib.sha256(f"{run}|{state}".encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"|{name}|{array.dtype}|{tuple(array.shape)}|".encode())
        digest.update(array.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
