"""Exponents side by side: toy, real and published, all from the same `fit`.

What is compared is a table of questions, not branches: each row names the observations it takes, the law it fits and
what makes one curve. A curve with too few widths is left out, and said so by its absence from the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from llmprobe.errors import FitError
from llmprobe.fit import FitResult, fit
from llmprobe.laws import PowerLawSum
from llmprobe.published import published_exponents

Kind = Literal["toy", "llm", "published"]


@dataclass(frozen=True)
class Question:
    """One exponent to ask for.

    Attributes
    ----------
    quantity
        What falls with what.
    source_kind, metric
        The observations that answer it.
    law
        Fitted to each curve.
    curve
        Columns whose values together make one curve; curves of different values are fitted apart.
    offsets
        Columns whose values each have an offset of their own within a curve.
    fewest
        Distinct x's a curve must have.
    """

    quantity: str
    source_kind: Kind
    metric: str
    law: PowerLawSum
    curve: tuple[str, ...]
    offsets: tuple[str, ...] = ()
    fewest: int = 3


TOY_CURVE = ("family", "frequency_law", "data_exponent", "activation_density", "weight_decay", "n", "step")
QUESTIONS = (
    Question("loss vs width", "toy", "loss", PowerLawSum(("m",)), TOY_CURVE),
    Question("overlap vs width", "toy", "mean_sq_cos", PowerLawSum(("m",)), TOY_CURVE),
    Question("loss vs width", "llm", "loss", PowerLawSum(("m",), offset="group"), (), ("family", "corpus"), fewest=4),
    Question("overlap vs width", "llm", "mean_sq_cos", PowerLawSum(("m",)), ()),
    Question("overlap vs width", "published", "mean_sq_cos", PowerLawSum(("m",)), ()),
    Question("overlap vs width", "published", "mean_sq_cos", PowerLawSum(("m",)), ("family",)),
)


@dataclass(frozen=True)
class Exponent:
    """One exponent with what it rests on.

    `fit` is None for figures taken as printed; `x_range` is the smallest and largest x fitted.
    """

    name: str
    quantity: str
    kind: Kind
    value: float
    stderr: float
    ci95: tuple[float, float]
    n_points: int
    x_range: tuple[float, float]
    warnings: tuple[str, ...]
    fit: FitResult | None = None
    source: str = "this run"

    @property
    def sigmas_from_one(self) -> float:
        """Distance from 1 in standard errors; NaN without one."""
        return (self.value - 1) / self.stderr if self.stderr > 0 else math.nan


def exponents(frame: pd.DataFrame) -> list[Exponent]:
    """Every exponent that the observations allow, then those published.

    Parameters
    ----------
    frame
        `ObservationStore.frame()`.
    """
    found = [exponent for question in QUESTIONS for exponent in _answers(question, frame)]
    for row in published_exponents():
        stderr = math.nan if row.stderr is None else row.stderr
        ci95 = (row.value - 1.96 * stderr, row.value + 1.96 * stderr)
        nothing = (math.nan, math.nan)
        found.append(
            Exponent(row.name, row.quantity, "published", row.value, stderr, ci95, 0, nothing, (), None, row.source)
        )
    return found


def curves(question: Question, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and rows of each curve of a question; the name says what differs between curves."""
    rows = frame[(frame["source_kind"] == question.source_kind) & (frame["metric"] == question.metric)]
    rows = rows[rows["m"].notna()]
    columns = [column for column in question.curve if column in rows.columns]
    if not columns or rows.empty:
        if not rows.empty:
            yield KIND_NAMES[question.source_kind], rows
        return
    differing = [column for column in columns if rows[column].nunique(dropna=False) > 1] or columns[:1]
    for values, curve in rows.groupby(columns, dropna=False, sort=True):
        at = dict(zip(columns, values, strict=True))
        name = ", ".join(_setting(column, at[column]) for column in differing)
        yield f"{name}, published overlaps" if question.source_kind == "published" else name, curve


KIND_NAMES = {"toy": "toy", "llm": "language models, measured here", "published": "language models, published overlaps"}
SYMBOLS = {"data_exponent": "α", "activation_density": "E", "weight_decay": "γ", "n": "n", "step": "steps"}


def _setting(column: str, value: object) -> str:
    text = f"{value:g}" if isinstance(value, int | float) else str(value).replace("toy-", "toy ")
    return f"{SYMBOLS[column]} = {text}" if column in SYMBOLS else text


def _answers(question: Question, frame: pd.DataFrame) -> Iterator[Exponent]:
    if frame.empty:
        return
    for name, rows in curves(question, frame):
        m = rows["m"].to_numpy(dtype=float)
        if len(np.unique(m)) < question.fewest:
            continue
        group = rows[list(question.offsets)].agg("/".join, axis=1).to_numpy() if question.offsets else None
        try:
            result = fit(question.law, {"m": m}, rows["value"].to_numpy(dtype=float), group=group)
        except FitError as error:
            nan = (math.nan, math.nan)
            span = (float(m.min()), float(m.max()))
            yield Exponent(
                name, question.quantity, question.source_kind, math.nan, math.nan, nan, len(m), span, (str(error),)
            )
            continue
        yield Exponent(
            name=name,
            quantity=question.quantity,
            kind=question.source_kind,
            value=result.params["alpha_m"],
            stderr=result.stderr["alpha_m"],
            ci95=result.ci95["alpha_m"],
            n_points=result.n_points,
            x_range=(float(m.min()), float(m.max())),
            warnings=result.warnings,
            fit=result,
        )
