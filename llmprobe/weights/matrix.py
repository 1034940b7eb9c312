"""Which matrix of which model is looked at, and what is done to it first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmprobe.settings import Count, Settings

if TYPE_CHECKING:
    from llmprobe.weights.unembedding import Unembedding


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
        from llmprobe.errors import ConfigError
        from llmprobe.families import find_member, load_families, vocabulary
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
