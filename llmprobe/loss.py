"""Next-token loss of a language model, with its error bar: sums of NLL, tokens and bytes per document.

Windows of like length share a batch and are padded on the right only, where a causal model cannot look, so the
padding changes nothing and is never scored. Logits are made for a few positions at a time, never for the batch.
Protocol: arXiv:2505.10465 appendix; bits per byte as in Gao et al. 2020 (The Pile).
"""

from __future__ import annotations

import hashlib
import logging
import math
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from llmprobe.corpus import Corpus
from llmprobe.errors import CorpusError
from llmprobe.models import LanguageModel
from llmprobe.windows import Prefix, Window, cut_windows, prefix_token

log = logging.getLogger(__name__)
LOGIT_BYTES = 32 << 20  # of float32 logits held at a time
BATCH_TOKENS = {"cpu": 2048, "mps": 8192, "cuda": 32768}


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


@dataclass(frozen=True)
class LossResult:
    """A loss with what it was measured on; `summary` gives the keys of ``llmprobe loss --json``.

    `loss` and `loss_stderr` are nats per token. `peak_memory_bytes` is the process's on a CPU, the allocator's on
    a GPU. `documents_sha256` fixes the token windows that were scored.
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

    def summary(self) -> dict[str, Any]:
        """The keys of ``llmprobe loss --json``."""
        hidden = {"documents", "corpus_version", "documents_sha256"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in hidden}


def evaluate_loss(
    model: LanguageModel,
    corpus: Corpus,
    *,
    context: int = 1024,
    max_tokens: int | None = None,
    prefix: Prefix = "auto",
    batch_tokens: int | None = None,
    progress: bool = False,
) -> LossResult:
    """Measure the mean next-token NLL of a model on a corpus.

    Parameters
    ----------
    context
        Tokens per window; never more than the model's positions.
    max_tokens
        Score at most this many tokens, taken from the front of the corpus.
    prefix
        What stands before each window; see `llmprobe.windows`.
    batch_tokens
        Tokens per forward pass; the default fits the device and is halved when memory runs out.

    Raises
    ------
    CorpusError
        Nothing in the corpus can be scored.
    """
    if model.positions is not None and context > model.positions:
        log.warning("context %d is more than the model's %d positions: using those", context, model.positions)
        context = model.positions
    windows = list(cut_windows(corpus, model.tokenizer, context=context, prefix=prefix, max_tokens=max_tokens))
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
    nll = window_nll(model, windows, batch_tokens=batch_tokens, progress=progress)
    seconds = time.perf_counter() - started
    sums = _by_document(windows, nll)
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
        documents_sha256=hashlib.sha256(repr(windows).encode()).hexdigest(),
    )


def window_nll(
    model: LanguageModel, windows: Sequence[Window], *, batch_tokens: int | None = None, progress: bool = False
) -> Float[np.ndarray, " w"]:
    """Summed NLL of each window, in nats, in the order given."""
    score = _scorer(model)
    budget = batch_tokens or BATCH_TOKENS[model.device.split(":")[0]]
    order = sorted(range(len(windows)), key=lambda i: -windows[i].scored)
    nll = np.zeros(len(windows))
    with tqdm(total=sum(w.scored for w in windows), unit="token", desc="loss", disable=not progress) as bar:
        done = 0
        while done < len(order):
            longest = windows[order[done]].scored
            batch = order[done : done + max(1, budget // longest)]
            try:
                nll[batch] = score([windows[i] for i in batch])
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                budget = max(longest, budget // 2)
                torch.cuda.empty_cache()
                log.warning("out of memory: going on with %d tokens at a time", budget)
                continue
            done += len(batch)
            bar.update(sum(windows[i].scored for i in batch))
    return nll


def _scorer(model: LanguageModel) -> Callable[[list[Window]], Float[np.ndarray, " b"]]:
    """A function from windows to their summed NLL."""
    network = model.model
    device = _input_device(model)
    head = _head(model)
    step = max(1, LOGIT_BYTES // (4 * network.config.get_text_config().vocab_size))

    @torch.inference_mode()
    def score(windows: list[Window]) -> Float[np.ndarray, " b"]:
        width = windows[0].scored
        ids = torch.zeros(len(windows), width + 1, dtype=torch.long)
        for row, window in zip(ids, windows, strict=True):
            row[: len(window.tokens)] = torch.tensor(window.tokens)
        ids = ids.to(device)
        hidden = network.base_model(input_ids=ids[:, :-1], use_cache=False)[0] if head else None
        logits = network(input_ids=ids[:, :-1], use_cache=False).logits if hidden is None else None
        sums = []
        for row, window in enumerate(windows):
            targets = ids[row, 1 : 1 + window.scored]
            rows = hidden[row] if hidden is not None else logits[row]  # type: ignore[index]
            sums.append(_sum_nll(rows[: window.scored], targets, head, step))
        return np.array(sums)

    return score


def _sum_nll(
    rows: Float[Tensor, "t x"], targets: Int[Tensor, " t"], head: Callable[[Tensor], Tensor] | None, step: int
) -> float:
    total = 0.0
    for start in range(0, len(targets), step):
        chunk = rows[start : start + step]
        logits = (head(chunk) if head else chunk).float()
        wanted = targets[start : start + step].to(logits.device)
        total += float(torch.nn.functional.cross_entropy(logits, wanted, reduction="none").double().sum())
    return total


def _head(model: LanguageModel) -> Callable[[Tensor], Tensor] | None:
    """Hidden states to logits, as this model does it; None if that cannot be told apart from the whole."""
    network = model.model
    output = network.get_output_embeddings()
    if output is None or network.base_model is network:
        return None
    cap = getattr(network.config.get_text_config(), "final_logit_softcapping", None)

    def head(hidden: Tensor) -> Tensor:
        logits = output(hidden)
        return cap * torch.tanh(logits / cap) if cap else logits

    # Some models scale their logits in ways of their own: trust the short way only where it gives the same.
    ids = torch.arange(8, device=_input_device(model))[None]
    with torch.inference_mode():
        whole = network(input_ids=ids, use_cache=False).logits
        parts = head(network.base_model(input_ids=ids, use_cache=False)[0])
    if whole.shape == parts.shape and torch.allclose(whole.float(), parts.float(), rtol=1e-3, atol=1e-4):
        return head
    log.warning("%s shapes its logits in its own way: they are made for whole batches", model.source)
    return None


def _input_device(model: LanguageModel) -> torch.device:
    """Where token ids go: the first device of a model spread over several."""
    return next(model.model.get_input_embeddings().parameters()).device


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
