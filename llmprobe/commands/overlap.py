"""``llmprobe overlap``: how the unembedding rows of models overlap."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from llmprobe import console

if TYPE_CHECKING:
    from llmprobe.families import Family, Member


@dataclass(frozen=True)
class Overlap:
    """Measure how the unembedding rows of models overlap, and place each in its superposition regime.

    Only the one matrix is read. Raw overlaps contain the common mean direction of all rows; centred ones do not.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """org/name, org/name@revision, a folder, a .safetensors or .gguf file, or sample:smollm2-135m."""
    method: Literal["auto", "exact", "sampled"] = "auto"
    """Mean |cos| over all pairs, over a sample of rows, or whichever takes seconds."""
    rows: int = 1024
    """Rows sampled against all others."""
    seed: int = 0
    """Of the sample."""
    tensor: str | None = None
    """Name of the unembedding, for a model that calls it something unusual."""
    vocabulary: int | None = None
    """Use only the first rows, this many."""
    tokenizer_vocab: bool = False
    """Leave out padding: the rows below the tokenizer's vocabulary, as the family table gives it."""
    fold_norm: bool = False
    """Multiply by the final norm's gain first (Gemma's is 1 + w)."""
    drop_zero_rows: bool = False
    """Leave out rows of norm zero instead of refusing them."""
    toml: tuple[str, ...] = ()
    """Files of your own families."""
    store: str | None = None
    """Append the observations to this JSONL file."""
    json: bool = False
    """Print one JSON object per source and nothing else."""

    def run(self) -> None:
        """Measure each source in turn."""
        from llmprobe.errors import ConfigError

        if not self.sources:
            raise ConfigError("no model was named", fix="try: llmprobe overlap sample:smollm2-135m")
        for source in self.sources:
            row = self._measure(source)
            if self.json:
                console.emit(row)
            else:
                _show(row)

    def _measure(self, source: str) -> dict[str, Any]:
        from llmprobe.families import columns, find_member, load_families
        from llmprobe.overlap.statistics import overlap_statistics
        from llmprobe.weights.unembedding import read_unembedding

        families = load_families(*self.toml)
        known = find_member(families, source)
        rows = self._vocabulary(source, known) if self.tokenizer_vocab else self.vocabulary
        tensor = self.tensor or (known[1].tensor if known else None)
        started = time.perf_counter()
        matrix = read_unembedding(source, tensor=tensor, rows=rows, fold_gain=self.fold_norm)
        statistics = overlap_statistics(
            matrix.W,
            method=self.method,
            rows=self.rows,
            seed=self.seed,
            drop_zero_rows=self.drop_zero_rows,
            progress=True,
        )
        seconds = time.perf_counter() - started
        if self.store:
            from llmprobe.measure import overlap_observations
            from llmprobe.observations import ObservationStore

            ObservationStore(self.store).append(
                *overlap_observations("overlap", matrix, statistics, **columns(families, source))
            )
        about = {key: getattr(matrix, key) for key in ("source", "revision", "tensor", "dtype", "tied", "bytes_read")}
        return {**about, **asdict(statistics), "seconds": seconds}

    def _vocabulary(self, source: str, known: tuple[Family, Member] | None) -> int:
        from llmprobe.errors import ConfigError
        from llmprobe.families import vocabulary

        size = vocabulary(*known) if known else None
        if size is None:
            raise ConfigError(
                f"the vocabulary of {source} is in no family table",
                fix="give it with --vocabulary, or add it by --toml",
            )
        return size


def _show(row: dict[str, Any]) -> None:
    error = row["mean_abs_cos_stderr"]
    sampled = f"{row['rows_sampled']} sampled rows" if row["method"] == "sampled" else "all pairs"
    centred = row["centered"]
    console.say(f"{row['source']}  {row['tensor']}  n = {row['n']} × m = {row['m']}  {row['dtype']}")
    console.say(
        console.table(
            [
                ("mean |cos|", row["mean_abs_cos"], centred["mean_abs_cos"]),
                ("mean cos²", row["mean_sq_cos"], centred["mean_sq_cos"]),
                ("mean cos² × m", row["mean_sq_cos"] * row["m"], centred["mean_sq_cos"] * row["m"]),
                ("mean cos", row["mean_cos"], centred["mean_cos"]),
            ],
            ("", "raw", "centred"),
        )
    )
    norm = row["norm"]
    console.say(
        f"for comparison: 1/m = {row['random_mean_sq']:.5g} (random rows), Welch bound {row['welch_mean_sq']:.5g}\n"
        f"participation ratio {row['participation_ratio']:.4g} of {row['m']} directions; "
        f"norms {norm['mean']:.4g} ± {norm['std']:.3g}\n"
        f"represented {row['represented_fraction']:.4f} of the rows, superposition {row['superposition']:.4f} "
        f"(0: only m rows, 1: all)\n"
        f"mean |cos| over {sampled}{f', standard error {error:.2g}' if error else ''}; "
        f"{row['bytes_read'] / 1e6:.1f} MB read, {row['seconds']:.1f} s\n"
    )
