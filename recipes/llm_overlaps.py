"""Do the unembedding vectors of language models overlap as superposition predicts, about 1/m?

Reads one matrix of each model of the families named (about 2 % of its bytes), measures its overlaps raw and centered,
fits mean cos² against width with the common fit, and sets the published figures (arXiv:2505.10465, Figure 8a) beside
them. What is measured is kept: after an interruption run the same command to resume. A model that fails does not stop
the others; it is named at the end, and the exit status is 1.

    python recipes/llm_overlaps.py --families pythia opt            # 10 + 8 models
    python recipes/llm_overlaps.py --toml mine.toml --families mine
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from llmprobe import console
from llmprobe.families import load_families, members
from llmprobe.measurements import OverlapSettings, overlap_work
from llmprobe.observations import ObservationStore
from llmprobe.plan import Planned, tell_plan
from llmprobe.report.exponents import exponents
from llmprobe.report.published import published_overlaps
from llmprobe.report.write import write_report
from llmprobe.settings import Count
from llmprobe.study import run
from toymodels.executors import Workers

STUDY = "llm_overlaps"


@dataclass(frozen=True, kw_only=True)
class Config(Workers, Planned, OverlapSettings):
    """Overlaps of whole families of models against width."""

    families: tuple[str, ...] = ("gpt2", "pythia")
    """Names as `llmprobe families` lists them."""
    largest: Count | None = None
    """Leave out models wider than this."""
    drop_zero_rows: bool = True
    """Leave out rows of norm zero instead of refusing them."""
    out: Path = Path("runs/llm_overlaps")
    """Where observations, figures and the page go."""


def main(config: Config) -> int:
    """Measure every model that is not measured yet; returns the exit status."""
    models = members(load_families(*config.toml), config.families, config.largest)
    store = ObservationStore(config.out / "observations.jsonl")
    work = [overlap_work(STUDY, member.id, config, size=member.m) for _, member in models]
    if config.plan:
        tell_plan(store, work, config, config.toml, workers=config.workers)
        return 0
    known = store.keys()
    store.append(*[row for row in published_overlaps(STUDY) if row.key not in known])
    with config.executor() as pool:
        failed = run(work, store, pool, progress=console.progress)
    page = write_report(config.out)
    found = [e for e in exponents(store.frame()) if e.quantity == "overlap vs width"]
    shown = [(e.name, e.value, e.stderr, e.n_points, e.x_range[0], e.x_range[1]) for e in found]
    console.say(console.table(shown, ("overlap against width", "exponent", "±", "models", "m from", "to")))
    console.say(f"\nopen {page.resolve()}")
    for name, why in failed.items():
        console.say(f"failed: {name}: {why}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
