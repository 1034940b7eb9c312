"""The exponents as files for a paper: CSV, JSON and LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from llmprobe.cache import atomic
from llmprobe.names import cell, tex
from llmprobe.report.exponents import Exponent

COLUMNS = (
    "name",
    "quantity",
    "kind",
    "exponent",
    "stderr",
    "ci95 low",
    "ci95 high",
    "σ from 1",
    "points",
    "x from",
    "x to",
    "R²",
    "best of six curves",
)


def write_numbers(folder: Path, found: Sequence[Exponent]) -> None:
    """Write ``exponents.csv``, ``.json`` and ``.tex``; `StoreError` if the folder cannot be written."""
    table = pd.DataFrame([[cell(value) for value in row(e)] for e in found], columns=list(COLUMNS))
    write(folder / "exponents.csv", table.to_csv(index=False))
    rows = [
        {**dict(zip(COLUMNS, row(e), strict=True)), "warnings": list(e.warnings), "source": e.source} for e in found
    ]
    clean = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in r.items()} for r in rows]
    write(folder / "exponents.json", json.dumps(clean, indent=1, ensure_ascii=False))
    write(folder / "exponents.tex", _latex(found))


def row(e: Exponent) -> list[object]:
    """One exponent, in the order of `COLUMNS`."""
    r2 = e.fit.r2 if e.fit else math.nan
    start = [e.title, e.quantity, e.kind, e.value, e.stderr, *e.ci95, e.sigmas_from_one]
    return [*start, e.n_points or None, *e.x_range, r2, e.best_curve]


def told(e: Exponent) -> str:
    """Value ± standard error, or that the data identify none."""
    if e.identified:
        return f"{e.value:.2f} ± {e.stderr:.2f}" if math.isfinite(e.stderr) else f"{e.value:.2f}"
    known = all(math.isfinite(limit) for limit in e.ci95)
    return "not identified" + (f" (95 % from {e.ci95[0]:.2g} to {e.ci95[1]:.2g})" if known else "")


def write(path: Path, text: str) -> None:
    """Write a file of text whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _latex(found: Sequence[Exponent]) -> str:
    lines = [r"\begin{tabular}{llrr}", r"what & quantity & exponent & points \\ \hline"]
    for e in found:
        error = rf" \pm {e.stderr:.2f}" if math.isfinite(e.stderr) else ""
        value = f"${e.value:.2f}{error}$" if e.identified else "not identified"
        lines.append(rf"{tex(e.name)} & {tex(e.quantity)} & {value} & {e.n_points or '--'} \\")
    return "\n".join([*lines, r"\end{tabular}", ""])
