"""Does loss fall with width as superposition predicts, in models that differ in width and in nothing else?

Open families change depth and data along with width. This ladder trains one Llama-like architecture at several
widths: equal depth, one tokenizer (byte-level BPE of a few thousand tokens, so that n is far above m), the same text
in the same order. Input and output embeddings are untied, so that the overlaps are those of a matrix that does
nothing but write logits. The learning rate goes as m^(-1/2) and is constant after a warm-up, so that each checkpoint is
a point of one run and none is annealed.

What it leaves is ordinary: checkpoints with their tokenizer in ``<out>/m<width>/step<step>``, held-out documents in
``heldout.jsonl`` and, in ``ladder.toml``, the families ``ladder`` (the last checkpoint of each width) and
``ladder-m64`` (the checkpoints of one width), with the schedule of the learning rate. A width that is trained is not
trained again; what is measured is kept.

    python recipes/train_width_ladder.py --quick      under four minutes on two cores
    python recipes/train_width_ladder.py              under half an hour; uses a GPU where there is one
    python recipes/checkpoint_dynamics.py --toml runs/ladder/ladder.toml --family ladder-m64 \
        --corpus runs/ladder/heldout.jsonl
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from ladder_training import Config, checked, cut, folder, prepare, saved_steps, schedule, train, write_text

from llmprobe import console
from llmprobe.errors import ConfigError, FitError, SourceError
from llmprobe.fitting import PowerLawSum, fit
from llmprobe.fitting.law import Offset
from llmprobe.loss.corpus import open_corpus
from llmprobe.loss.result import DocumentSums, paired_difference
from llmprobe.measurements import LossSettings, OverlapSettings, loss_work, overlap_work
from llmprobe.observations import Observation, ObservationStore
from llmprobe.report.write import write_report
from llmprobe.study import Work, run, stored

STUDY = "ladder"


def main(config: Config) -> Path:
    """Train and measure what is missing, fit, and write the page."""
    config = checked(config)
    torch.set_num_threads(config.threads)
    transformers.utils.logging.disable_progress_bar()
    settle(config)
    train_texts = prepare(config)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(config.out / "tokenizer", trust_remote_code=False)
    windows: torch.Tensor | None = None
    for m in config.widths:
        if not (folder(config, m, config.steps) / "config.json").is_file():
            windows = cut(config, train_texts, tokenizer) if windows is None else windows
            train(config, m, windows, tokenizer)
    write_families(config)
    show(config, *measure(config))
    page = write_report(config.out)
    console.say(f"\nopen {page.resolve()}")
    return page


def settle(config: Config) -> None:
    """Keep the settings beside the results; a folder holds the ladder of one set of settings."""
    free = {"widths", "threads", "quick", "out", "heldout_documents"}  # these may change without training anew
    wanted = {k: v for k, v in dataclasses.asdict(config).items() if k not in free}
    path = config.out / "config.json"
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        if changed := [k for k in wanted if there.get(k) != wanted[k]]:
            raise ConfigError(
                f"{config.out} holds a ladder with another {', '.join(changed)}", fix="choose another folder by --out"
            )
        return
    config.out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def about(config: Config, m: int, step: int) -> dict[str, int]:
    """What is known of a checkpoint: parameters, and tokens trained on."""
    embeddings = config.vocabulary * m
    inside = config.layers * (4 * m * m + 9 * m * m + 2 * m) + m
    return {"params": 2 * embeddings + inside, "non_embedding": inside, "tokens": step * config.batch * config.context}


def write_families(config: Config) -> None:
    """`ladder.toml`: one family of the last checkpoints, and one per width of all its checkpoints."""

    def member(m: int, step: int) -> str:
        row: dict[str, Any] = {"id": str(folder(config, m, step)), "m": m, "layers": config.layers}
        row |= {"rows": config.vocabulary, "vocabulary": config.vocabulary, "tied": False, **about(config, m, step)}
        row["peak_rate"] = schedule(config, m).peak
        return "  { " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in row.items()) + " },\n"

    families = {"ladder": [(m, config.steps) for m in sorted(config.widths)]}
    families |= {f"ladder-m{m}": [(m, step) for step in saved_steps(config.steps)] for m in sorted(config.widths)}
    known = {"tokens_per_step": config.batch * config.context, "steps": config.steps}
    known["warmup_steps"] = schedule(config, config.widths[0]).warmup
    plan = "".join(f"{key} = {value}\n" for key, value in known.items())
    text = "# Made by recipes/train_width_ladder.py. Ids are folders, as seen from where it was run.\n"
    for name, members in families.items():
        text += f"\n[{name}]\n{plan}members = [\n{''.join(member(*which) for which in members)}]\n"
    write_text(config.out / "ladder.toml", text)


def work(config: Config, m: int, step: int) -> list[Work]:
    """Loss of a checkpoint, and overlap of the last one."""
    source, known = str(folder(config, m, step)), about(config, m, step)
    columns: dict[str, Any] = {"family": "ladder", "depth": config.layers, "n_params": known["params"], "step": step}
    columns["tokens"] = known["tokens"]
    settings = LossSettings(context=config.context, max_documents=config.heldout_documents)
    corpus = open_corpus(str(config.out / "heldout.jsonl"))
    losses = loss_work(STUDY, source, [corpus], settings, **columns, m=m)
    return [losses, overlap_work(STUDY, source, OverlapSettings(), **columns)] if step == config.steps else [losses]


def measure(config: Config) -> tuple[list[Observation], list[Observation]]:
    """Rows of the last checkpoints and of the earlier ones, which have a store of their own."""
    found = []
    for place, steps in (("", {config.steps}), ("training", set(saved_steps(config.steps)) - {config.steps})):
        store = ObservationStore(config.out / place / "observations.jsonl")
        pieces = [piece for m in config.widths for step in sorted(steps) for piece in work(config, m, step)]
        for name, why in run(pieces, store, unit="measurement", progress=console.progress).items():
            raise SourceError(f"{name}: {why}")
        found.append(stored(store, pieces))
    return found[0], found[1]


def show(config: Config, last: list[Observation], earlier: list[Observation]) -> None:
    """Tables of loss by width and step, and the fits."""
    by_step = {(row.m, row.step): row for row in [*last, *earlier] if row.metric == "loss"}
    steps = saved_steps(config.steps)
    rows = [(m, *(by_step[m, step].value for step in steps)) for m in config.widths]
    console.say(console.table(rows, ("loss: m", *(f"step {step}" for step in steps))))
    for metric in ("loss", "mean_sq_cos", "centered_mean_sq_cos", "superposition"):
        found = sorted((row for row in last if row.metric == metric), key=lambda row: row.m or 0)
        values = [(row.m, row.value, row.stderr, row.value * (row.m or 0)) for row in found]
        console.say("\n" + console.table(values, ("m", metric, "±", "× m")))
        if metric == "loss":
            show_steps(ObservationStore(config.out / "observations.jsonl"), found)
        if metric != "superposition":
            show_fits(found, ("none", "shared") if metric == "loss" else ("none",))


def show_steps(store: ObservationStore, losses: list[Observation]) -> None:
    """By how much the loss falls from one width to the next, paired by document."""
    documents = [DocumentSums(**store.load_arrays(row.key)) for row in losses]
    for (one, a), (other, b) in itertools.pairwise(zip(losses, documents, strict=True)):
        difference, error = paired_difference(b, a)
        console.say(f"m = {one.m} to {other.m}: {difference:+.4f} ± {error:.4f}, paired by document")


def show_fits(rows: list[Observation], offsets: tuple[Offset, ...]) -> None:
    """The power law through the widths, with each kind of offset."""
    m, y = [float(row.m or 0) for row in rows], [row.value for row in rows]
    for offset in offsets:
        try:
            result = fit(PowerLawSum(("m",), offset=offset), {"m": m}, y)
        except FitError as error:
            console.say(f"no fit: {error}")
            continue
        parts = (f"{k} = {v:.4g} [{result.ci95[k][0]:.3g}, {result.ci95[k][1]:.3g}]" for k, v in result.params.items())
        console.say(f"{result.law.formula}: {', '.join(parts)}; R² {result.r2:.4f}")
        for warning in result.warnings:
            console.say(f"  note: {warning}")


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
