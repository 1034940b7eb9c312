"""A first run of everything: a real language model, a toy model in two regimes, and one fit that judges both.

Measures the sample model's overlaps and loss, trains a toy of superposition at six widths with growth (strong
superposition) and with decay (weak), fits every width law with the same code, and writes one page. Under five
minutes on two cores; a second run takes seconds, because what is measured is stored.

    python recipes/quickstart.py            # or: make demo
"""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from llmprobe import console
from llmprobe.errors import SourceError
from llmprobe.loss.corpus import open_corpus
from llmprobe.measurements import LossSettings, OverlapSettings, control_work, loss_work, overlap_work
from llmprobe.observations import ObservationStore
from llmprobe.report.exponents import exponents
from llmprobe.report.published import published_overlaps
from llmprobe.report.write import write_report
from llmprobe.settings import Count, Natural, Settings
from llmprobe.study import missing, run
from toymodels.executors import executor
from toymodels.superposition.config import WIDTHS, preset
from toymodels.superposition.runs import sweep

STUDY = "quickstart"


@dataclass(frozen=True)
class Config(Settings):
    """A first look at a language model and its toy counterpart."""

    source: str = "sample:smollm2-135m"
    """The language model."""
    corpus: str = "stdlib"
    """What its loss is measured on."""
    context: Count = 512
    """Tokens per window."""
    max_tokens: Count = 10240
    """Tokens scored."""
    weight_decays: tuple[float, ...] = (-1.0, 0.3)
    """Toy regimes: growth to unit norm (below zero) gives strong superposition, decay gives weak."""
    widths: tuple[Count, ...] = field(default_factory=lambda: WIDTHS["quick"])
    """Toy widths."""
    steps: Count = field(default_factory=lambda: preset("quick").steps)
    """Toy steps."""
    seed: Natural = 0
    """Of the toys."""
    workers: Count = 2
    """Processes that train toys."""
    out: Path = Path("runs/quickstart")
    """Where observations, figures and the page go."""


def main(config: Config) -> Path:
    """Measure what is not measured yet, and write the page."""
    store = ObservationStore(config.out / "observations.jsonl")
    measure_model(config, store)
    train_toys(config, store)
    known = store.keys()
    store.append(*[row for row in published_overlaps(STUDY) if row.key not in known])
    saved = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(config).items()}
    (config.out / "config.json").write_text(json.dumps(saved, indent=1), encoding="utf-8")
    report = write_report(config.out)
    rows = [
        (e.name, e.quantity, e.value, e.stderr, e.n_points or None)
        for e in exponents(store.frame())
        if e.quantity != "loss vs training time"
    ]
    console.say(console.table(rows, ("what", "quantity", "exponent", "±", "points")))
    console.say(f"\nopen {report.resolve()}")
    return report


def measure_model(config: Config, store: ObservationStore) -> None:
    """Overlaps and loss of the language model."""
    corpus = open_corpus(config.corpus)
    settings = LossSettings(context=config.context, max_tokens=config.max_tokens)
    work = [
        overlap_work(STUDY, config.source, OverlapSettings()),
        control_work(STUDY, config.source, OverlapSettings(method="sampled")),
        loss_work(STUDY, config.source, [corpus], settings),
    ]
    if any(piece.name for piece in missing(store, work)):
        console.progress(f"measuring {config.source}; a GGUF file is converted once, which takes half a minute")
    for name, why in run(work, store, unit="measurement").items():
        raise SourceError(f"{name}: {why}")


def train_toys(config: Config, store: ObservationStore) -> None:
    """The toy at every width in every regime."""
    runs = [
        preset("quick", m=m, weight_decay=decay, steps=config.steps, seed=config.seed)
        for decay in config.weight_decays
        for m in config.widths
    ]
    with executor(config.workers) as pool:
        sweep(runs, store, pool, study=STUDY)


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
