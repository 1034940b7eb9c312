"""Toy and real side by side: every exponent that any runs have measured, on one page.

Takes the observations of runs already made (nothing is measured again), merges them, and writes the page: width
exponents of toys and of language models, overlap exponents, exponents in training time, and the published ones, each
by the same fit, with differences between toy and real and the curves that do better than a power law.

    python recipes/compare_exponents.py runs/toy_regimes runs/llm_overlaps runs/ladder
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llmprobe import console
from llmprobe.errors import ConfigError
from llmprobe.observations import ObservationStore
from llmprobe.report.exponents import exponents
from llmprobe.report.published import published_overlaps
from llmprobe.report.write import write_report


@dataclass(frozen=True)
class Config:
    """Merge the observations of several runs and compare their exponents."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders that hold observations.jsonl."""
    out: Path = Path("runs/compare")
    """Where the merged observations and the page go."""


def main(config: Config) -> Path:
    """Write the page of all runs together."""
    if not config.runs:
        raise ConfigError("no runs were named", fix="name folders under runs/, after running other recipes")
    merged = ObservationStore(config.out / "observations.jsonl")
    known = merged.keys()
    merged.append(*[row for row in published_overlaps("published") if row.key not in known])
    for run in config.runs:
        store = ObservationStore(run / "observations.jsonl")
        if not store.path.is_file():
            raise ConfigError(f"{run} holds no observations.jsonl", expected="a folder that a recipe wrote")
        merged.append(*[row for row in store if row.key not in known and row.source_kind != "published"])
    page = write_report(config.out)
    found = exponents(merged.frame())
    rows = [(e.name, e.quantity, e.value, e.stderr, e.sigmas_from_one, e.n_points or None) for e in found]
    console.say(console.table(rows, ("what", "quantity", "exponent", "±", "σ from 1", "points")))
    console.say(f"\nopen {page.resolve()}")
    return page


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
