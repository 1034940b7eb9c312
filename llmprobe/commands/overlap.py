"""``llmprobe overlap``: how the unembedding rows of models overlap."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import tyro

from llmprobe import console
from llmprobe.measurements import OverlapSettings, family_columns, overlap_result
from llmprobe.observations import ObservationStore
from llmprobe.study import keep


@dataclass(frozen=True)
class Overlap(OverlapSettings):
    """Measure how the unembedding rows of models overlap, and place each in its superposition regime.

    Only the one matrix is read. Raw overlaps contain the common mean direction of all rows; centered ones do not.
    """

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")]
    """org/name, org/name@revision, a folder, a .safetensors or .gguf file, or sample:smollm2-135m."""
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
            started = time.perf_counter()
            matrix = self.read(source)
            statistics = self.measure(matrix, progress=True)
            row = {key: getattr(matrix, key) for key in ("source", "revision", "tensor", "dtype", "tied", "bytes_read")}
            row |= asdict(statistics) | {"seconds": time.perf_counter() - started}
            if self.store:
                about = family_columns(source, self.toml)
                result = overlap_result(self.asked("overlap", source), matrix, statistics, **about)
                keep(ObservationStore(self.store), result)
            console.emit(row) if self.json else _show(row)


def _show(row: dict[str, Any]) -> None:
    sampled = f"{row['rows_sampled']} sampled rows" if row["method"] == "sampled" else "all pairs"
    centered, m, norm = row["centered"], row["m"], row["norm"]
    console.say(f"{row['source']}  {row['tensor']}  n = {row['n']} × m = {m}  {row['dtype']}")
    console.say(
        console.table(
            [
                ("mean |cos|", row["mean_abs_cos"], centered["mean_abs_cos"]),
                ("mean cos²", row["mean_sq_cos"], centered["mean_sq_cos"]),
                ("mean cos² × m", row["mean_sq_cos"] * m, centered["mean_sq_cos"] * m),
                ("mean cos", row["mean_cos"], centered["mean_cos"]),
            ],
            ("", "raw", "centered"),
        )
    )
    error = f", standard error {row['mean_abs_cos_stderr']:.2g}" if row["mean_abs_cos_stderr"] else ""
    share = f" ± {row['represented_stderr']:.2g}" if row["represented_stderr"] else ""
    ties = f", {row['ties']} near-duplicates tie" if row["ties"] else ""
    console.say(
        f"for comparison: 1/m = {row['random_mean_sq']:.5g} (random rows), Welch bound {row['welch_mean_sq']:.5g}\n"
        f"participation ratio {row['participation_ratio']:.4g} of {m} directions; "
        f"norms {norm['mean']:.4g} ± {norm['std']:.3g}\n"
        f"represented {row['represented_fraction']:.4f}{share} of the rows{ties}; "
        f"superposition {row['superposition']:.4f} (0: only m rows, 1: all)\n"
        f"mean |cos| over {sampled}{error}; {row['bytes_read'] / 1e6:.1f} MB read, {row['seconds']:.1f} s\n"
    )
