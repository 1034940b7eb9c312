"""One row per measurement, kept in an append-only JSONL file that survives being killed.

A language model and a toy run write the same `Observation`; `fit` and `report` read nothing else. Rows are
appended whole, flushed and locked, so several processes may share a store. Each line ends with a checksum: a
torn or damaged line is named in a warning and left out, and everything else is read. Arrays (a trained W, a
loss curve) lie beside the rows as safetensors, one file per key.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import json
import logging
import math
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmprobe import lines
from llmprobe.cache import atomic
from llmprobe.errors import StoreError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One measured number.

    Attributes
    ----------
    study, source_kind, family, model, revision, corpus
        What was measured, on what. `source_kind` is ``llm``, ``toy`` or ``published``.
    m, depth, n, n_params
        Width, layers, vocabulary rows (features for a toy), parameters.
    tokens, step
        Training tokens seen; training step.
    metric, value, stderr, unit, n_samples
        ``loss`` in ``nats``, ``mean_sq_cos`` in ``1``, ...; `stderr` is one standard error of `value`.
    provenance
        See `Provenance`.
    """

    study: str
    source_kind: Literal["llm", "toy", "published"]
    metric: str
    value: float
    unit: str = "1"
    family: str = ""
    model: str = ""
    revision: str = ""
    corpus: str = ""
    m: int | None = None
    depth: int | None = None
    n: int | None = None
    n_params: int | None = None
    tokens: int | None = None
    step: int | None = None
    stderr: float | None = None
    n_samples: int | None = None
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise StoreError(
                f"{self.metric} of {self.model or self.study} is {self.value}",
                expected="a finite number",
                fix="a measurement that failed is not stored; look at its log",
            )

    @property
    def key(self) -> str:
        """16 hex digits that identify the measurement, whatever its value came out as."""
        measured = {"value", "stderr", "n_samples", "unit", "provenance"}
        identity = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in measured}
        identity["settings"] = dict(self.provenance.settings)
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """One line of the store, its checksum last."""
        return lines.sealed(json.dumps(lines.finite({**asdict(self), "key": self.key}), separators=(",", ":")))

    @classmethod
    def from_json(cls, line: str) -> Observation:
        """The row of one line.

        Raises
        ------
        ValueError
            The line is not JSON, has unknown or missing columns, or does not match its checksum. A line without
            a checksum (written by hand) is taken as it stands.
        """
        row = lines.parsed(line)
        row["provenance"] = Provenance(**lines.provenance(row.get("provenance")))
        try:
            return cls(**row)
        except (TypeError, StoreError) as error:
            raise ValueError(str(error)) from error


class ObservationStore:
    """An append-only JSONL file of observations, with arrays beside it.

    Parameters
    ----------
    path
        The JSONL file; its folder is made at the first write. Arrays go to ``<folder>/arrays/<key>.safetensors``.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def append(self, *observations: Observation) -> None:
        """Write rows whole and flush them to disk.

        Raises
        ------
        StoreError
            The disk is full, or the file cannot be written. What was stored before stays readable.
        """
        if not observations:
            return
        data = "".join(row.to_json() + "\n" for row in observations).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+", buffering=0) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                end = file.seek(0, os.SEEK_END)
                if end and os.pread(file.fileno(), 1, end - 1) != b"\n":
                    data = b"\n" + data  # the line before was torn: keep ours whole
                try:
                    while data:
                        data = data[file.write(data) :]
                    os.fsync(file.fileno())
                except OSError:
                    os.ftruncate(file.fileno(), end)
                    raise
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path}: {error.strerror}",
                fix="free some space or choose another folder; what was stored before is unharmed",
            ) from error

    def __iter__(self) -> Iterator[Observation]:
        """Rows in the order written; where a key occurs twice, the later row, in the earlier one's place."""
        rows: dict[str, Observation] = {}
        for number, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            try:
                row = Observation.from_json(line)
            except ValueError as error:
                log.warning("%s line %d is damaged and left out: %s", self.path, number, error)
                continue
            rows[row.key] = row
        yield from rows.values()

    def keys(self) -> set[str]:
        """Keys of all readable rows."""
        return {row.key for row in self}

    def select(self, **wanted: Scalar) -> list[Observation]:
        """Rows whose columns and settings have these values: ``select(model="gpt2", metric="loss", context=512)``."""

        def value(row: Observation, name: str) -> object:
            return getattr(row, name) if name in row.__dataclass_fields__ else row.provenance.settings.get(name)

        return [row for row in self if all(value(row, name) == what for name, what in wanted.items())]

    def frame(self) -> pd.DataFrame:
        """All rows as a table: one column per field and one per setting (a field's name wins)."""
        import pandas as pd

        table = []
        for row in self:
            flat = {f.name: getattr(row, f.name) for f in fields(row)}
            table.append({**row.provenance.settings, **flat, "key": row.key})
        columns = [f.name for f in fields(Observation)] + ["key"]
        return pd.DataFrame(table) if table else pd.DataFrame(columns=columns)

    def save_arrays(self, key: str, arrays: Mapping[str, np.ndarray]) -> Path:
        """Keep arrays under an observation's key; the file appears whole or not at all."""
        import numpy as np
        from safetensors.numpy import save_file

        target = self._array_path(key)
        whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # strides are not kept
        with atomic(target) as temporary:
            save_file(whole, temporary)
        return target

    def load_arrays(self, key: str) -> dict[str, np.ndarray]:
        """Arrays kept under a key.

        Raises
        ------
        StoreError
            There are none, or the file is damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            return load_file(self._array_path(key))
        except (OSError, SafetensorError) as error:
            raise StoreError(f"no readable arrays under {key} in {self.path.parent}: {error}") from error

    def _array_path(self, key: str) -> Path:
        return self.path.parent / "arrays" / f"{key}.safetensors"

    def _lines(self) -> list[str]:
        try:
            if self.path.exists() and not self.path.is_file():
                raise StoreError(f"{self.path} is not a regular file", expected="a JSONL file of observations")
            return self.path.read_bytes().decode("utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"cannot read {self.path}: {error.strerror}") from error


def with_settings(observation: Observation, **settings: Scalar) -> Observation:
    """The same observation with more settings (and so another key)."""
    provenance = observation.provenance
    merged = {**provenance.settings, **settings}
    return replace(observation, provenance=replace(provenance, settings=merged))


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
