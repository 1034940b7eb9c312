"""The unembedding of a language model: the matrix that turns hidden states into logits, one row per token.

Only this one tensor is read. Its name on disk differs by architecture; `NAMES` holds them in the order to try.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from llmprobe.errors import SourceError
from llmprobe.weights.checkpoint import Checkpoint
from llmprobe.weights.source import parse_source

HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")
EMBEDDINGS = (  # where input and output embeddings are tied, only the input side is stored
    "model.embed_tokens.weight",
    "model.decoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "wte.weight",
    "transformer.wte.weight",
    "token_embd.weight",
    "transformer.word_embeddings.weight",
    "word_embeddings.weight",
    "backbone.embeddings.weight",
    "gpt_neox.embed_in.weight",
)
NAMES = HEADS + EMBEDDINGS
FINAL_NORMS = (
    "model.norm.weight",
    "output_norm.weight",
    "transformer.ln_f.weight",
    "ln_f.weight",
    "gpt_neox.final_layer_norm.weight",
    "model.decoder.final_layer_norm.weight",
    "decoder.final_layer_norm.weight",
    "model.final_layernorm.weight",
    "backbone.norm_f.weight",
)
GAIN_ABOVE_ONE = ("gemma", "gemma2", "gemma3", "gemma3_text")  # model types whose norms store gain − 1


@dataclass(frozen=True)
class Unembedding:
    """An unembedding matrix and where it came from.

    Attributes
    ----------
    W
        Shape [n, m]: vocabulary rows × width, in the stored type (float32 if it was quantised).
    source, revision
        As asked for; the commit that was read, empty for local files.
    tensor, dtype, sha256
        Its name, type and hash on disk.
    tied
        Whether it is the input embedding too.
    bytes_read
        Bytes of weight files read to get it.
    vocabulary, folded
        What was done to it: rows kept from the top (None: all), and whether the final norm's gain was folded in.
    """

    W: Float[Tensor, "n m"]
    source: str
    revision: str
    tensor: str
    dtype: str
    sha256: str
    tied: bool
    bytes_read: int
    vocabulary: int | None = None
    folded: bool = False


def read_unembedding(
    source: str, *, tensor: str | None = None, rows: int | None = None, fold_gain: bool = False
) -> Unembedding:
    """Read the unembedding of a model, and nothing else of it.

    Parameters
    ----------
    source
        ``org/name``, ``org/name@revision``, a folder, a ``.safetensors``, ``.bin`` or ``.gguf`` file, or
        ``sample:smollm2-135m``.
    tensor
        Its name, for a model that calls it something unusual.
    rows
        Keep only the first `rows` rows: the tokenizer's vocabulary without the padding below it.
    fold_gain
        Multiply by the final norm's gain, W diag(g). Never done unless asked for.

    Raises
    ------
    SourceError
        Nothing is there, the file is damaged, or no tensor has a known name.
    """
    checkpoint = parse_source(source).open()
    name = find_unembedding(checkpoint, tensor)
    stored = checkpoint.read(name)
    if stored.values.ndim != 2:
        raise SourceError(f"{name} of {source} has shape {tuple(stored.values.shape)}", expected="a matrix [n, m]")
    W = stored.values if rows is None else stored.values[: _checked_rows(rows, len(stored.values), source)]
    if fold_gain:
        W = W.float() * _final_gain(checkpoint)
    return Unembedding(
        W=W,
        source=source,
        revision=checkpoint.revision,
        tensor=name,
        dtype=stored.dtype,
        sha256=stored.sha256,
        tied=_is_tied(name, checkpoint.config),
        bytes_read=checkpoint.bytes_read,
        vocabulary=rows,
        folded=fold_gain,
    )


def find_unembedding(checkpoint: Checkpoint, tensor: str | None = None) -> str:
    """The name of the unembedding in a checkpoint: `tensor`, or the first of `NAMES`, whole or as a suffix.

    Raises
    ------
    SourceError
        None is there.
    """
    names = checkpoint.names()
    wanted = (tensor,) if tensor else NAMES
    found = _first(wanted, names)
    if found is None:
        candidates = [name for name in names if "embed" in name or "head" in name or "wte" in name][:6] or names[:6]
        raise SourceError(
            f"{checkpoint.label} has no tensor {tensor or 'with a known name of an unembedding'}",
            expected=tensor or f"one of {', '.join(NAMES)}",
            fix=f"name it with --tensor; there are, for example: {', '.join(candidates)}",
        )
    return found


def _first(wanted: Sequence[str], names: Sequence[str]) -> str | None:
    present = set(names)
    for name in wanted:
        if name in present:
            return name
    # Models wrapped in another (a vision tower beside, say) carry a prefix.
    for name in wanted:
        nested = [other for other in names if other.endswith("." + name)]
        if len(nested) == 1:
            return nested[0]
    return None


def _is_tied(name: str, config: Mapping[str, Any]) -> bool:
    if not any(name == head or name.endswith("." + head) for head in HEADS):
        return True
    for table in (config, config.get("text_config") or {}):
        if "tie_word_embeddings" in table:
            return bool(table["tie_word_embeddings"])
    model_type = config.get("model_type")
    if not model_type or config.get("format") == "gguf":
        return False
    from transformers import CONFIG_MAPPING  # says what a config.json leaves unsaid

    return model_type in CONFIG_MAPPING and bool(getattr(CONFIG_MAPPING[model_type](), "tie_word_embeddings", False))


def _final_gain(checkpoint: Checkpoint) -> Tensor:
    name = _first(FINAL_NORMS, checkpoint.names())
    if name is None:
        raise SourceError(f"{checkpoint.label} has no final norm with a known name", fix="leave --fold-gain out")
    gain = checkpoint.read(name).values.float()
    stored_minus_one = checkpoint.config.get("model_type") in GAIN_ABOVE_ONE and "format" not in checkpoint.config
    return gain + 1 if stored_minus_one else gain


def _checked_rows(rows: int, n: int, source: str) -> int:
    if not 2 <= rows <= n:
        raise SourceError(f"--rows {rows} of {source}, which has {n}", expected=f"between 2 and {n}")
    return rows
