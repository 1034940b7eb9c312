"""Published figures as observations and exponents, so that they pass through the same code as our own."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from llmprobe.observations import Observation, Provenance


@dataclass(frozen=True)
class PublishedExponent:
    """An exponent as printed: `quantity` and `about` say of what, `stderr` is None where none was given."""

    name: str
    quantity: str
    value: float
    source: str
    about: Literal["toy", "llm"]
    stderr: float | None = None


@cache
def published_table() -> dict[str, Any]:
    """Everything in ``published.toml``."""
    return tomllib.loads(Path(__file__).with_name("published.toml").read_text(encoding="utf-8"))


def published_exponents() -> tuple[PublishedExponent, ...]:
    """Exponents of arXiv:2505.10465 and arXiv:2602.01045."""
    return tuple(PublishedExponent(**row) for row in published_table()["exponents"])


def published_overlaps(study: str) -> list[Observation]:
    """Mean c² of the raw unembedding rows of 25 models (arXiv:2505.10465, Figure 8a)."""
    table = published_table()["overlaps"]
    return [
        Observation(
            study=study,
            source_kind="published",
            family=row["family"],
            model=row["id"],
            m=row["m"],
            metric="mean_sq_cos",
            value=row["mean_sq_cos"],
            stderr=row["mean_sq_cos"] * table["reading_error"],
            provenance=Provenance(record={"source": table["source"]}),
        )
        for row in table["values"]
    ]
