"""Published figures as data: read point by point, they pass through the same code as our own.

Each table (``.tsv``) is a figure of arXiv:2505.10465; its first line says which, with what reading error and how the
reading was checked. ``published.toml`` holds what the text prints.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llmprobe.fitting import FitResult
from llmprobe.observations import Observation, Provenance
from llmprobe.report.published.tables import figure, fit_losses, model_facts, published_losses, source, width_fit

__all__ = [
    "PublishedExponent",
    "figure",
    "fit_losses",
    "published_exponents",
    "published_losses",
    "published_overlaps",
    "published_table",
    "source",
    "width_fit",
]
OVERLAP_ERROR = 1e-4
"""Relative reading error of Figure 8a."""


@dataclass(frozen=True)
class PublishedExponent:
    """An exponent: `quantity` and `about` say of what; `stderr` and `ci95` are None where nothing gives one.

    Where `value` is a refit of the paper's data, `fit` is that and `printed` the paper's own figure; elsewhere `value`
    is as printed.
    """

    name: str
    quantity: str
    value: float
    source: str
    about: Literal["toy", "llm"]
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    printed: str = ""
    fit: FitResult | None = None


@cache
def published_table() -> dict[str, Any]:
    """Everything in ``published.toml``."""
    return tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))


@cache
def published_exponents() -> tuple[PublishedExponent, ...]:
    """Exponents of arXiv:2505.10465 and arXiv:2602.01045.

    That of the 27 models is the refit of their 108 losses with its error clustered by model, the printed one beside.
    """
    return tuple(_exponent(**row) for row in published_table()["exponents"])


def _exponent(*, refit: bool = False, **row: Any) -> PublishedExponent:
    printed = PublishedExponent(**row)
    return _refitted(printed) if refit else printed


def _refitted(row: PublishedExponent) -> PublishedExponent:
    result, printed = width_fit(), f"{row.value:g} ± {row.stderr:g}"
    return replace(
        row,
        value=result.params["alpha_m"],
        stderr=result.stderr["alpha_m"],
        ci95=result.ci95["alpha_m"],
        fit=result,
        printed=printed,
        source=f"{row.source}: its 108 losses refitted, error clustered by model; printed {printed}",
    )


def published_overlaps(study: str) -> list[Observation]:
    """Mean c² of the raw unembedding rows of 25 models (arXiv:2505.10465, Figure 8a)."""
    record = {"source": source("fig8a_overlaps")}
    rows = zip(*(figure("fig8a_overlaps")[name] for name in ("model", "m_read", "mean_square_overlap")), strict=True)
    return [
        Observation(
            study=study,
            source_kind="published",
            family=model_facts(name)["family"],
            model=model_facts(name)["model"],
            m=int(m),
            metric="mean_sq_cos",
            value=float(value),
            stderr=float(value) * OVERLAP_ERROR,
            provenance=Provenance(record=record),
        )
        for name, m, value in rows
    ]
