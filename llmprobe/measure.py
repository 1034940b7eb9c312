"""Measurements as observations: what identifies each, and what is written down of how it came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmprobe.observations import Observation, ObservationStore, Provenance, Scalar
from llmprobe.weights.fingerprint import fingerprint

if TYPE_CHECKING:
    from llmprobe.loss.evaluate import LossResult
    from llmprobe.overlap.statistics import OverlapStatistics
    from llmprobe.weights.unembedding import Unembedding


OVERLAP_METRICS = (
    "mean_abs_cos",
    "mean_sq_cos",
    "mean_cos",
    "centered_mean_abs_cos",
    "centered_mean_sq_cos",
    "participation_ratio",
    "norm_mean",
    "norm_std",
    "represented_fraction",
)  # always there; `superposition` is too where n > m
LOSS_METRICS = ("loss", "bits_per_byte")


def is_measured(store: ObservationStore, metrics: Sequence[str], *, content: str = "", **wanted: Scalar) -> bool:
    """Whether all these metrics are stored for what `wanted` selects: a row lost to damage is measured again.

    Parameters
    ----------
    content
        `fingerprint` of the source: rows of other weights under the same name do not count.
    """
    rows = (row for row in store.select(**wanted) if not content or row.provenance.record.get("content") == content)
    return set(metrics) <= {row.metric for row in rows}


def overlap_observations(
    study: str, matrix: Unembedding, statistics: OverlapStatistics, **columns: Any
) -> list[Observation]:
    """One row per overlap statistic of a language model; `columns` may name its family, depth or parameters."""
    settings: dict[str, Scalar] = {
        "tensor": matrix.tensor,
        "method": statistics.method,
        "rows_sampled": statistics.rows_sampled,
        "vocabulary": matrix.vocabulary,
        "folded": matrix.folded,
    }
    record = {
        "content": fingerprint(matrix.source),
        "sha256": matrix.sha256,
        "dtype": matrix.dtype,
        "bytes_read": matrix.bytes_read,
        "tied": matrix.tied,
    }
    values: dict[str, float] = {
        "mean_abs_cos": statistics.mean_abs_cos,
        "mean_sq_cos": statistics.mean_sq_cos,
        "mean_cos": statistics.mean_cos,
        "centered_mean_abs_cos": statistics.centered.mean_abs_cos,
        "centered_mean_sq_cos": statistics.centered.mean_sq_cos,
        "participation_ratio": statistics.participation_ratio,
        "norm_mean": statistics.norm.mean,
        "norm_std": statistics.norm.std,
        "represented_fraction": statistics.represented_fraction,
        "superposition": statistics.superposition,
    }
    return [
        Observation(
            study=study,
            source_kind="llm",
            model=matrix.source,
            revision=matrix.revision,
            m=statistics.m,
            n=statistics.n,
            metric=metric,
            value=value,
            stderr=statistics.mean_abs_cos_stderr if metric == "mean_abs_cos" else None,
            n_samples=statistics.rows_sampled,
            provenance=Provenance.here(settings, **record),
            **columns,
        )
        for metric, value in values.items()
        if value == value  # a NaN (undefined here) is not an observation
    ]


def loss_observations(study: str, result: LossResult, *, m: int, **columns: Any) -> list[Observation]:
    """Loss and bits per byte of a language model; `m` is its width."""
    settings: dict[str, Scalar] = {
        "context": result.context,
        "prefix": result.prefix,
        "dtype": result.dtype,
        "tokens": result.n_tokens,
    }
    record = {
        "content": result.content,
        "device": result.device,
        "corpus_version": result.corpus_version,
        "documents_sha256": result.documents_sha256,
        "nll_sum": result.nll_sum,
        "n_documents": result.n_documents,
        "n_bytes": result.n_bytes,
        "control_tokens": "text",  # those written out in a document are scored as the text they are
    }
    stderr = result.loss_stderr if result.loss_stderr == result.loss_stderr else None
    common: dict[str, Any] = {
        "study": study,
        "source_kind": "llm",
        "model": result.source,
        "revision": result.revision,
        "corpus": result.corpus,
        "m": m,
        "n_samples": result.n_tokens,
        "provenance": Provenance.here(settings, **record),
        **columns,
    }
    per_byte = result.bits_per_byte / result.loss
    return [
        Observation(metric="loss", value=result.loss, stderr=stderr, unit="nats", **common),
        Observation(
            metric="bits_per_byte",
            value=result.bits_per_byte,
            stderr=None if stderr is None else stderr * per_byte,
            unit="bits",
            **common,
        ),
    ]
