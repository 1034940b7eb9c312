"""Next-token loss of a language model, with its error bar: sums of NLL, tokens and bytes per document.

Protocol: arXiv:2505.10465 appendix; bits per byte as in Gao et al. 2020 (The Pile).
"""

from __future__ import annotations

import hashlib
import logging
import math
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from llmprobe.cache import cache_dir, claimed, forget
from llmprobe.errors import CorpusError
from llmprobe.loss.corpus import Corpus, Document
from llmprobe.loss.language_model import LanguageModel
from llmprobe.loss.scoring import score_windows
from llmprobe.loss.windows import Prefix, Window, cut_windows, prefix_token
from llmprobe.weights.fingerprint import fingerprint, tensors_sha256

KEPT = ".jsonl"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DocumentSums:
    """Sums per document, index by index: `nll` in nats, scored `tokens`, `n_bytes` of UTF-8 scored."""

    nll: Float[np.ndarray, " d"]
    tokens: Int[np.ndarray, " d"]
    n_bytes: Int[np.ndarray, " d"]

    @property
    def loss(self) -> float:
        """Mean NLL per token, in nats."""
        return float(self.nll.sum() / self.tokens.sum())

    @property
    def stderr(self) -> float:
        """Standard error of `loss` over documents (linearised ratio of sums); NaN for a single document."""
        d = len(self.nll)
        if d < 2:
            return math.nan
        residual = self.nll - self.loss * self.tokens
        return float(np.sqrt((residual**2).sum() * d / (d - 1)) / self.tokens.sum())

    @property
    def bits_per_byte(self) -> float:
        """NLL in bits per byte of text: comparable across tokenizers."""
        return float(self.nll.sum() / math.log(2) / self.n_bytes.sum())


def paired_difference(a: DocumentSums, b: DocumentSums) -> tuple[float, float]:
    """Loss of a minus loss of b on the same documents, and its standard error over documents.

    Documents that are hard for both cancel, so the error is far smaller than that of either loss. For models with
    different tokenizers the difference is of nats per byte; with equal token counts it is of nats per token.

    Raises
    ------
    CorpusError
        The two are not of the same documents.
    """
    if len(a.nll) != len(b.nll) or not np.array_equal(a.n_bytes, b.n_bytes):
        raise CorpusError("two losses of different documents", expected="the same documents for both models")
    weights = (a.tokens, b.tokens) if np.array_equal(a.tokens, b.tokens) else (a.n_bytes, b.n_bytes)
    losses = [sums.nll.sum() / weight.sum() for sums, weight in zip((a, b), weights, strict=True)]
    parts = [
        (sums.nll - loss * weight) / weight.sum() for sums, loss, weight in zip((a, b), losses, weights, strict=True)
    ]
    d = len(a.nll)
    spread = math.nan if d < 2 else float(np.sqrt(((parts[0] - parts[1]) ** 2).sum() * d / (d - 1)))
    return float(losses[0] - losses[1]), spread


@dataclass(frozen=True)
class LossResult:
    """A loss with what it was measured on; `summary` gives the keys of ``llmprobe loss --json``.

    `loss` and `loss_stderr` are nats per token. `peak_memory_bytes` is the process's on a CPU, the allocator's on
    a GPU. `documents_sha256` is of the texts used: equal for models that saw the same documents. Positions are as in
    `Scores`. `content` is the `fingerprint` of the source, `kept` names the batches that `stored` removes.
    """

    source: str
    revision: str
    corpus: str
    n_documents: int
    n_tokens: int
    n_bytes: int
    nll_sum: float
    loss: float
    loss_stderr: float
    bits_per_byte: float
    context: int
    prefix: str
    dtype: str
    device: str
    tokens_per_second: float
    peak_memory_bytes: int
    documents: DocumentSums
    corpus_version: str
    documents_sha256: str
    position_nll: Float[np.ndarray, " p"]
    position_tokens: Int[np.ndarray, " p"]
    content: str = ""
    kept: str = ""

    def stored(self) -> None:
        """Remove the batches that were kept in case the process is killed: the result is stored or shown now."""
        if self.kept:
            forget(_kept_folder(), self.kept, KEPT)

    def by_position(self) -> list[tuple[int, int, float]]:
        """First and last position in the window, and the mean NLL there, in bins that double: short contexts cost."""
        last = self.context
        return [
            ((1 << k), min((2 << k) - 1, last), float(nll / tokens))
            for k, (nll, tokens) in enumerate(zip(self.position_nll, self.position_tokens, strict=True))
            if tokens
        ]

    def summary(self) -> dict[str, Any]:
        """The keys of ``llmprobe loss --json``."""
        hidden = {"documents", "corpus_version", "documents_sha256", "position_nll", "position_tokens"}
        hidden |= {"content", "kept"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}


def evaluate_loss(
    model: LanguageModel,
    corpus: Corpus,
    *,
    context: int = 1024,
    max_tokens: int | None = None,
    prefix: Prefix = "auto",
    batch_tokens: int | None = None,
    max_documents: int | None = None,
    resume: bool = False,
    progress: bool = False,
) -> LossResult:
    """Measure the mean next-token NLL of a model on a corpus.

    Parameters
    ----------
    context
        Tokens per window; never more than the model's positions.
    max_tokens
        Score at most this many tokens, taken from the front of the corpus.
    max_documents
        Use this many documents from the front of the corpus. Models with different tokenizers see the same texts,
        and can be compared pairwise, only if they are limited by documents and not by tokens.
    resume
        Keep finished batches in the cache and resume from them after the process was killed; they stay until
        `LossResult.stored` is called.
    prefix
        What stands before each window; see `llmprobe.loss.windows`.
    batch_tokens
        Tokens per forward pass; the default fits the device and is halved when memory runs out.
    progress
        Show a progress bar on stderr.

    Raises
    ------
    CorpusError
        Nothing in the corpus can be scored.
    """
    if model.positions is not None and context > model.positions:
        log.warning("context %d is more than the model's %d positions: using those", context, model.positions)
        context = model.positions
    documents = _Digest(islice(corpus, max_documents))
    windows = list(cut_windows(documents, model.tokenizer, context=context, prefix=prefix, max_tokens=max_tokens))
    if not windows:
        raise CorpusError(f"{corpus.name} holds no token that can be scored", expected="at least two tokens of text")
    rows = len(next(model.model.get_input_embeddings().parameters()))
    if (largest := max(max(window.tokens) for window in windows)) >= rows:
        raise CorpusError(
            f"the tokenizer of {model.source} gives token {largest}, and the model has {rows}",
            fix="model and tokenizer do not belong together",
        )
    if model.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    score = partial(score_windows, model, windows, batch_tokens=batch_tokens, progress=progress)
    kept = _kept_name(model, batch_tokens, windows) if resume else ""
    if resume:
        with claimed(_kept_folder(), kept, KEPT) as own:
            scores = score(partial=own, keep_partial=True)
    else:
        scores = score()
    seconds = time.perf_counter() - started
    sums = _by_document(windows, scores.nll)
    return LossResult(
        source=model.source,
        revision=model.revision,
        corpus=corpus.name,
        n_documents=len(sums.nll),
        n_tokens=int(sums.tokens.sum()),
        n_bytes=int(sums.n_bytes.sum()),
        nll_sum=float(sums.nll.sum()),
        loss=sums.loss,
        loss_stderr=sums.stderr,
        bits_per_byte=sums.bits_per_byte,
        context=context,
        prefix=prefix_token(model.tokenizer, prefix)[0],
        dtype=model.dtype,
        device=model.device,
        tokens_per_second=float(sums.tokens.sum()) / seconds,
        peak_memory_bytes=_peak_memory(model.device),
        documents=sums,
        corpus_version=corpus.version,
        documents_sha256=documents.hexdigest(),
        position_nll=scores.position_nll,
        position_tokens=scores.position_tokens,
        content=fingerprint(model.source),
        kept=kept,
    )


def _kept_folder() -> Path:
    return cache_dir() / "loss"


def _kept_name(model: LanguageModel, batch_tokens: int | None, windows: Sequence[Window]) -> str:
    """What identifies finished batches: the weights in memory, whatever they are called, and what they are shown."""
    weights = tensors_sha256(model.model.state_dict().items())
    content = f"{weights}|{model.model.config.to_json_string()}|{fingerprint(model.source)}"
    identity = f"{content}|{model.dtype}|{model.device}|{batch_tokens}|{windows!r}"
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:24]


class _Digest:
    """Documents passed on as they come, their texts hashed on the way."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents, self._sha256 = documents, hashlib.sha256()

    def __iter__(self) -> Iterator[Document]:
        for document in self._documents:
            self._sha256.update(document.text.encode("utf-8", "surrogatepass") + b"\0")
            yield document

    def hexdigest(self) -> str:
        return self._sha256.hexdigest()


def _by_document(windows: Sequence[Window], nll: Float[np.ndarray, " w"]) -> DocumentSums:
    _, document = np.unique([window.document for window in windows], return_inverse=True)
    return DocumentSums(
        nll=np.bincount(document, weights=nll),
        tokens=np.bincount(document, weights=[w.scored for w in windows]).astype(np.int64),
        n_bytes=np.bincount(document, weights=[w.n_bytes for w in windows]).astype(np.int64),
    )


def _peak_memory(device: str) -> int:
    if device.startswith("cuda"):
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
