"""Does loss fall with width as superposition predicts, in models that differ in width and in nothing else?

Open families change depth and data along with width. This ladder trains one Llama-like architecture at several
widths: equal depth, one tokenizer (byte-level BPE of a few thousand tokens, so that n is far above m), the same text
in the same order. Input and output embeddings are untied, so that the overlaps are those of a matrix that does
nothing but write logits. The learning rate goes as m^(-1/2) and is constant after a warm-up, so that each checkpoint is
a point of one run and none is annealed.

What it leaves is ordinary: checkpoints with their tokenizer in ``<out>/m<width>/step<step>``, held-out documents in
``heldout.jsonl`` and, in ``ladder.toml``, the families ``ladder`` (the last checkpoint of each width) and
``ladder-m64`` (the checkpoints of one width). A width that is trained is not trained again; what is measured is kept.

    python recipes/train_width_ladder.py --quick      under four minutes on two cores
    python recipes/train_width_ladder.py              under half an hour; uses a GPU where there is one
    python recipes/checkpoint_dynamics.py --toml runs/ladder/ladder.toml --family ladder-m64 \
        --corpus runs/ladder/heldout.jsonl
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
import tyro
from llmprobe.measure import loss_observations, overlap_observations
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llmprobe import console
from llmprobe.cache import atomic
from llmprobe.conversions import build_once
from llmprobe.errors import ConfigError, CorpusError, FitError
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import Offset, PowerLawSum
from llmprobe.loss.corpus import Document, open_corpus
from llmprobe.loss.evaluate import DocumentSums, evaluate_loss, paired_difference
from llmprobe.loss.language_model import load_model
from llmprobe.observations import ObservationStore, with_settings
from llmprobe.overlap.statistics import overlap_statistics
from llmprobe.report.write import write_report
from llmprobe.weights.unembedding import read_unembedding

STUDY = "ladder"
BOS = "<s>"


@dataclass(frozen=True)
class Config:
    """Train small transformers that differ in width alone, and fit their losses and overlaps against it."""

    widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    """Widths m, each a multiple of 16."""
    layers: int = 2
    """Depth of every model."""
    vocabulary: int = 2048
    """Tokens of the tokenizer, n."""
    corpus: str = "stdlib-sources"
    """Text to train on: a name or file as `llmprobe loss --corpus` takes it, of many documents."""
    heldout_share: float = 1 / 12
    """Share of documents, picked by a hash of their name, that no model trains on."""
    heldout_documents: int = 48
    """Of these, how many are measured, each up to `heldout_chars` characters."""
    heldout_chars: int = 4000
    """Keeps one long document from deciding the loss."""
    context: int = 256
    """Tokens per training window and per window of the loss."""
    batch: int = 8
    """Windows per step."""
    steps: int = 768
    """Training steps."""
    learning_rate: float = 4e-3
    """At m = 64; it goes as m^(-1/2)."""
    seed: int = 0
    """Of initial weights and of the order of windows."""
    threads: int = 1
    """CPU threads."""
    quick: bool = False
    """128 steps on windows of 128, unless `steps` and `context` say otherwise."""
    out: Path = Path("runs/ladder")
    """Where everything goes."""


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
    for m, step in itertools.product(config.widths, saved_steps(config.steps)):
        measure(config, m, step)
    show(config)
    page = write_report(config.out)
    console.say(f"\nopen {page.resolve()}")
    return page


def checked(config: Config) -> Config:
    """The settings with `quick` worked in."""
    usual = Config()
    if config.quick:
        steps = 128 if config.steps == usual.steps else config.steps
        context = 128 if config.context == usual.context else config.context
        out = Path("runs/ladder-quick") if config.out == usual.out else config.out
        config = dataclasses.replace(config, steps=steps, context=context, out=out)
    if (
        not config.widths
        or any(m < 16 or m % 16 for m in config.widths)
        or len(set(config.widths)) < len(config.widths)
    ):
        raise ConfigError(f"widths {config.widths}", expected="different multiples of 16, as heads are 16 wide")
    if not 0 < config.heldout_share < 1:
        raise ConfigError(f"a held-out share of {config.heldout_share}", expected="between 0 and 1")
    return config


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


def prepare(config: Config) -> list[str]:
    """Training texts; held-out documents and the tokenizer are written at first use."""
    texts: list[str] = []
    heldout: list[Document] = []
    for document in open_corpus(config.corpus):
        # a hash of the name: the same split at every size of the ladder
        draw = int.from_bytes(hashlib.sha256(f"heldout {document.name}".encode()).digest()[:4]) / 2**32
        if draw < config.heldout_share:
            heldout.append(Document(document.name, document.text[: config.heldout_chars]))
        else:
            texts.append(document.text)
    if len(heldout) < 2 or not texts:
        raise CorpusError(
            f"{config.corpus} leaves {len(texts)} documents to train on and {len(heldout)} to measure",
            expected="many documents, of which some are held out",
        )
    kept = config.out / "heldout.jsonl"
    if not kept.is_file():
        lines = (json.dumps({"name": d.name, "text": d.text}) + "\n" for d in heldout)
        _write(kept, "".join(lines))
    if not (config.out / "tokenizer" / "tokenizer.json").is_file():
        train_tokenizer(texts, config.vocabulary).save_pretrained(config.out / "tokenizer")
    return texts


def train_tokenizer(texts: list[str], size: int) -> transformers.PreTrainedTokenizerFast:
    """A byte-level BPE of `size` tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS)


def cut(config: Config, texts: list[str], tokenizer: transformers.PreTrainedTokenizerFast) -> torch.Tensor:
    """Training windows [w, 1 + context]: the texts in one row, cut, each window behind a BOS as when it is scored."""
    encoded = tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([i for text in encoded for i in (tokenizer.bos_token_id, *text)])
    windows = ids[: len(ids) // config.context * config.context].view(-1, config.context)
    wanted = config.steps * config.batch
    if len(windows) < wanted:
        console.progress(f"{len(windows)} windows of text for {wanted} wanted: the text is seen more than once")
    console.progress(f"{len(ids)} tokens of {len(texts)} documents, {tokenizer.vocab_size} kinds")
    return torch.cat([torch.full((len(windows), 1), tokenizer.bos_token_id), windows], dim=1)


def shape(config: Config, m: int) -> transformers.LlamaConfig:
    """The architecture at width m: heads of 16, a gated layer 3 m wide."""
    return transformers.LlamaConfig(
        vocab_size=config.vocabulary,
        hidden_size=m,
        intermediate_size=3 * m,
        num_hidden_layers=config.layers,
        num_attention_heads=m // 16,
        num_key_value_heads=m // 16,
        head_dim=16,
        max_position_embeddings=config.context + 1,
        initializer_range=1 / math.sqrt(m),
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=None,
    )


class Checkpoints(transformers.TrainerCallback):
    """Saves model and tokenizer at log-spaced steps, each folder whole or not at all."""

    def __init__(self, config: Config, m: int, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
        self.config, self.m, self.tokenizer = config, m, tokenizer
        self.steps = set(saved_steps(config.steps))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer after each step."""
        if state.global_step not in self.steps:
            return
        target = folder(self.config, self.m, state.global_step)
        if not target.is_dir():
            build_once(target, lambda empty: self._save(kwargs["model"], empty))
        console.progress(f"m = {self.m}: step {state.global_step} of {self.config.steps}")

    def _save(self, model: Any, empty: Path) -> None:
        model.save_pretrained(empty)
        self.tokenizer.save_pretrained(empty)


def train(config: Config, m: int, windows: torch.Tensor, tokenizer: transformers.PreTrainedTokenizerFast) -> None:
    """Train one width; the order of windows is the same for every width."""
    transformers.set_seed(config.seed)
    model = transformers.LlamaForCausalLM(shape(config, m))
    arguments = transformers.TrainingArguments(
        output_dir=str(config.out / "trainer"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch,
        learning_rate=config.learning_rate * math.sqrt(64 / m),
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=max(1, config.steps // 16),
        adam_beta2=0.98,
        weight_decay=0.1,
        seed=config.seed,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    data: Any = [{"input_ids": window, "labels": window} for window in windows]
    trainer = transformers.Trainer(model, arguments, train_dataset=data)
    trainer.remove_callback(transformers.PrinterCallback)  # it prints on stdout
    trainer.add_callback(Checkpoints(config, m, tokenizer))
    trainer.train()


def saved_steps(steps: int) -> list[int]:
    """Powers of two up to the last step, and that one."""
    return sorted({*(1 << k for k in range(steps.bit_length()) if 1 << k <= steps), steps})


def folder(config: Config, m: int, step: int) -> Path:
    """Where a checkpoint lies."""
    return config.out / f"m{m}" / f"step{step}"


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
        return "  { " + ", ".join(f"{key} = {json.dumps(value)}" for key, value in row.items()) + " },\n"

    families = {"ladder": [(m, config.steps) for m in sorted(config.widths)]}
    families |= {f"ladder-m{m}": [(m, step) for step in saved_steps(config.steps)] for m in sorted(config.widths)}
    text = "# Made by recipes/train_width_ladder.py. Ids are folders, as seen from where it was run.\n"
    for name, members in families.items():
        text += f"\n[{name}]\nmembers = [\n{''.join(member(*which) for which in members)}]\n"
    _write(config.out / "ladder.toml", text)


def measure(config: Config, m: int, step: int) -> None:
    """Loss of a checkpoint, and overlap of the last one; earlier checkpoints have a store of their own."""
    last = step == config.steps
    store = ObservationStore(config.out / ("" if last else "training") / "observations.jsonl")
    source, known = str(folder(config, m, step)), about(config, m, step)
    columns: dict[str, Any] = {"family": "ladder", "depth": config.layers, "n_params": known["params"], "step": step}
    columns["tokens"] = known["tokens"]
    corpus = open_corpus(str(config.out / "heldout.jsonl"))
    limit = {"documents_limit": config.heldout_documents}
    if not store.select(study=STUDY, model=source, metric="loss", context=config.context, **limit):
        model = load_model(source, device="auto")
        result = evaluate_loss(model, corpus, context=config.context, max_documents=config.heldout_documents)
        rows = [with_settings(row, **limit) for row in loss_observations(STUDY, result, m=m, **columns)]
        store.save_arrays(rows[0].key, vars(result.documents))
        store.append(*rows)
        console.progress(f"{source}: {result.loss:.4f} ± {result.loss_stderr:.4f} nats, {result.n_tokens} tokens")
    if last and not store.select(study=STUDY, model=source, metric="mean_sq_cos"):
        matrix = read_unembedding(source)
        store.append(*overlap_observations(STUDY, matrix, overlap_statistics(matrix.W), **columns))


def show(config: Config) -> None:
    """Tables of loss by width and step, and the fits."""
    store = ObservationStore(config.out / "observations.jsonl")
    training = ObservationStore(config.out / "training" / "observations.jsonl")
    limit = {"documents_limit": config.heldout_documents}
    by_step = {(r.m, r.step): r for kept in (store, training) for r in kept.select(metric="loss", **limit)}
    steps = saved_steps(config.steps)
    rows = [(m, *(by_step[m, step].value for step in steps)) for m in config.widths]
    console.say(console.table(rows, ("loss: m", *(f"step {step}" for step in steps))))
    for metric in ("loss", "mean_sq_cos", "centered_mean_sq_cos"):
        chosen = store.select(metric=metric, **(limit if metric == "loss" else {}))
        found = sorted((row for row in chosen if row.m in config.widths), key=lambda row: row.m or 0)
        m, y = [float(row.m or 0) for row in found], [row.value for row in found]
        values = [(row.m, row.value, row.stderr, row.value * (row.m or 0)) for row in found]
        console.say("\n" + console.table(values, ("m", metric, "±", "× m")))
        if metric == "loss":
            documents = [DocumentSums(**store.load_arrays(row.key)) for row in found]
            for (one, a), (other, b) in itertools.pairwise(zip(found, documents, strict=True)):
                difference, error = paired_difference(b, a)
                console.say(f"m = {one.m} to {other.m}: {difference:+.4f} ± {error:.4f}, paired by document")
        offsets: tuple[Offset, ...] = ("none", "shared") if metric == "loss" else ("none",)
        for offset in offsets:
            try:
                result = fit(PowerLawSum(("m",), offset=offset), {"m": m}, y)
            except FitError as error:
                console.say(f"no fit: {error}")
                continue
            parts = (
                f"{k} = {v:.4g} [{result.ci95[k][0]:.3g}, {result.ci95[k][1]:.3g}]" for k, v in result.params.items()
            )
            console.say(f"{result.law.formula}: {', '.join(parts)}; R² {result.r2:.4f}")
            for warning in result.warnings:
                console.say(f"  note: {warning}")


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(tyro.cli(Config))))
