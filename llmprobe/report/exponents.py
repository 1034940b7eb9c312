"""Exponents side by side: toy, real and published, all from the same `fit`.

What is compared is a table of questions, not branches: each row names the observations it takes, the law it fits and
what makes one curve. A curve with too few widths is left out, and said so by its absence from the table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import pandas as pd

from llmprobe.errors import FitError
from llmprobe.fitting.alternatives import compare_curves
from llmprobe.fitting.estimator import FitResult, fit
from llmprobe.fitting.law import Offset, PowerLawSum
from llmprobe.report.published import PublishedExponent, published_exponents

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
    curve
        Columns whose values together make one curve; curves of different values are fitted apart.
    x
        Column of the power law.
    offset
        ``none``, one ``shared`` by the curve, or one per ``group`` of `groups`.
    groups
        Columns whose values together make a group.
    fewest
        Distinct x's a curve must have.
    """

    quantity: str
    source_kind: Kind
    metric: str
    curve: tuple[str, ...]
    x: str = "m"
    offset: Offset = "none"
    groups: tuple[str, ...] = ()
    fewest: int = 3


TOY_CURVE = ("family", "frequency_law", "data_exponent", "activation_density", "weight_decay", "n", "step")
QUESTIONS = (
    Question("loss vs width", "toy", "loss", TOY_CURVE),
    Question("overlap vs width", "toy", "mean_sq_cos", TOY_CURVE),
    Question("loss vs width", "llm", "loss", ("family",), offset="group", groups=("corpus",), fewest=4),
    Question("loss vs width", "llm", "loss", (), offset="group", groups=("family", "corpus"), fewest=4),
    Question("overlap vs width", "llm", "mean_sq_cos", ("family",)),
    Question("overlap vs width", "llm", "mean_sq_cos", ()),
    Question("overlap vs width", "published", "mean_sq_cos", ("family",)),
    Question("overlap vs width", "published", "mean_sq_cos", ()),
    Question("loss vs training", "llm", "loss", ("model", "corpus"), x="tokens", offset="shared", fewest=5),
)
MOST_CURVES, COMPARED = 200, 40  # curves of a question that are fitted, and set beside other curves
TIME_EXPONENT = "time_exponent"  # a metric that is an exponent already, fitted where its curve was trained


@dataclass(frozen=True)
class Exponent:
    """One exponent with what it rests on.

    Attributes
    ----------
    name, quantity
        Of what, and what falls with what.
    kind, about
        Where it comes from, and whether it is of a ``toy`` or of language models (``llm``).
    value, stderr, ci95
        The exponent with its standard error and 95 % interval; NaN where it is not identified.
    n_points, x_range
        Points fitted, and the smallest and largest x.
    warnings
        What a reader must know, in sentences.
    fit
        None for figures taken as printed.
    source
        Where a published figure stands.
    family, keys
        Of the observations fitted.
    best_curve
        The curve with the lowest corrected Akaike criterion and its share of the evidence; empty if untold.
    """

    name: str
    quantity: str
    kind: Kind
    about: Literal["toy", "llm"]
    value: float
    stderr: float
    ci95: tuple[float, float]
    n_points: int = 0
    x_range: tuple[float, float] = (math.nan, math.nan)
    warnings: tuple[str, ...] = ()
    fit: FitResult | None = None
    source: str = "this run"
    family: str = ""
    keys: tuple[str, ...] = ()
    best_curve: str = ""

    @property
    def title(self) -> str:
        """Its name, and whether it is a printed figure."""
        return self.name if self.kind != "published" or self.fit else f"{self.name}, as printed"

    @property
    def identified(self) -> bool:
        """Whether there is a value whose 95 % interval leaves out 0; else not even that the quantity falls is known."""
        return math.isfinite(self.value) and not self.ci95[0] <= 0 <= self.ci95[1]

    @property
    def sigmas_from_one(self) -> float:
        """Distance from 1 in standard errors; NaN without one."""
        return (self.value - 1) / self.stderr if self.stderr > 0 else math.nan


@dataclass(frozen=True)
class Difference:
    """Exponent of a toy minus that of language models, with its standard error."""

    toy: str
    real: str
    quantity: str
    value: float
    stderr: float


def differences(found: Sequence[Exponent]) -> list[Difference]:
    """Every toy exponent against every exponent of language models of the same quantity, measured or published."""
    usable = [e for e in found if math.isfinite(e.value) and e.stderr > 0]
    return [
        Difference(toy.name, real.name, toy.quantity, toy.value - real.value, math.hypot(toy.stderr, real.stderr))
        for toy in usable
        for real in usable
        if toy.kind == "toy" and real.about == "llm" and toy.quantity == real.quantity
    ]


def exponents(frame: pd.DataFrame) -> list[Exponent]:
    """Every exponent that the observations allow, then those published.

    Parameters
    ----------
    frame
        `ObservationStore.frame()`.
    """
    found = [exponent for question in QUESTIONS for exponent in _answers(question, frame)]
    return [*found, *_measured_in_time(frame), *map(_published, published_exponents())]


def _published(row: PublishedExponent) -> Exponent:
    stderr = math.nan if row.stderr is None else row.stderr
    return Exponent(
        name=row.name,
        quantity=row.quantity,
        kind="published",
        about=row.about,
        value=row.value,
        stderr=stderr,
        ci95=row.ci95 or (row.value - 1.96 * stderr, row.value + 1.96 * stderr),
        n_points=row.fit.n_points if row.fit else 0,
        fit=row.fit,
        source=row.source,
    )


def curves(question: Question, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Name and rows of each curve of a question; the name says what differs between curves."""
    rows = frame[(frame["source_kind"] == question.source_kind) & (frame["metric"] == question.metric)]
    rows = rows[rows[question.x].notna()]
    columns = [column for column in question.curve if column in rows.columns]
    if rows.empty:
        return
    if not question.curve:
        yield KIND_NAMES[question.source_kind], rows
        return
    if question.source_kind == "llm" and question.x == "m":
        rows = rows[rows["family"] != ""]
        if rows["family"].nunique() < 2:  # one family alone is the joint curve again
            return
    differing = [column for column in columns if rows[column].nunique(dropna=False) > 1] or columns[:1]
    for values, curve in rows.groupby(columns, dropna=False, sort=True):
        at = dict(zip(columns, values, strict=True))
        name = ", ".join(_setting(column, at[column]) for column in differing)
        yield f"{name}, published overlaps" if question.source_kind == "published" else name, curve


KIND_NAMES = {"toy": "toy", "llm": "language models, measured here", "published": "all families, published overlaps"}
SYMBOLS = {"data_exponent": "α", "activation_density": "E", "weight_decay": "γ", "n": "n", "step": "steps"}


def _setting(column: str, value: object) -> str:
    text = f"{value:g}" if isinstance(value, int | float) else str(value).replace("toy-", "toy ")
    return f"{SYMBOLS[column]} = {text}" if column in SYMBOLS else text


def _answers(question: Question, frame: pd.DataFrame) -> Iterator[Exponent]:
    if frame.empty:
        return
    for number, (name, rows) in enumerate(islice(curves(question, frame), MOST_CURVES)):
        if rows[question.x].nunique() >= question.fewest:
            yield _answer(question, name, rows, compared=number < COMPARED)


def _answer(question: Question, name: str, rows: pd.DataFrame, *, compared: bool) -> Exponent:
    """The exponent of one curve; NaN, with the reason as a warning, where it cannot be fitted."""
    x = rows[question.x].to_numpy(dtype=float)
    group = rows[list(question.groups)].agg("/".join, axis=1).to_numpy() if question.groups else None
    families = set(rows["family"])
    about: dict[str, Any] = {
        "name": name,
        "quantity": question.quantity,
        "kind": question.source_kind,
        "about": "toy" if question.source_kind == "toy" else "llm",
        "n_points": len(x),
        "x_range": (float(x.min()), float(x.max())),
        "family": families.pop() if len(families) == 1 else "",
        "keys": tuple(rows["key"]),
    }
    try:
        law = PowerLawSum((question.x,), offset=question.offset)
        result = fit(law, x, rows["value"].to_numpy(dtype=float), group=group)
    except FitError as error:
        return Exponent(**about, value=math.nan, stderr=math.nan, ci95=(math.nan, math.nan), warnings=(str(error),))
    exponent = f"alpha_{question.x}"
    stderr = result.stderr[exponent]
    return Exponent(
        **about,
        value=result.params[exponent] if math.isfinite(stderr) else math.nan,  # at a bound it is no measurement
        stderr=stderr,
        ci95=result.ci95[exponent],
        warnings=result.warnings,
        fit=result,
        best_curve=_best_curve(result) if compared else "",
    )


def _best_curve(result: FitResult) -> str:
    if result.law.grouped:
        return ""
    try:
        best = compare_curves(result)[0]
    except FitError:
        return ""
    return f"{best.name} ({best.weight:.0%})" if math.isfinite(best.aicc) else "too few points to tell"


def _measured_in_time(frame: pd.DataFrame) -> Iterator[Exponent]:
    """Exponents in training time that toy runs stored as such, seeds of one setting averaged."""
    rows = frame[frame["metric"] == TIME_EXPONENT] if not frame.empty else frame
    columns = [column for column in ("student", "a", "b", "n", "k") if column in rows.columns]
    if rows.empty:
        return
    for values, group in rows.groupby(columns, dropna=False, sort=True) if columns else [((), rows)]:
        at = dict(zip(columns, values, strict=True))
        value, count = float(group["value"].mean()), len(group)
        spread = float(group["value"].std()) / math.sqrt(count) if count > 1 else math.nan
        fitted = [e for e in group["stderr"] if e is not None and math.isfinite(e)]
        stderr = spread if count > 1 else (fitted[0] if fitted else math.nan)
        name = ", ".join(f"{column} = {v:g}" if isinstance(v, int | float) else str(v) for column, v in at.items())
        yield Exponent(
            name=name,
            quantity="loss vs training time",
            kind="toy",
            about="toy",
            value=value,
            stderr=stderr,
            ci95=(value - 1.96 * stderr, value + 1.96 * stderr),
            n_points=count,
            keys=tuple(group["key"]),
        )
