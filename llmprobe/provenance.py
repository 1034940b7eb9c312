"""How a value came about: settings that identify it, and a record of versions, machine and time."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

Scalar = str | int | float | bool | None
VERSIONED = ("llmprobe", "torch", "transformers", "numpy")


@dataclass(frozen=True)
class Provenance:
    """How a value came about.

    Attributes
    ----------
    settings
        What else identifies the measurement (context, dtype, seed, weight decay, ...); part of the key, and a
        column of `ObservationStore.frame`.
    record
        What does not: versions, git commit, device, sha256 of the tensor, seconds, time of day.
    """

    settings: Mapping[str, Scalar] = field(default_factory=dict)
    record: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def here(cls, settings: Mapping[str, Scalar], **record: Any) -> Provenance:
        """Provenance of a measurement made now, on this machine, with these versions."""
        return cls(
            dict(settings),
            {**_environment(), "created": datetime.now(UTC).isoformat("T", "seconds"), **record},
        )


@cache
def _environment() -> dict[str, str]:
    versions = {}
    for package in VERSIONED:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "absent"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "git": _git_commit(),
        **versions,
    }


def _git_commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() or "unknown"
