"""``llmprobe loss``: next-token loss of models on a corpus."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from llmprobe import console
from llmprobe.measurements import LossSettings, family_columns, loss_rows
from llmprobe.observations import ObservationStore
from llmprobe.study import Result, keep

if TYPE_CHECKING:
    from llmprobe.loss.corpus import Corpus
    from llmprobe.loss.result import LossResult


@dataclass(frozen=True)
class Loss(LossSettings):
    """Measure the mean next-token loss of models on a corpus, with its standard error over documents."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """org/name, org/name@revision, a folder, a .gguf file, or sample:smollm2-135m."""
    corpus: str = "stdlib"
    """stdlib (docstrings of Python's standard library), stdlib-sources, wikitext, c4, pile, one of your own
    (`corpora`), or a .txt, .jsonl or .parquet file."""
    corpora: tuple[str, ...] = ()
    """Files of your own corpora."""
    toml: tuple[str, ...] = ()
    """Files of your own families."""
    store: str | None = None
    """Append the observations to this JSONL file."""
    json: bool = False
    """Print one JSON object per source and nothing else."""

    def run(self) -> None:
        """Measure each source in turn."""
        from llmprobe.errors import ConfigError
        from llmprobe.loss.corpus import open_corpus

        if not self.sources:
            raise ConfigError("no model was named", fix="try: llmprobe loss sample:smollm2-135m --max-tokens 10240")
        corpus = open_corpus(self.corpus, *self.corpora)
        first: LossResult | None = None
        for source in self.sources:
            result = self._measure(source, corpus, first)
            first = first or result

    def _measure(self, source: str, corpus: Corpus, first: LossResult | None) -> LossResult:
        """Measure, store and show; a result that cannot be stored is shown all the same."""
        model = self.load(source)
        result = self.measure(model, corpus, progress=True)
        try:
            if self.store:
                self._store(self.store, result, corpus, model.width)
        finally:
            if self.json:
                console.emit(result.summary())
            else:
                _show(result, first)
        result.stored()
        return result

    def _store(self, path: str, result: LossResult, corpus: Corpus, width: int) -> None:
        asked = self.asked("loss", result.source, [corpus])
        rows = loss_rows(asked, result, m=width, **family_columns(result.source, self.toml))
        keep(ObservationStore(path), Result(rows, vars(result.documents)))


def _show(result: LossResult, first: LossResult | None) -> None:
    from llmprobe.errors import CorpusError
    from llmprobe.loss.result import paired_difference

    console.say(
        f"{result.source} on {result.corpus}: {result.loss:.4f} ± {result.loss_stderr:.4f} nats per token, "
        f"{result.bits_per_byte:.4f} bits per byte\n"
        f"{result.n_tokens} tokens of {result.n_documents} documents, windows of {result.context}, "
        f"prefix {result.prefix}, {result.dtype} on {result.device}, {result.tokens_per_second:.0f} tokens/s\n"
        "loss by position: " + "  ".join(f"{a}–{b}: {loss:.3f}" for a, b, loss in result.by_position())
    )
    if first is None:
        return
    try:
        difference, error = paired_difference(result.documents, first.documents)
    except CorpusError:
        console.say(f"not paired with {first.source}: other documents (limit by --max-documents to pair)")
        return
    unit = "token" if (result.documents.tokens == first.documents.tokens).all() else "byte"
    console.say(f"minus {first.source}, document by document: {difference:+.4f} ± {error:.4f} nats per {unit}")
