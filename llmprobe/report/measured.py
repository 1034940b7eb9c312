"""What a frame of observations says of each matrix: one row per identity, the latest value of each metric.

Whatever the store lacks is NaN here, so nothing that reads these can fail on a damaged or hand-written line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from llmprobe.overlap.regime import Regime, regime

CONTROL = "control"  # family of rows that stand for a matrix nobody trained


@dataclass(frozen=True)
class Matrix:
    """One measured matrix.

    Attributes
    ----------
    name
        Its model, with what tells it from other measurements of the same model.
    kind
        ``llm``, ``toy`` or ``control``.
    family
        As stored.
    n, m
        Rows and width.
    values, errors
        Metrics by name and their standard errors.
    key
        Of one of its observations.
    """

    name: str
    kind: Literal["llm", "toy", "control"]
    family: str
    n: int
    m: int
    values: Mapping[str, float]
    errors: Mapping[str, float]
    key: str

    def value(self, metric: str) -> float:
        """A metric, NaN where it was not measured."""
        return self.values.get(metric, math.nan)

    def times_m(self, metric: str) -> float:
        """A mean square in units of 1/m."""
        return self.value(metric) * self.m

    @property
    def regime(self) -> Regime:
        """By `llmprobe.overlap.regime.RULE`."""
        error = self.errors.get("superposition", 0.0)
        return regime(self.value("superposition"), error, self.times_m("centered_mean_sq_cos"))


def matrices(frame: pd.DataFrame) -> list[Matrix]:
    """Every matrix of which an overlap is stored, models first, then controls and toys."""
    sized = (pd.to_numeric(frame["n"], errors="coerce") > 0) & (pd.to_numeric(frame["m"], errors="coerce") > 0)
    rows = frame[sized & (frame["source_kind"] != "published")]
    rows = rows[rows["metric"].isin({"mean_sq_cos", "superposition", "represented_fraction"}) | _beside(rows)]
    groups: dict[tuple[str, ...], list[Any]] = {}
    for row in rows.itertuples():
        own = json.dumps(dict(row.provenance.settings), sort_keys=True, default=str)
        identity = (row.study, row.source_kind, row.model, row.revision, str(row.step), f"{row.n:g}", f"{row.m:g}", own)
        groups.setdefault(identity, []).append(row)
    names = _names(groups)
    found = [_matrix(name, group) for name, group in zip(names, groups.values(), strict=True)]
    order = {"llm": 0, "control": 1, "toy": 2}
    return sorted((m for m in found if m.values), key=lambda one: (order[one.kind], one.family, one.m))


def _beside(rows: pd.DataFrame) -> pd.Series:
    return rows["metric"].str.match("centered_|mean_|norm_|participation_ratio|phi_")


def _matrix(name: str, rows: list[Any]) -> Matrix:
    last = rows[-1]
    kind: Literal["llm", "toy", "control"] = "control" if last.family == CONTROL else last.source_kind
    values = {row.metric: float(row.value) for row in rows}
    errors = {row.metric: float(row.stderr) for row in rows if row.stderr is not None and row.stderr == row.stderr}
    return Matrix(name, kind, str(last.family), int(last.n), int(last.m), values, errors, str(last.key))


def _names(groups: Mapping[tuple[str, ...], list[Any]]) -> list[str]:
    """Names of matrices; where several would have one, what differs in their settings is added."""
    plain = []
    for rows in groups.values():
        row = rows[-1]
        toy = row.source_kind == "toy" and row.family != CONTROL
        plain.append(f"{row.family.replace('toy-', 'toy ')}, m = {row.m:g}" if toy else row.model or row.family or "?")
    tables = [dict(rows[-1].provenance.settings) | {"revision": rows[-1].revision} for rows in groups.values()]
    together: dict[str, list[dict[str, Any]]] = {}
    for name, own in zip(plain, tables, strict=True):
        together.setdefault(name, []).append(own)
    telling = {name: [k for k in own[0] if len({str(t.get(k)) for t in own}) > 1][:3] for name, own in together.items()}
    return [
        name + "".join(f", {k} {own[k]}" for k in telling[name] if own.get(k) not in (None, ""))
        for name, own in zip(plain, tables, strict=True)
    ]
