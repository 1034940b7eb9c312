"""One line of an observation store, read as data that a hand, another version or a fault may have written."""

from __future__ import annotations

import json
import math
import zlib
from typing import Any

TEXTS = ("study", "source_kind", "metric", "unit", "family", "model", "revision", "corpus")
COUNTS = ("m", "depth", "n", "n_params", "tokens", "step", "n_samples")
NUMBERS = ("value", "stderr")
KINDS = ("llm", "toy", "published")
LARGEST = 1 << 63


def sealed(body: str) -> str:
    """A JSON object with the checksum of its text as its last key."""
    return f'{body[:-1]},"crc":"{_checksum(body)}"}}'


def parsed(line: str) -> dict[str, Any]:
    """The columns of a line, each of its type; a null in a column that has a default is left out.

    Raises
    ------
    ValueError
        The line is not JSON, does not match its checksum, or holds a value of a wrong type. A line without a checksum
        (written by hand) is taken as it stands.
    """
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    crc = row.pop("crc", None)
    if crc is not None and (',"crc"' not in line or _checksum(line[: line.rindex(',"crc"')] + "}") != crc):
        raise ValueError("checksum does not match")
    row.pop("key", None)
    row = {name: value for name, value in row.items() if value is not None}
    for name in TEXTS:
        if not isinstance(row.get(name, ""), str):
            raise ValueError(f"{name} is {row[name]!r}, not a text")
    if row.get("source_kind") not in KINDS:
        raise ValueError(f"source_kind is {row.get('source_kind')!r}, not one of {', '.join(KINDS)}")
    for name in COUNTS:
        if name in row:
            row[name] = _count(name, row[name])
    for name in NUMBERS:
        if name in row:
            row[name] = _number(name, row[name])
    if math.isnan(row.get("stderr", 0.0)):
        del row["stderr"]
    return row


def provenance(found: Any) -> dict[str, Any]:
    """Settings and record of a line, for `Provenance`; `ValueError` if they are not tables of settings and facts."""
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise ValueError("provenance is not a table")
    if unknown := sorted(set(found) - {"settings", "record"}):
        raise ValueError(f"provenance has the unknown key {', '.join(unknown)}")
    parts = {name: table for name, table in found.items() if table is not None}
    if not all(isinstance(table, dict) for table in parts.values()):
        raise ValueError("settings and record are not tables")
    if not all(isinstance(value, str | int | float | None) for value in parts.get("settings", {}).values()):
        raise ValueError("a setting is neither a text nor a number")
    return parts


def finite(value: Any) -> Any:
    """The same value with null for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(name): finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST < value < LARGEST or value % 1:
        raise ValueError(f"{name} is {value!r}, not a whole number")
    return int(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} is {value!r}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"{name} is too large") from None


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
