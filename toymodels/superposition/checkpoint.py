"""Checkpoints of a training run: one safetensors file each, which says whose it is and is replaced whole.

A run that was killed at any moment finds either its last state or the one before, never half of one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmprobe.errors import StoreError


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
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(dict(arrays), temporary, {"run": run, "state": json.dumps(state)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            temporary.unlink()
        raise StoreError(
            f"cannot write checkpoint {path}: {error}", fix="free some space; the run goes on from the one before"
        ) from error


def read_checkpoint(path: Path, run: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The arrays (on the CPU) and the state that `write_checkpoint` kept; None where there is no file.

    Raises
    ------
    StoreError
        The file is damaged, or belongs to another run.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            notes = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"checkpoint {path} cannot be read: {error}", fix="delete it to start again") from error
    if notes.get("run") != run:
        raise StoreError(f"checkpoint {path} belongs to another run", fix="delete it, or choose another folder")
    return arrays, json.loads(notes["state"])
