"""``llmprobe geometry``: a closer look at the overlaps of one model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from llmprobe import console

if TYPE_CHECKING:
    import numpy as np

    from llmprobe.overlap.neighbours import Distribution, FrequencyBin
    from llmprobe.weights.unembedding import Unembedding


@dataclass(frozen=True)
class Geometry:
    """Distribution of the cosines, the closest pairs of tokens, and overlap against token frequency."""

    source: Annotated[str, tyro.conf.Positional]
    """As for overlap; token strings and frequencies need its tokenizer."""
    center: bool = False
    """Subtract the mean row first."""
    fold_norm: bool = False
    """Multiply by the final norm's gain first."""
    pairs: int = 20
    """Closest pairs to list."""
    corpus: str = "stdlib"
    """Where token frequencies are counted."""
    max_tokens: int = 500_000
    """Tokens counted."""
    bins: int = 10
    """Frequency bins of equal size."""
    rows: int = 1024
    """Rows sampled for the distribution."""
    figure: Path | None = None
    """Draw the distribution and the frequency bins here (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def run(self) -> None:
        """Measure and show."""
        from llmprobe.loss.language_model import load_tokenizer
        from llmprobe.overlap.neighbours import by_frequency, closest_pairs, cosine_distribution
        from llmprobe.weights.unembedding import read_unembedding

        matrix = read_unembedding(self.source, fold_gain=self.fold_norm)
        tokenizer = load_tokenizer(self.source)
        spread = cosine_distribution(matrix.W, center=self.center, rows=self.rows)
        pairs = closest_pairs(matrix.W, k=self.pairs, center=self.center, progress=True)
        bins = by_frequency(matrix.W, self._counts(tokenizer, len(matrix.W)), bins=self.bins, center=self.center)
        strings = [(_token(tokenizer, p.i), _token(tokenizer, p.j), p.cos) for p in pairs]
        if self.figure:
            _draw(self.figure, matrix, spread, bins)
        if self.json:
            console.emit(
                {
                    "source": self.source,
                    "center": self.center,
                    "fold_norm": self.fold_norm,
                    "corpus": self.corpus,
                    "quantiles": {f"{q:g}": value for q, value in spread.quantiles.items()},
                    "pairs": [{"a": a, "b": b, "cos": c} for a, b, c in strings],
                    "frequency": [asdict(b) for b in bins],
                }
            )
            return
        console.say(f"cosines of {self.source}{', centred' if self.center else ''}, {self.rows} rows against all:")
        console.say("  ".join(f"{q:g}: {value:+.3f}" for q, value in spread.quantiles.items()))
        console.say("\n" + console.table([(c, a, b) for a, b, c in strings], ("cos", "closest", "pairs")))
        console.say(f"\nby frequency in {self.corpus}, the most frequent first, the last never seen:")
        rows = [(b.tokens, b.occurrences, b.norm, b.mean_sq_cos, b.stderr) for b in bins]
        console.say(console.table(rows, ("tokens", "occurrences", "mean norm", "mean cos²", "±")))

    def _counts(self, tokenizer: Any, n: int) -> np.ndarray:
        import numpy as np

        from llmprobe.loss.corpus import open_corpus
        from llmprobe.loss.windows import cut_windows

        counts = np.zeros(n, dtype=np.int64)
        documents = open_corpus(self.corpus)
        for window in cut_windows(documents, tokenizer, context=4096, prefix="none", max_tokens=self.max_tokens):
            np.add.at(counts, np.array(window.tokens), 1)
        return counts


def _token(tokenizer: Any, index: int) -> str:
    text = tokenizer.decode([index])
    return repr(text) if "�" not in text else str(tokenizer.convert_ids_to_tokens(index))


def _draw(path: Path, matrix: Unembedding, spread: Distribution, bins: list[FrequencyBin]) -> None:
    from llmprobe.report import figures

    figures.save(figures.geometry(spread, bins, matrix.W.shape[1]), str(path))
    console.progress(f"wrote {path}")
