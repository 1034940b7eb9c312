"""Files of rows as data frames, their labels text and their numbers numbers, and nothing in between.

Observations (``.jsonl``) come through their store. Any other file is delimited text with a header line. Its cells stay
text until a column is asked for as numbers, so ``01`` and ``1`` are two labels and ``NA`` is one; a cell that is not
exactly a number is named, never guessed at.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llmprobe.errors import FitError
from llmprobe.observations import ObservationStore

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
MISSING = {"", "na", "n/a", "nan", "null", "none", "-", "–"}  # where a number is wanted; a label is never missing so


def read_frame(path: Path) -> pd.DataFrame:
    """Observations or a delimited table, one row per point.

    A table's separator is the one of commas, tabs, semicolons and bars that its header holds. Lines that start with
    ``#`` are comments; anywhere else the sign is text. Blank lines are passed over.

    Raises
    ------
    FitError
        There is no such file, it is not UTF-8 text, has no rows, a column without a name or two of one name, or a row
        with more or fewer cells than the header.
    """
    if not path.is_file():
        raise FitError(f"there is no file {path}", expected="a .jsonl, .csv or .tsv file")
    frame = ObservationStore(path).frame() if path.suffix == ".jsonl" else _delimited(path)
    if frame.empty:
        raise FitError(f"{path} has no rows", expected="a header line and one row per point")
    return frame


def numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as numbers, shape [rows]; `FitError` names the first cell that is none."""
    values = np.array([_number(name, cell, row) for row, cell in enumerate(frame[name], start=1)])
    missing = int(np.isnan(values).sum())
    if missing:
        raise FitError(
            f"{missing} of {len(values)} rows have no {name}",
            expected="a number in every row",
            fix="keep the rows that have one with --where, or take another column",
        )
    return values


def labels(frame: pd.DataFrame, names: Sequence[str]) -> np.ndarray:
    """Columns joined to one label per row, shape [rows]; different cells never make one label."""
    for name in names:
        if missing := sum(_absent(cell) for cell in frame[name]):
            raise FitError(f"{missing} of {len(frame)} rows have no {name}", expected="a group in every row")
    rows = [tuple(map(str, row)) for row in frame[list(names)].itertuples(index=False)]
    joined = ["/".join(row) for row in rows]
    return np.array(joined if len(set(joined)) == len(set(rows)) else [repr(row) for row in rows])


def matching(frame: pd.DataFrame, name: str, wanted: str) -> pd.DataFrame:
    """The rows whose cell is `wanted`: the same text, or, where no cell is that, the same number.

    Raises
    ------
    FitError
        Cells of different text are that number, as ``01`` and ``1`` are.
    """
    cells = [str(cell) for cell in frame[name]]
    same = [cell == wanted for cell in cells]
    if not any(same) and NUMBER.fullmatch(wanted):
        same = [bool(NUMBER.fullmatch(cell)) and float(cell) == float(wanted) for cell in cells]
        if len(texts := {cell for cell, one in zip(cells, same, strict=True) if one}) > 1:
            raise FitError(f"{name} = {wanted} is {' and '.join(sorted(texts))}", fix="name one of them as it stands")
    return frame[same]


def known(frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Raise `FitError` for columns that are not there."""
    if absent := [name for name in names if name not in frame]:
        raise FitError(f"no column {', '.join(absent)}", expected=f"some of {', '.join(map(str, frame.columns))}")


def _delimited(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        text = path.read_bytes().decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except (UnicodeDecodeError, OSError) as error:
        raise FitError(
            f"{path} is not a table: {error}", expected="UTF-8 text", fix="convert it, or use iconv"
        ) from error
    kept = [line + "\n" for line in text.split("\n") if line.strip() and not line.startswith("#")]
    if not kept:
        raise FitError(f"{path} is not a table: it is empty", expected="a header line and one row per point")
    try:
        header, *rows = csv.reader(kept, delimiter=_separator(path, kept[0]), skipinitialspace=True, strict=True)
    except csv.Error as error:
        raise FitError(f"{path} is not a table: {error}", expected="a header line and one row per point") from error
    header = [name.strip() for name in header]
    if "" in header or len(set(header)) < len(header):
        raise FitError(f"{path} has the header {', '.join(header)}", expected="a name for each column, each once")
    for number, row in enumerate(rows, start=1):
        if len(row) != len(header):
            raise FitError(
                f"row {number} of {path} has {len(row)} cells and the header {len(header)}",
                expected="as many cells as columns",
                fix="quote a cell that holds the separator",
            )
    return pd.DataFrame([[cell.strip() for cell in row] for row in rows], columns=header, dtype=object)


def _separator(path: Path, header: str) -> str:
    """The separator that the header holds; the suffix's own where it holds several, or none."""
    own = "\t" if path.suffix in (".tsv", ".tab") else ","
    held = [mark for mark in SEPARATORS if mark in header]
    if own in held or not held:
        return own
    if len(held) > 1:
        raise FitError(
            f"the header of {path} holds {' and '.join(SEPARATORS[mark] for mark in held)}",
            expected=f"columns separated by {SEPARATORS[own]}",
        )
    return held[0]


def _absent(cell: object) -> bool:
    return cell is None or cell != cell or cell == ""  # NaN alone differs from itself


def _number(name: str, cell: object, row: int) -> float:
    if isinstance(cell, str):
        if NUMBER.fullmatch(cell):
            return float(cell)
        if cell.lower() in MISSING:
            return np.nan
        if cell.lower().lstrip("+-") in ("inf", "infinity"):
            return float(cell)
        hint = "without thousands separators, with a decimal point" if re.search(r"\d[,_' ]\d", cell) else ""
        raise FitError(
            f"column {name} holds text: {cell!r} in row {row}",
            expected=f"numbers{f' {hint}' if hint else ''}",
            fix="mend the cell" if hint else "choose another column",
        )
    if cell is None:
        return np.nan
    try:
        return float(cell)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise FitError(f"column {name} holds text: {cell!r} in row {row}", expected="numbers") from error
