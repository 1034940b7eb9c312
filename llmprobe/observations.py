"""One row per measurement, kept in an append-only JSONL file that survives being killed.

Rows are appended whole, flushed and locked, so several processes may share a store. Each line ends with a checksum: a
torn or damaged line is named in a warning and left out, and everything else is read. Arrays (a trained W, a loss
curve) lie beside the rows as safetensors, one file per key. What a row says is in `llmprobe.identity`.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmprobe.cache import atomic
from llmprobe.errors import StoreError
from llmprobe.identity import Identity, Observation
from llmprobe.provenance import Provenance, Scalar

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

__all__ = ["Identity", "Observation", "ObservationStore", "Provenance", "Scalar"]
log = logging.getLogger(__name__)


class ObservationStore:
    """An append-only JSONL file of observations, with arrays beside it.

    Parameters
    ----------
    path
        The JSONL file; its folder is made at the first write. Arrays go to ``<folder>/arrays/<key>.safetensors``.

    Raises
    ------
    StoreError
        On reading or writing, not when it is made: the file cannot be read or written, or the disk is full.

    Examples
    --------
    >>> store = ObservationStore("runs/mine/observations.jsonl")
    >>> store.append(Observation(study="mine", source_kind="published", metric="loss", value=3.1, m=768))
    >>> [row.value for row in store.select(metric="loss", m=768)]
    [3.1]
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
            whole = {**row.provenance.settings, **flat}
            table.append({name: _encodable(value) for name, value in whole.items()})
        columns = [f.name for f in fields(Observation)]
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


def _encodable(value: Any) -> Any:
    """Half a surrogate pair, which JSON may hold and no table can, is written out."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
