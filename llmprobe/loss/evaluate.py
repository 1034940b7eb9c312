"""Next-token loss of a language model: a corpus cut into windows, scored, and summed per document.

Protocol: arXiv:2505.10465 appendix.
"""

from __future__ import annotations

import hashlib
import logging
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float

from llmprobe.cache import claimed
from llmprobe.errors import CorpusError
from llmprobe.loss.corpus import Corpus, Document
from llmprobe.loss.language_model import LanguageModel
from llmprobe.loss.result import KEPT, DocumentSums, LossResult, kept_folder
from llmprobe.loss.scoring import score_windows
from llmprobe.loss.windows import Prefix, Window, cut_windows, prefix_token
from llmprobe.weights.fingerprint import fingerprint, tensors_sha256

log = logging.getLogger(__name__)


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
    model
        From `load_model`.
    corpus
        From `open_corpus`.
    context
        Tokens per window; never more than the model's positions.
    max_tokens
        Score at most this many tokens, taken from the front of the corpus; all by default.
    prefix
        What stands before each window: ``auto`` (the tokenizer's bos, or its eos, or nothing), ``bos``, ``eos`` or
        ``none``; see `llmprobe.loss.windows`.
    batch_tokens
        Tokens per forward pass; the default fits the device and is halved when memory runs out.
    max_documents
        Use this many documents from the front of the corpus; all by default. Models with different tokenizers see the
        same texts, and can be compared pairwise, only if they are limited by documents and not by tokens.
    resume
        Keep finished batches in the cache and resume from them after the process was killed; they stay until
        `LossResult.stored` is called.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    The loss in nats per token and in bits per byte, with its standard error over documents.

    Raises
    ------
    CorpusError
        Nothing in the corpus can be scored, or the tokenizer gives tokens that the model does not have.
    ConfigError
        The tokenizer lacks the prefix that was asked for.

    Examples
    --------
    >>> from llmprobe import load_model, open_corpus
    >>> result = evaluate_loss(load_model("tiny", device="cpu"), open_corpus("text.txt"), context=16)
    >>> result.n_documents, result.context, result.prefix
    (1, 16, 'bos')
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
        with claimed(kept_folder(), kept, KEPT) as own:
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
