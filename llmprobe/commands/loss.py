"""``llmprobe loss``: next-token loss of models on a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import tyro

from llmprobe import console


@dataclass(frozen=True)
class Loss:
    """Measure the mean next-token loss of models on a corpus, with its standard error over documents."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """org/name, org/name@revision, a folder, a .gguf file, or sample:smollm2-135m."""
    corpus: str = "stdlib"
    """stdlib (docstrings of Python's standard library), or a .txt, .jsonl or .parquet file."""
    context: int = 1024
    """Tokens per window; never more than the model's positions."""
    max_tokens: int | None = None
    """Score at most this many tokens, from the front of the corpus."""
    prefix: Literal["auto", "bos", "eos", "none"] = "auto"
    """Token before each window: BOS, else EOS, else none."""
    dtype: str = "float32"
    """float32 for figures to report; bfloat16 and float16 are faster and less exact."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    batch_tokens: int | None = None
    """Tokens per forward pass; the default fits the device."""
    toml: tuple[str, ...] = ()
    """Files of your own families."""
    store: str | None = None
    """Append the observations to this JSONL file."""
    json: bool = False
    """Print one JSON object per source and nothing else."""

    def run(self) -> None:
        """Measure each source in turn."""
        from llmprobe.corpus import open_corpus
        from llmprobe.errors import ConfigError

        if not self.sources:
            raise ConfigError("no model was named", fix="try: llmprobe loss sample:smollm2-135m --max-tokens 10240")
        for name, value in (("context", self.context), ("max-tokens", self.max_tokens)):
            if value is not None and value < 1:
                raise ConfigError(f"--{name} {value}", expected="at least 1")
        corpus = open_corpus(self.corpus)
        for source in self.sources:
            row = self._measure(source, corpus)
            if self.json:
                console.emit(row)
            else:
                _show(row)

    def _measure(self, source: str, corpus: Any) -> dict[str, Any]:
        from llmprobe.loss import evaluate_loss
        from llmprobe.models import load_model

        model = load_model(source, dtype=self.dtype, device=self.device)
        result = evaluate_loss(
            model,
            corpus,
            context=self.context,
            max_tokens=self.max_tokens,
            prefix=self.prefix,
            batch_tokens=self.batch_tokens,
            progress=True,
        )
        if self.store:
            from llmprobe.families import columns, load_families
            from llmprobe.measure import loss_observations
            from llmprobe.observations import ObservationStore

            ObservationStore(self.store).append(
                *loss_observations("loss", result, m=model.width, **columns(load_families(*self.toml), source))
            )
        return result.summary()


def _show(row: dict[str, Any]) -> None:
    console.say(
        f"{row['source']} on {row['corpus']}: {row['loss']:.4f} ± {row['loss_stderr']:.4f} nats per token, "
        f"{row['bits_per_byte']:.4f} bits per byte\n"
        f"{row['n_tokens']} tokens of {row['n_documents']} documents, windows of {row['context']}, "
        f"prefix {row['prefix']}, {row['dtype']} on {row['device']}, {row['tokens_per_second']:.0f} tokens/s"
    )
