"""Overlaps and losses as measurements: what is asked for, how it is measured, and the rows that come of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from llmprobe.errors import ConfigError, ProbeError
from llmprobe.families import columns, find_member, load_families, vocabulary
from llmprobe.observations import Identity, Observation
from llmprobe.settings import Count, Device, DType, Natural, Settings
from llmprobe.study import Result, Work

if TYPE_CHECKING:
    from llmprobe.loss.corpus import Corpus
    from llmprobe.loss.language_model import LanguageModel
    from llmprobe.loss.result import LossResult
    from llmprobe.overlap.statistics import OverlapStatistics
    from llmprobe.weights.unembedding import Unembedding

S = TypeVar("S", bound=Settings)
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
    "superposition",
)
LOSS_METRICS = ("loss", "bits_per_byte")
RANDOM_ROWS = "random rows like "  # a model: what its control is called


@dataclass(frozen=True, kw_only=True)
class MatrixSettings(Settings):
    """Settings of everything that reads an unembedding."""

    tensor: str | None = None
    """Name of the unembedding, for a model that calls it something unusual."""
    vocabulary: Count | None = None
    """Use only the first rows, this many."""
    tokenizer_vocab: bool = False
    """Leave out padding: the rows below the tokenizer's vocabulary, as the family table gives it."""
    fold_norm: bool = False
    """Multiply by the final norm's gain first (Gemma's is 1 + w)."""
    drop_zero_rows: bool = False
    """Leave out rows of norm zero instead of refusing them."""
    toml: tuple[str, ...] = ()
    """Files of your own families."""

    def read(self, source: str) -> Unembedding:
        """The unembedding of a source, as these settings ask for it.

        Raises
        ------
        ConfigError
            Padding is to be left out and no family table says where it begins.
        SourceError
            See `read_unembedding`.
        """
        from llmprobe.weights.unembedding import read_unembedding

        known = find_member(load_families(*self.toml), source)
        rows = self.vocabulary
        if self.tokenizer_vocab:
            rows = vocabulary(*known) if known else None
            if rows is None:
                raise ConfigError(
                    f"the vocabulary of {source} is in no family table",
                    fix="give it with --vocabulary, or add it by --toml",
                )
        tensor = self.tensor or (known[1].tensor if known else None)
        return read_unembedding(source, tensor=tensor, rows=rows, fold_gain=self.fold_norm)

    def identity(self) -> dict[str, str | int | bool | None]:
        """What of these settings decides the outcome."""
        return {name: getattr(self, name) for name in MatrixSettings.__dataclass_fields__ if name != "toml"}


@dataclass(frozen=True, kw_only=True)
class OverlapSettings(MatrixSettings):
    """How overlaps are measured."""

    method: Literal["auto", "exact", "sampled"] = "auto"
    """Mean |cos| over all pairs, over a sample of rows, or whichever takes seconds."""
    rows: Count = 1024
    """Rows sampled against all others."""
    seed: Natural = 0
    """Of the sample."""

    def measure(self, matrix: Unembedding, *, progress: bool = False) -> OverlapStatistics:
        """The overlaps of a matrix that was read."""
        from llmprobe.overlap.statistics import overlap_statistics

        own = {"method": self.method, "rows": self.rows, "seed": self.seed, "drop_zero_rows": self.drop_zero_rows}
        return overlap_statistics(matrix.W, progress=progress, **own)  # type: ignore[arg-type]

    def identity(self) -> dict[str, str | int | bool | None]:
        """What of these settings decides the outcome."""
        return {**super().identity(), "method": self.method, "rows": self.rows, "seed": self.seed}

    def asked(self, study: str, source: str) -> tuple[Identity, ...]:
        """What is asked for of a model, one per metric."""
        own = self.identity()
        return tuple(Identity(study=study, source_kind="llm", metric=m, model=source, settings=own)
                     for m in OVERLAP_METRICS)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LossSettings(Settings):
    """How a loss is measured."""

    context: Count = 1024
    """Tokens per window; never more than the model's positions."""
    max_tokens: Count | None = None
    """Score at most this many tokens, from the front of the corpus."""
    max_documents: Count | None = None
    """Use this many documents: the fair limit between models with different tokenizers."""
    prefix: Literal["auto", "bos", "eos", "none"] = "auto"
    """Token before each window: BOS, else EOS, else none."""
    dtype: DType = "float32"
    """float32 for figures to report; bfloat16 and float16 are faster and less exact."""
    device: Device = "auto"
    """auto, cpu, cuda or mps."""
    batch_tokens: Count | None = None
    """Tokens per forward pass; the default fits the device."""

    def load(self, source: str) -> LanguageModel:
        """The model, as these settings ask for it."""
        from llmprobe.loss.language_model import load_model

        return load_model(source, dtype=self.dtype, device=self.device)

    def measure(self, model: LanguageModel, corpus: Corpus, *, progress: bool = False) -> LossResult:
        """The loss of a loaded model; finished batches survive a kill until the result is stored."""
        from llmprobe.loss.evaluate import evaluate_loss

        own = {name: getattr(self, name) for name in ("context", "max_tokens", "max_documents", "prefix")}
        return evaluate_loss(model, corpus, batch_tokens=self.batch_tokens, resume=True, progress=progress, **own)

    def identity(self, corpus: Corpus) -> dict[str, str | int | None]:
        """What of these settings and of a corpus decides the outcome."""
        own = {f.name: getattr(self, f.name) for f in fields(LossSettings) if f.name not in ("device", "batch_tokens")}
        return {**own, "corpus_version": corpus.version}

    def asked(self, study: str, source: str, corpora: Sequence[Corpus]) -> tuple[Identity, ...]:
        """What is asked for of a model, one per corpus and metric."""
        return tuple(Identity(study=study, source_kind="llm", metric=metric, model=source, corpus=corpus.name,
                              settings=self.identity(corpus))
                     for corpus in corpora for metric in LOSS_METRICS)  # fmt: skip


def overlap_work(study: str, source: str, settings: OverlapSettings, *, size: int = 0, **about: Any) -> Work:
    """The overlaps of one model as a piece of work; `about` may name columns that the family tables do not."""
    from llmprobe.weights.fingerprint import fingerprint

    measure = partial(_overlaps, _only(OverlapSettings, settings), about)
    return Work(source, settings.asked(study, source), measure, fingerprint(source), size)


def control_work(study: str, source: str, settings: OverlapSettings) -> Work:
    """Gaussian rows of a model's n, m and norms, measured like the model: what random directions would have shown."""
    from llmprobe.weights.fingerprint import fingerprint

    own = {**settings.identity(), "control": "gaussian"}
    name = RANDOM_ROWS + source
    identities = tuple(
        replace(one, source_kind="toy", model=name, settings=own) for one in settings.asked(study, source)
    )
    measure = partial(_controls, _only(OverlapSettings, settings), source)
    return Work(name, identities, measure, fingerprint(source))


def loss_work(
    study: str, source: str, corpora: Sequence[Corpus], settings: LossSettings, *, toml: Sequence[str] = (),
    size: int = 0, **about: Any,
) -> Work:  # fmt: skip
    """The losses of one model, loaded once, on several corpora; `about` as for `overlap_work`."""
    from llmprobe.weights.fingerprint import fingerprint

    about = family_columns(source, toml) | about
    measure = partial(_losses, _only(LossSettings, settings), tuple(corpora), about)
    return Work(source, settings.asked(study, source, corpora), measure, fingerprint(source), size)


def overlap_rows(
    identities: Iterable[Identity], statistics: OverlapStatistics, record: Mapping[str, Any], **about: Any
) -> list[Observation]:
    """One row per overlap metric, of a model or of a toy; a metric that is undefined (NaN) makes none."""
    s = statistics
    values: dict[str, tuple[float, float | None]] = {
        "mean_abs_cos": (s.mean_abs_cos, s.mean_abs_cos_stderr),
        "mean_sq_cos": (s.mean_sq_cos, None),
        "mean_cos": (s.mean_cos, None),
        "centered_mean_abs_cos": (s.centered.mean_abs_cos, None),
        "centered_mean_sq_cos": (s.centered.mean_sq_cos, None),
        "participation_ratio": (s.participation_ratio, None),
        "norm_mean": (s.norm.mean, None),
        "norm_std": (s.norm.std, None),
        "represented_fraction": (s.represented_fraction, s.represented_stderr),
        "superposition": (s.superposition, s.represented_stderr / (1 - s.m / s.n) if s.n > s.m else None),
    }
    about = {"m": s.m, "n": s.n, "n_samples": s.rows_sampled, **about}
    record = {**record, "undefined": [metric for metric, (value, _) in values.items() if math.isnan(value)]}
    return [
        one.observe(values[one.metric][0], stderr=values[one.metric][1], record=record, **about)
        for one in identities
        if one.metric in values and one.metric not in record["undefined"]
    ]


def loss_rows(identities: Iterable[Identity], result: LossResult, **about: Any) -> list[Observation]:
    """Loss and bits per byte of a language model."""
    error = result.loss_stderr if result.loss_stderr == result.loss_stderr else None
    per_byte = result.bits_per_byte / result.loss
    values = {
        "loss": (result.loss, error, "nats"),
        "bits_per_byte": (result.bits_per_byte, None if error is None else error * per_byte, "bits"),
    }
    record = {
        name: getattr(result, name)
        for name in ("content", "device", "corpus_version", "documents_sha256", "nll_sum", "n_documents", "n_bytes")
    }
    record |= {"context_granted": result.context, "prefix_granted": result.prefix, "n_tokens": result.n_tokens}
    record["control_tokens"] = "text"  # those written out in a document are scored as the text they are
    about = {"revision": result.revision, "n_samples": result.n_tokens, **about}
    return [
        one.observe(values[one.metric][0], stderr=values[one.metric][1], unit=values[one.metric][2], record=record,
                    **about)
        for one in identities if one.metric in values
    ]  # fmt: skip


def overlap_result(
    wanted: Iterable[Identity], matrix: Unembedding, statistics: OverlapStatistics, **about: Any
) -> Result:
    """The overlaps of a model's matrix, ready to be stored."""
    from llmprobe.weights.fingerprint import fingerprint

    names = ("tensor", "sha256", "dtype", "tied", "bytes_read", "vocabulary", "folded")
    record = {name: getattr(matrix, name) for name in names}
    record |= {"content": fingerprint(matrix.source), "method": statistics.method, "ties": statistics.ties}
    return Result(overlap_rows(wanted, statistics, record, revision=matrix.revision, **about))


def family_columns(source: str, toml: Sequence[str] = ()) -> dict[str, Any]:
    """What the family tables say of a source."""
    return columns(load_families(*toml), source)


def _overlaps(settings: OverlapSettings, about: dict[str, Any], wanted: tuple[Identity, ...]) -> Iterator[Result]:
    source = wanted[0].model
    matrix = settings.read(source)
    statistics = settings.measure(matrix, progress=True)
    yield overlap_result(wanted, matrix, statistics, **(family_columns(source, settings.toml) | about))


def _controls(settings: OverlapSettings, source: str, wanted: tuple[Identity, ...]) -> Iterator[Result]:
    from llmprobe.overlap.controls import gaussian_rows
    from llmprobe.weights.fingerprint import fingerprint

    matrix = settings.read(source)
    control = replace(matrix, W=gaussian_rows(matrix.W, seed=settings.seed))
    statistics = settings.measure(control, progress=True)
    record = {"content": fingerprint(source), "method": statistics.method}
    yield Result(overlap_rows(wanted, statistics, record, family="control"))


def _losses(
    settings: LossSettings, corpora: Sequence[Corpus], about: dict[str, Any], wanted: tuple[Identity, ...]
) -> Iterator[Result]:
    model = settings.load(wanted[0].model)
    for corpus in corpora:
        version = corpus.version
        own = [one for one in wanted if one.corpus == corpus.name and one.settings["corpus_version"] == version]
        if not own:
            continue
        try:
            result = settings.measure(model, corpus, progress=True)
        except ProbeError as error:
            yield Result([], failed=(f"{model.source} on {corpus.name}", str(error)))
            continue
        rows = loss_rows(own, result, **{"m": model.width, **about})
        yield Result(rows, vars(result.documents), result.stored)


def _only(kind: type[S], settings: S) -> S:
    """Settings without what a recipe's own class adds, which other processes may not know."""
    return kind(**{f.name: getattr(settings, f.name) for f in fields(kind)})
