"""How does the loss of one model fall while it is trained, and do its unembedding vectors spread meanwhile?

Measures loss and overlap at checkpoints of one model: revisions at the Hub, named by the pattern of the family table,
or the folders of a family of checkpoints such as `train_width_ladder.py` leaves. Tokens seen come from the table. Some
published revisions carry another step's weights: the unembeddings' sha256 are compared first, and checkpoints that
share one are refused by name, all of them, since nothing says whose weights they are. Loss is fitted against tokens,
and against τ = ∫ rate where the table has the schedule, on the longest straight stretch (`llmprobe.fitting.window`) and
with an offset from there on; which clock fits better is said. What is measured is kept.

    python recipes/checkpoint_dynamics.py --source EleutherAI/pythia-70m --steps 1 8 64 512 4000 32000 143000
    python recipes/checkpoint_dynamics.py --toml runs/ladder/ladder.toml --family ladder-m64 \
        --corpus runs/ladder/heldout.jsonl --context 256
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checkpoint_clocks import clocks, compared, figure, read, tau, tell
from tqdm import tqdm

from llmprobe import console
from llmprobe.cache import atomic
from llmprobe.errors import ConfigError, ProbeError
from llmprobe.families import Family, Member, find_member, load_families
from llmprobe.loss.corpus import open_corpus
from llmprobe.measurements import LossSettings, OverlapSettings, loss_work, overlap_work
from llmprobe.observations import Observation, ObservationStore
from llmprobe.plan import Planned, tell_plan
from llmprobe.report import figures
from llmprobe.settings import Count, Natural, one_of
from llmprobe.study import Work, run, stored
from llmprobe.weights.unembedding import read_unembedding
from toymodels.executors import Workers

STUDY = "checkpoint_dynamics"
POWERS = tuple(1 << k for k in range(10))


@dataclass(frozen=True, kw_only=True)
class Config(Workers, Planned, LossSettings):
    """Loss and overlap of one model along its training."""

    source: str = "EleutherAI/pythia-70m"
    """A model of a family whose checkpoints are revisions; not used with `family`."""
    steps: tuple[Natural, ...] = (*POWERS, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 143000)
    """Training steps of the revisions."""
    family: str | None = None
    """A family whose members are checkpoints of one model, with the tokens of each."""
    toml: tuple[str, ...] = ()
    """Files of your own families."""
    corpus: str = "stdlib"
    """As for `llmprobe loss`."""
    corpora_toml: tuple[str, ...] = ()
    """Files of your own corpora."""
    context: Count = 512
    """Tokens per window."""
    max_documents: Count | None = 32
    """Documents from the front of the corpus."""
    out: Path = Path("runs/checkpoint_dynamics")
    """Where observations, hashes and the figure go."""


@dataclass(frozen=True)
class Revision:
    """A source, its training tokens, and what observations say of it."""

    source: str
    tokens: int
    columns: dict[str, Any]
    tau: float | None = None


def main(config: Config) -> int:
    """Measure what is not measured yet; the exit status is 1 if a checkpoint was refused or failed."""
    checkpoints = listed(config)
    store = ObservationStore(config.out / "observations.jsonl")
    if config.plan:
        overlaps, losses = work(config, checkpoints)
        tell_plan(store, [*overlaps, *losses], config, config.toml, workers=config.workers)
        return 0
    failed: dict[str, str] = {}
    failed |= refused(weights(config, checkpoints, failed))
    whole = [c for c in checkpoints if c.source not in failed]
    overlaps, losses = work(config, whole)
    with config.executor() as pool:
        failed |= run([*overlaps, *losses], store, pool, unit="measurement", progress=console.progress)
    show(
        config, stored(store, losses, "loss"), stored(store, overlaps, "mean_sq_cos"), {c.source: c.tau for c in whole}
    )
    for name, why in failed.items():
        console.say(f"failed: {name}: {why}")
    return 1 if failed else 0


def work(config: Config, checkpoints: list[Revision]) -> tuple[list[Work], list[Work]]:
    """Overlaps and losses of checkpoints."""
    corpus = open_corpus(config.corpus, *config.corpora_toml)
    overlaps = [overlap_work(STUDY, c.source, OverlapSettings(drop_zero_rows=True), **c.columns) for c in checkpoints]
    return overlaps, [loss_work(STUDY, c.source, [corpus], config, **c.columns) for c in checkpoints]


def listed(config: Config) -> list[Revision]:
    """The checkpoints asked for, in the order of their tokens.

    Raises
    ------
    ConfigError
        The family, the pattern of its revisions or its tokens are not known.
    """
    families = load_families(*config.toml)
    if config.family is not None:
        chosen = families[one_of("family", config.family, families)]
        if unknown := [member.id for member in chosen.members if member.tokens is None]:
            raise ConfigError(f"tokens of {', '.join(unknown)} are not known", fix="add tokens = ... to the table")
        found = [_revision(member.id, chosen, member, member.tokens or 0) for member in chosen.members]
        return sorted(found, key=lambda c: c.tokens)
    belongs = find_member(families, config.source)
    if belongs is None or belongs[0].revisions is None or belongs[0].tokens_per_step is None:
        raise ConfigError(
            f"revisions of {config.source} are not in the family table",
            expected='a family with revisions = "step{step}" and tokens_per_step = ...',
            fix="add it by --toml",
        )
    family, member = belongs
    pattern, per_step = belongs[0].revisions, belongs[0].tokens_per_step
    found = []
    for step in sorted(set(config.steps)):
        tokens = step * per_step
        revision = pattern.format(step=step, tokens=-(-tokens // 10**9))  # names give billions, rounded up
        found.append(_revision(f"{config.source}@{revision}", family, member, tokens, step))
    return found


def _revision(source: str, family: Family, member: Member, tokens: int, step: int | None = None) -> Revision:
    about = {"family": family.name, "depth": member.layers, "n_params": member.params}
    if step is None and family.tokens_per_step:
        step = tokens // family.tokens_per_step
    return Revision(source, tokens, {**about, "tokens": tokens, "step": step}, tau(family, member, step))


def weights(config: Config, checkpoints: list[Revision], failed: dict[str, str]) -> dict[str, str]:
    """sha256 of each checkpoint's unembedding as stored, kept in ``weights.json`` as they come."""
    path = config.out / "weights.json"
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    for checkpoint in tqdm(checkpoints, unit="checkpoint", desc="weights"):
        if checkpoint.source in known:
            continue
        try:
            known[checkpoint.source] = read_unembedding(checkpoint.source).sha256
        except ProbeError as error:
            failed[checkpoint.source] = str(error)
            continue
        with atomic(path) as temporary:
            temporary.write_text(json.dumps(known, indent=1), encoding="utf-8")
    return {c.source: known[c.source] for c in checkpoints if c.source in known}


def refused(hashes: dict[str, str]) -> dict[str, str]:
    """Checkpoints whose weights another one carries too, and why each is refused."""
    holders = defaultdict(list)
    for source, digest in hashes.items():
        holders[digest].append(source)
    shared = {source: group for group in holders.values() if len(group) > 1 for source in group}
    return {
        source: f"carries the same weights as {', '.join(other for other in group if other != source)}"
        for source, group in shared.items()
    }


def show(config: Config, losses: list[Observation], overlaps: list[Observation], taus: dict[str, float | None]) -> None:
    """The curve as a table, the fits, and the figure."""
    curve = sorted(losses, key=lambda row: row.tokens or 0)
    overlap = {row.model: row.value for row in overlaps}
    table = [(row.tokens, row.value, row.stderr, overlap.get(row.model), row.model) for row in curve]
    console.say(console.table(table, ("tokens", "loss", "±", "mean cos²", "checkpoint")))
    seen = [row for row in curve if row.tokens]
    values = [row.value for row in seen]
    readings = [read(clock, x, values) for clock, x in clocks(seen, taus).items()]
    for reading in readings:
        tell(reading)
    if len(readings) > 1:
        for line in compared(readings, values):
            console.say(line)
    figures.save(figure(seen, readings), str(config.out / "loss_in_training.png"))


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
