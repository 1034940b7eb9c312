"""Do the unembedding vectors of language models overlap as superposition predicts, about 1/m?

Reads one matrix of each model of the families named (about 2 % of its bytes), measures its overlaps raw and
centred, fits mean cos² against width with the common fit, and sets the published figures (arXiv:2505.10465,
Figure 8a) beside them. What is measured is kept: after an interruption the same command goes on. A model that fails
does not stop the others; it is named at the end, and the exit status is 1.

    python recipes/llm_overlaps.py --families pythia opt            # 10 + 8 models
    python recipes/llm_overlaps.py --toml mine.toml --families mine
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro
from tqdm import tqdm

from llmprobe import console
from llmprobe.errors import ConfigError, ProbeError
from llmprobe.families import Member, columns, load_families, vocabulary
from llmprobe.measure import OVERLAP_METRICS, is_measured, overlap_observations
from llmprobe.observations import ObservationStore
from llmprobe.overlap.statistics import Method, overlap_statistics
from llmprobe.report.exponents import exponents
from llmprobe.report.published import published_overlaps
from llmprobe.report.write import write_report
from llmprobe.weights.unembedding import read_unembedding

STUDY = "llm_overlaps"


@dataclass(frozen=True)
class Config:
    """Overlaps of whole families of models against width."""

    families: tuple[str, ...] = ("gpt2", "pythia")
    """Names as `llmprobe families` lists them."""
    toml: tuple[str, ...] = ()
    """Files of your own families."""
    largest: int | None = None
    """Leave out models wider than this."""
    method: Method = "auto"
    """How mean |cos| is measured; see `llmprobe overlap`."""
    tokenizer_vocab: bool = False
    """Leave out padding rows."""
    out: Path = Path("runs/llm_overlaps")
    """Where observations, figures and the page go."""


def main(config: Config) -> int:
    """Measure every model that is not measured yet; returns the exit status."""
    known = load_families(*config.toml)
    unknown = [name for name in config.families if name not in known]
    if unknown:
        raise ConfigError(f"no family {', '.join(unknown)}", expected=f"among {', '.join(known)}")
    store = ObservationStore(config.out / "observations.jsonl")
    stored = store.keys()
    store.append(*[row for row in published_overlaps(STUDY) if row.key not in stored])
    models = [
        (member, vocabulary(known[name], member) if config.tokenizer_vocab else None)
        for name in config.families
        for member in known[name].members
        if config.largest is None or member.m <= config.largest
    ]
    failed: dict[str, str] = {}
    for member, rows in tqdm(models, unit="model", desc="overlaps"):
        if is_measured(store, OVERLAP_METRICS, study=STUDY, model=member.id, vocabulary=rows):
            continue
        try:
            measure(config, store, member, rows, columns(known, member.id))
        except ProbeError as error:
            failed[member.id] = str(error)
            console.progress(f"{member.id}: {error}")
    page = write_report(config.out)
    found = [e for e in exponents(store.frame()) if e.quantity == "overlap vs width"]
    shown = [(e.name, e.value, e.stderr, e.n_points, e.x_range[0], e.x_range[1]) for e in found]
    console.say(console.table(shown, ("overlap against width", "exponent", "±", "models", "m from", "to")))
    console.say(f"\nopen {page.resolve()}")
    for name, why in failed.items():
        console.say(f"failed: {name}: {why}")
    return 1 if failed else 0


def measure(
    config: Config, store: ObservationStore, member: Member, rows: int | None, about: dict[str, object]
) -> None:
    """Overlaps of one model."""
    matrix = read_unembedding(member.id, tensor=member.tensor, rows=rows)
    statistics = overlap_statistics(matrix.W, method=config.method, drop_zero_rows=True, progress=True)
    store.append(*overlap_observations(STUDY, matrix, statistics, **about))


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(tyro.cli(Config))))
