"""``llmprobe geometry``: a closer look at the overlaps of one model."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from llmprobe import console
from llmprobe.measurements import MatrixSettings
from llmprobe.settings import Count, Figure

if TYPE_CHECKING:
    import numpy as np

    from llmprobe.overlap.neighbours import Distribution, FrequencyBin, Unrepresented


@dataclass(frozen=True)
class Geometry(MatrixSettings):
    """Distribution of the cosines, closest pairs, tokens that are not represented, and all that against frequency."""

    source: Annotated[str, tyro.conf.Positional]
    """As for overlap; token strings and frequencies need its tokenizer."""
    center: bool = False
    """Subtract the mean row first. (Which tokens are represented does not depend on it.)"""
    pairs: Count = 20
    """Closest pairs to list, and tokens that are not represented."""
    corpus: str = "stdlib"
    """Where token frequencies are counted."""
    corpora: tuple[str, ...] = ()
    """Files of your own corpora."""
    max_tokens: Count = 500_000
    """Tokens counted."""
    bins: Count = 10
    """Frequency bins of equal size."""
    rows: Count = 1024
    """Rows sampled for the distribution."""
    figure: Figure | None = None
    """Draw the distribution and the frequency bins here (.png, .pdf or .svg)."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def run(self) -> None:
        """Measure and show."""
        from llmprobe.loss.language_model import load_tokenizer
        from llmprobe.overlap.neighbours import by_frequency, closest_pairs, cosine_distribution, unrepresented
        from llmprobe.overlap.pairs import contests
        from llmprobe.overlap.unit_rows import Rows

        matrix = self.read(self.source)
        tokenizer = load_tokenizer(self.source)
        counts = self._counts(tokenizer, len(matrix.W))
        data = Rows(matrix.W, drop_zero_rows=self.drop_zero_rows)
        spread = cosine_distribution(data, center=self.center, rows=self.rows)
        pairs = closest_pairs(data, k=self.pairs, center=self.center, progress=True)
        outcome = contests(data, progress=True)
        bins = by_frequency(data, counts, outcome, bins=self.bins, center=self.center)
        losers = unrepresented(data, outcome)
        if self.figure:
            self._draw(spread, bins, data.m)
        row = {
            "source": self.source,
            "center": self.center,
            "fold_norm": self.fold_norm,
            "corpus": self.corpus,
            "quantiles": {f"{q:g}": value for q, value in spread.quantiles.items()},
            "pairs": [{"a": _token(tokenizer, p.i), "b": _token(tokenizer, p.j), "cos": p.cos} for p in pairs],
            "frequency": [asdict(b) for b in bins],
            "unrepresented": {
                "count": len(losers),
                "unseen": sum(int(counts[loser.row] == 0) for loser in losers),
                "reasons": dict(Counter(loser.why for loser in losers)),
                "tokens": [_loser(tokenizer, counts, loser) for loser in losers[: self.pairs]],
            },
        }
        if self.json:
            console.emit(row)
        else:
            _show(row, self.rows, bins)

    def _counts(self, tokenizer: Any, n: int) -> np.ndarray:
        """Occurrences of each row's token, shape [n].

        Raises
        ------
        TensorError
            The corpus holds a token that the matrix has no row for, and no vocabulary was asked for.
        """
        import numpy as np

        from llmprobe.errors import TensorError
        from llmprobe.loss.corpus import open_corpus
        from llmprobe.loss.windows import cut_windows

        counts = np.zeros(max(n, len(tokenizer)), dtype=np.int64)
        documents = open_corpus(self.corpus, *self.corpora)
        for window in cut_windows(documents, tokenizer, context=4096, prefix="none", max_tokens=self.max_tokens):
            np.add.at(counts, np.array(window.tokens), 1)
        beyond = np.flatnonzero(counts[n:])
        if len(beyond) and not (self.vocabulary or self.tokenizer_vocab):
            raise TensorError(
                f"the tokenizer of {self.source} gives token {n + int(beyond[-1])}, and the matrix has {n} rows",
                fix="model and tokenizer do not belong together",
            )
        return counts[:n]

    def _draw(self, spread: Distribution, bins: list[FrequencyBin], m: int) -> None:
        from llmprobe.report import figures

        figures.save(figures.geometry(spread, bins, m), str(self.figure))
        console.progress(f"wrote {self.figure}")


def _show(row: dict[str, Any], sampled: int, bins: list[FrequencyBin]) -> None:
    console.say(f"cosines of {row['source']}{', centered' if row['center'] else ''}, {sampled} rows against all:")
    console.say("  ".join(f"{q}: {value:+.3f}" for q, value in row["quantiles"].items()))
    pairs = [(pair["cos"], pair["a"], pair["b"]) for pair in row["pairs"]]
    console.say("\n" + console.table(pairs, ("cos", "closest", "pairs")))
    console.say(f"\nby frequency in {row['corpus']}, the most frequent first, the last never seen:")
    lines = [(b.tokens, b.occurrences, b.norm, b.mean_sq_cos, b.stderr, b.represented) for b in bins]
    header = ("tokens", "occurrences", "mean norm", "mean cos²", "±", "represented")
    console.say(console.table(lines, header))
    losers = row["unrepresented"]
    reasons = ", ".join(f"{count} {why}" for why, count in losers["reasons"].items())
    console.say(
        f"\n{losers['count']} tokens are not represented{f': {reasons}' if reasons else ''}; "
        f"{losers['unseen']} of them never occur in {row['corpus']}"
    )
    if losers["tokens"]:
        tokens = [(t["token"], t["why"], t["distance"], t["occurrences"]) for t in losers["tokens"]]
        console.say(console.table(tokens, ("not represented", "why", "distance from mean / median", "occurrences")))


def _loser(tokenizer: Any, counts: np.ndarray, loser: Unrepresented) -> dict[str, Any]:
    occurrences = int(counts[loser.row])
    return {"token": _token(tokenizer, loser.row), **asdict(loser), "occurrences": occurrences}


def _token(tokenizer: Any, index: int) -> str:
    if index >= len(tokenizer):
        return f"(row {index}, no token)"
    text = tokenizer.decode([index])
    return repr(text) if "�" not in text else str(tokenizer.convert_ids_to_tokens(index))
