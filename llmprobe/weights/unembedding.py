"""The unembedding of a language model: the matrix that turns hidden states into logits, one row per token.

Only this one tensor is read, and what is needed to know that it is the one (`llmprobe.weights.head`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from llmprobe.errors import SourceError
from llmprobe.settings import SettingError
from llmprobe.weights.checkpoint import Checkpoint
from llmprobe.weights.head import Head, find_head
from llmprobe.weights.source import parse_source
from llmprobe.weights.tensor import StoredTensor

if TYPE_CHECKING:
    from llmprobe.weights.architecture import Architecture

SCALES = ("weight_scale", "weight_scale_inv", ".scales", ".scale")
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)


@dataclass(frozen=True)
class Unembedding:
    """An unembedding matrix and where it came from; `read_unembedding` makes it.

    Attributes
    ----------
    W
        Shape [n, m]: vocabulary rows × width, in the stored type (float32 if it was quantized).
    source
        As asked for.
    revision
        The commit that was read, empty for local files.
    tensor
        Its name on disk.
    dtype
        Its type on disk; for a quantized one, the name of the quantization.
    sha256
        Hash of its bytes on disk.
    tied
        Whether it is the input embedding too.
    bytes_read
        Bytes of weight files read to get it.
    vocabulary
        Rows kept from the top; None: all.
    folded
        Whether the final norm's gain was folded in.

    Examples
    --------
    >>> from llmprobe import read_unembedding
    >>> unembedding = read_unembedding("tiny")
    >>> tuple(unembedding.W.shape), unembedding.tied
    ((96, 32), False)
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
        Keep only the first `rows` rows: the tokenizer's vocabulary without the padding below it. All by default.
    fold_gain
        Multiply by the final norm's gain, W diag(g). Never done unless asked for.

    Returns
    -------
    The matrix, shape [n, m], and what it was read from.

    Raises
    ------
    SourceError
        Nothing is there, the file is damaged, or no tensor has a known name.

    Examples
    --------
    >>> read_unembedding("tiny", rows=90).W.shape
    torch.Size([90, 32])
    """
    checkpoint = parse_source(source).open()
    architecture = _architecture(checkpoint)
    head = _named(checkpoint, tensor) if tensor else find_head(checkpoint, architecture)
    shape = tuple(checkpoint.shape(head.name))
    if len(shape) != 2 or 0 in shape:
        raise SourceError(
            f"{head.name} of {source} has shape {list(shape)}",
            expected="a matrix [n, m]",
            fix="save the model with its weights gathered, or name another tensor with --tensor",
        )
    stored = checkpoint.read(head.name)
    _check_values(checkpoint, stored)
    W = stored.values if rows is None else stored.values[: _checked_rows(rows, len(stored.values), source)]
    if fold_gain:
        W = W.float() * _final_gain(checkpoint, architecture)
    return Unembedding(
        W=W,
        source=source,
        revision=checkpoint.revision,
        tensor=head.name,
        dtype=stored.dtype,
        sha256=stored.sha256,
        tied=head.is_embedding or _equals_embedding(checkpoint, head, stored),
        bytes_read=checkpoint.bytes_read,
        vocabulary=rows,
        folded=fold_gain,
    )


def _architecture(checkpoint: Checkpoint) -> Architecture | None:
    """What transformers knows of it; it is imported only where there is a configuration to ask it about."""
    if "model_type" not in checkpoint.config or checkpoint.config.get("format") == "gguf":
        return None
    from llmprobe.weights.architecture import Architecture

    return Architecture.of(checkpoint.config)


def _named(checkpoint: Checkpoint, tensor: str) -> Head:
    """A tensor that the user names, by its whole name or the end of one."""
    names = checkpoint.names()
    found = [tensor] if tensor in names else [name for name in names if name.endswith("." + tensor)]
    if len(found) != 1:
        raise SourceError(
            f"{checkpoint.label} has {len(found) or 'no'} tensor{'s' * (len(found) > 1)} {tensor}",
            expected="one",
            fix=f"there are, for example: {', '.join(found[:6] or names[:6])}",
        )
    return Head(found[0], is_embedding="embed" in tensor or "wte" in tensor)


def _check_values(checkpoint: Checkpoint, stored: StoredTensor) -> None:
    """Refuse FP8 values that scales somewhere in the file may multiply."""
    scaled = "quantization_config" in checkpoint.config or any(name.endswith(SCALES) for name in checkpoint.names())
    if stored.values.dtype in FLOAT8 and scaled:
        raise SourceError(
            f"{stored.name} of {checkpoint.label} is FP8 in a quantized checkpoint",
            expected="one matrix of floats",
            fix="take the unquantized model",
        )


def _equals_embedding(checkpoint: Checkpoint, head: Head, stored: StoredTensor) -> bool:
    """Whether a head stored beside the input embedding it is tied to is that embedding: else the model unties them."""
    if not head.embedding or tuple(checkpoint.shape(head.embedding)) != tuple(stored.values.shape):
        return False
    return checkpoint.read(head.embedding).sha256 == stored.sha256


def _final_gain(checkpoint: Checkpoint, architecture: Architecture | None) -> Tensor:
    name, offset = _norm(checkpoint, architecture)
    if name not in checkpoint.names():
        raise SourceError(
            f"which final norm {checkpoint.label} has, and how its gain is stored, cannot be shown",
            expected="an architecture that transformers knows, with a norm right before its head, or a GGUF file",
            fix="measure without the norm's gain",
        )
    return checkpoint.read(name).values.float() + offset


def _norm(checkpoint: Checkpoint, architecture: Architecture | None) -> tuple[str, float]:
    """Name of the final norm's gain in the file, empty if it is not known, and what is to be added to it."""
    if checkpoint.config.get("format") == "gguf":  # which stores the whole gain
        return "output_norm.weight", 0.0
    if architecture is None:
        return "", 0.0
    from llmprobe.weights.final_norm import final_norm, gain_offset

    found = final_norm(architecture)
    offset = gain_offset(found[1]) if found else None
    if found is None or offset is None:
        return "", 0.0
    parameters = architecture.parameters_of(checkpoint.names())
    return next((name for name, parameter in parameters.items() if parameter == f"{found[0]}.weight"), ""), offset


def _checked_rows(rows: int, n: int, source: str) -> int:
    if not 2 <= rows <= n:
        raise SettingError("vocabulary", rows, f"between 2 and the {n} rows of {source}")
    return rows
