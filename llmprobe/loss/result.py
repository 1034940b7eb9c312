"""A measured loss: sums of NLL, tokens and bytes per document, and the difference of two models on the same texts.

Bits per byte as in Gao et al. 2020 (The Pile).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from llmprobe.cache import cache_dir, forget
from llmprobe.errors import CorpusError

KEPT = ".jsonl"


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
        """Standard error of `loss` over documents (linearized ratio of sums); NaN for a single document."""
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

    Documents that are hard for both cancel, so the error is far smaller than that of either loss.

    Parameters
    ----------
    a
        Sums of the first model, ``LossResult.documents``.
    b
        Sums of the second, on the same documents.

    Returns
    -------
    Difference and standard error: in nats per token where both have the same token counts, in nats per byte for models
    with different tokenizers. The error of a single document is NaN.

    Raises
    ------
    CorpusError
        The two are not of the same documents.

    Examples
    --------
    >>> import numpy as np
    >>> from llmprobe.loss.result import DocumentSums
    >>> tokens = np.array([10, 20, 30])
    >>> a = DocumentSums(np.array([31.0, 61.0, 91.0]), tokens, 4 * tokens)
    >>> b = DocumentSums(np.array([30.0, 60.0, 90.0]), tokens, 4 * tokens)
    >>> difference, stderr = paired_difference(a, b)
    >>> round(difference, 3), round(stderr, 3)
    (0.05, 0.014)
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

    Attributes
    ----------
    source
        The model, as asked for.
    revision
        The commit that was read, empty for local files.
    corpus
        Name of the corpus.
    n_documents
        Documents with at least one token scored.
    n_tokens
        Tokens scored.
    n_bytes
        UTF-8 bytes of the text scored.
    nll_sum
        Summed negative log-likelihood, in nats.
    loss
        Mean NLL in nats per token.
    loss_stderr
        Its standard error over documents, NaN for a single one.
    bits_per_byte
        NLL in bits per byte of text: comparable across tokenizers.
    context
        Tokens per window, cut to the model's positions.
    prefix
        What stood before each window: ``bos``, ``eos`` or ``none``.
    dtype
        Type that the model computed in.
    device
        Device that it computed on.
    tokens_per_second
        Tokens scored over the time of the forward passes.
    peak_memory_bytes
        The process's on a CPU, the allocator's on a GPU.
    documents
        Sums per document, for `paired_difference`.
    corpus_version
        What else fixes the corpus; see `Corpus`.
    documents_sha256
        Hash of the texts used: equal for models that saw the same documents.
    position_nll
        NLL by position in the window, shape [p], in bins that double; see `Scores`.
    position_tokens
        Tokens scored in each bin, shape [p].
    content
        `fingerprint` of the source.
    kept
        Name of the batches that `stored` removes; empty without ``resume``.

    Examples
    --------
    >>> from llmprobe import evaluate_loss, load_model, open_corpus
    >>> result = evaluate_loss(load_model("tiny", device="cpu"), open_corpus("text.txt"))
    >>> abs(result.loss - result.nll_sum / result.n_tokens) < 1e-9
    True
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
            forget(kept_folder(), self.kept, KEPT)

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


def kept_folder() -> Path:
    """Where finished batches wait for a run to end."""
    return cache_dir() / "loss"
