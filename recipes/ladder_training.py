"""Training of a ladder of small transformers: text, tokenizer, and one Llama-like model per width.

Part of `train_width_ladder.py`, which measures and fits what is trained here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from llmprobe import console
from llmprobe.cache import atomic
from llmprobe.conversions import build_once
from llmprobe.errors import ConfigError, CorpusError
from llmprobe.loss.corpus import Document, open_corpus
from llmprobe.schedule import Schedule
from llmprobe.settings import Count, Natural, Positive, Settings, Within

BOS = "<s>"


@dataclass(frozen=True)
class Config(Settings):
    """Train small transformers that differ in width alone, and fit their losses and overlaps against it."""

    widths: tuple[Count, ...] = (16, 32, 64, 128, 256)
    """Widths m, each a multiple of 16."""
    layers: Count = 2
    """Depth of every model."""
    vocabulary: Count = 2048
    """Tokens of the tokenizer, n."""
    corpus: str = "stdlib-sources"
    """Text to train on: a name or file as `llmprobe loss --corpus` takes it, of many documents."""
    heldout_share: Annotated[float, Within(0.0, 0.999, open=True)] = 1 / 12
    """Share of documents, picked by a hash of their name, that no model trains on."""
    heldout_documents: Count = 48
    """Of these, how many are measured, each up to `heldout_chars` characters."""
    heldout_chars: Count = 4000
    """Keeps one long document from deciding the loss."""
    context: Count = 256
    """Tokens per training window and per window of the loss."""
    batch: Count = 8
    """Windows per step."""
    steps: Count = 768
    """Training steps."""
    learning_rate: Positive = 4e-3
    """At m = 64; it goes as m^(-1/2)."""
    seed: Natural = 0
    """Of initial weights and of the order of windows."""
    threads: Count = 1
    """CPU threads."""
    quick: bool = False
    """128 steps on windows of 128, unless `steps` and `context` say otherwise."""
    out: Path = Path("runs/ladder")
    """Where everything goes."""


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
    return config


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
        write_text(kept, "".join(lines))
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


def schedule(config: Config, m: int) -> Schedule:
    """The learning rate at width m: a sixteenth of the steps to warm up, constant from there on."""
    warmup = min(max(1, config.steps // 16), config.steps - 1)
    return Schedule(peak=config.learning_rate * math.sqrt(64 / m), steps=config.steps, warmup=warmup)


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
    model, plan = transformers.LlamaForCausalLM(shape(config, m)), schedule(config, m)
    arguments = transformers.TrainingArguments(
        output_dir=str(config.out / "trainer"),
        max_steps=config.steps,
        per_device_train_batch_size=config.batch,
        learning_rate=plan.peak,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=plan.warmup,
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


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
