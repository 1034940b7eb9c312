"""TOML tables a user may write: rows of frozen dataclasses, every key and type checked, every mistake named."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from llmprobe.errors import ConfigError

Row = TypeVar("Row")


def read_table(path: Path, what: str) -> dict[str, Any]:
    """A TOML file as a table; `ConfigError` says that a file of `what` was expected."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"{path} is not a regular file", expected=f"a TOML file of {what}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", expected=f"a TOML file of {what}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def load_tables(make: Callable[[str, str, Any], Row], what: str, built_in: Path, *files: str | Path) -> dict[str, Row]:
    """Rows by name of a table built in, then of each file in turn; a later row of the same name replaces an earlier.

    Parameters
    ----------
    make
        A row from what to call it in errors, its name, and what the file says.
    what
        What the rows are, in the plural.
    built_in
        The file that the package carries, read once.
    files
        A user's own.

    Raises
    ------
    ConfigError
        A file is not there or not TOML, or holds a row that `make` refuses.
    """
    rows = dict(_built_in(make, what, built_in))
    for file in files:
        rows.update(_rows(make, what, Path(file).expanduser()))
    return rows


def checked_row(kind: type[Row], where: str, row: Any, **given: Any) -> Row:
    """A dataclass from a table's row.

    Parameters
    ----------
    kind
        The dataclass: its fields are the keys, its annotations their types.
    where
        What to call the row in errors.
    row
        What the file says.
    given
        Fields that are not the file's to say.

    Raises
    ------
    ConfigError
        The row is not a table, or has an unknown key, a wrong type, a negative number, or lacks a key.
    """
    if not isinstance(row, dict):
        raise ConfigError(f"{where} is {row!r}", expected="a table of keys")
    types = {name: hint for name, hint in get_type_hints(kind).items() if name not in given}
    if unknown := sorted(set(row) - set(types)):
        raise ConfigError(f"{where} has the unknown key {', '.join(unknown)}", expected=f"among {', '.join(types)}")
    required = {f.name for f in fields(kind) if f.default is MISSING}  # type: ignore[arg-type]
    if missing := sorted(required - set(row) - set(given)):
        raise ConfigError(f"{where} lacks {', '.join(missing)}")
    for key, value in row.items():
        allowed = tuple(t for t in get_args(types[key]) or (types[key],) if isinstance(t, type))
        if type(value) not in allowed:
            names = " or ".join(t.__name__ for t in allowed if t is not type(None))
            raise ConfigError(f"{where}: {key} = {value!r}", expected=f"of type {names}")
        if type(value) is int and value < 0:
            raise ConfigError(f"{where}: {key} = {value}", expected="not negative")
    return kind(**row, **given)


@cache
def _built_in(make: Callable[[str, str, Any], Row], what: str, path: Path) -> dict[str, Row]:
    return _rows(make, what, path)


def _rows(make: Callable[[str, str, Any], Row], what: str, path: Path) -> dict[str, Row]:
    return {name: make(f"{path.name} [{name}]", name, row) for name, row in read_table(path, what).items()}
