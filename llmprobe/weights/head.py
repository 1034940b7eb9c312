"""Which tensor of a checkpoint is the unembedding, proved where transformers knows the architecture.

The input embedding stands in for a head only where the model ties the two, or where nothing says otherwise and the
file is whole. Whatever else lies beside the head (a quantizer's scales, an adapter) means that the matrix in the file
is not the matrix the model multiplies by, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmprobe.errors import SourceError
from llmprobe.weights.checkpoint import Checkpoint

if TYPE_CHECKING:
    from llmprobe.weights.architecture import Architecture

# Names of modules, for files whose architecture transformers does not know; each must be whole or follow `WITHIN`.
HEADS = (
    "lm_head",
    "embed_out",
    "output",
    "output_layer",
    "ff_out",
    "head",
    "lm_head.linear",
    "decoder.output_projection",
)
EMBEDDINGS = (
    "embed_tokens",
    "tok_embeddings",
    "wte",
    "token_embd",
    "word_embeddings",
    "embedding.word_embeddings",
    "embeddings",
    "embedding",
    "embed_in",
    "embed",
)
WITHIN = re.compile(
    r"((base_model|model|transformer|decoder|backbone|gpt_neox|language_model|text_model|llm|thinker"
    r"|module|_orig_mod|_forward_module|_fsdp_wrapped_module)\.)*"
)
IDLE = ("bias", "input_scale", "activation_scale")  # beside a head, without a part in its matrix


@dataclass(frozen=True)
class Head:
    """Where the unembedding is stored.

    Attributes
    ----------
    name
        Of the tensor in the checkpoint.
    embedding
        Of the input embedding, where that is stored too and the model ties it to the head; else empty.
    is_embedding
        Whether `name` is the input embedding.
    """

    name: str
    embedding: str = ""
    is_embedding: bool = False


def find_head(checkpoint: Checkpoint, architecture: Architecture | None) -> Head:
    """The unembedding of a checkpoint.

    Raises
    ------
    SourceError
        There is none, or what there is cannot be shown to be it: a head that is stored in another way, an untied
        model without a head in the file, or no known name.
    """
    if architecture is not None and architecture.head:
        return _by_architecture(checkpoint, architecture)
    return _by_name(checkpoint)


def _by_architecture(checkpoint: Checkpoint, architecture: Architecture) -> Head:
    names = checkpoint.names()
    parameters = architecture.parameters_of(names)
    stored = {parameter: name for name, parameter in parameters.items()}
    _check_adapters(checkpoint)
    twice = [name for name, parameter in parameters.items() if parameter in architecture.twins]
    if len(twice) > len({parameters[name] for name in twice}):
        raise SourceError(
            f"{checkpoint.label} holds its unembedding more than once: {', '.join(twice)}", expected="one"
        )
    # The head's own tensor, or anything beside it, comes before what it may be tied to.
    for parameter in sorted(architecture.twins, key=lambda twin: twin != architecture.head):
        _check_plain(checkpoint, _beside(parameter.removesuffix("weight"), parameters))
        if parameter not in stored:
            continue
        name, input_side = stored[parameter], architecture.embedding in architecture.twins
        _check_shape(checkpoint, name, architecture.shapes[parameter])
        embedding = stored.get(architecture.embedding, "") if input_side and parameter == architecture.head else ""
        return Head(name, embedding, parameter != architecture.head)
    raise SourceError(
        f"{checkpoint.label} does not hold the unembedding of its {type(architecture.model).__name__}",
        expected=f"{' or '.join(sorted(architecture.twins))}"
        + ("" if len(architecture.twins) > 1 else ", which its configuration does not tie to the input embedding"),
        fix=f"take a checkpoint with its head, or name a tensor with --tensor; {_examples(names)}",
    )


def _by_name(checkpoint: Checkpoint) -> Head:
    names = checkpoint.names()
    _check_adapters(checkpoint)
    heads, embeddings = _modules(names, HEADS), _modules(names, EMBEDDINGS)
    embedding = next((f"{stem}.weight" for stem in embeddings if f"{stem}.weight" in names), "")
    for stem in heads:
        _check_plain(checkpoint, _beside(f"{stem}.", {name: name for name in names}))
        name = f"{stem}.weight"
        if embedding and checkpoint.shape(name) != checkpoint.shape(embedding):
            raise SourceError(
                f"{name} of {checkpoint.label} has shape {list(checkpoint.shape(name))}",
                expected=f"that of {embedding}, {list(checkpoint.shape(embedding))}",
                fix="name the unembedding with --tensor",
            )
        return Head(name, embedding if says_tied(checkpoint.config) else "")
    if not embedding:
        raise SourceError(
            f"{checkpoint.label} has no tensor with a known name of an unembedding",
            expected=f"one of {', '.join(f'{stem}.weight' for stem in HEADS + EMBEDDINGS)}",
            fix=f"name it with --tensor; {_examples(names)}",
        )
    if says_tied(checkpoint.config) is False:
        raise SourceError(
            f"{checkpoint.label} does not hold the unembedding that its configuration speaks of",
            expected="a head of its own beside the input embedding, which is not tied to it",
            fix=f"name it with --tensor; {_examples(names)}",
        )
    if checkpoint.missing:
        raise SourceError(
            f"{checkpoint.label} holds an input embedding and lacks {checkpoint.missing}",
            expected="every part, to know whether there is a head",
            fix="name the folder that holds all of them",
        )
    if says_tied(checkpoint.config) is None and checkpoint.config.get("format") != "gguf":
        _check_no_rival(checkpoint, embedding)
    _check_plain(checkpoint, _beside(embedding.removesuffix("weight"), {name: name for name in names}))
    return Head(embedding, is_embedding=True)


def says_tied(config: Mapping[str, Any]) -> bool | None:
    """Whether a configuration ties head and input embedding; None where it does not say."""
    for table in (config.get("text_config") or {}, config):
        for key in ("tie_word_embeddings", "weight_tying", "tie_embeddings"):
            if key in table:
                return bool(table[key])
    if "model_type" not in config or config.get("format") == "gguf":
        return None
    from transformers import CONFIG_MAPPING  # says what a config.json leaves unsaid

    kind = config["model_type"]
    return bool(getattr(CONFIG_MAPPING[kind](), "tie_word_embeddings", False)) if kind in CONFIG_MAPPING else None


def _modules(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Stems of modules of known names that have a tensor, in the order of `known`, the least nested first."""
    found = []
    for stem in known:
        ending = re.compile(rf"(?P<stem>{WITHIN.pattern}{re.escape(stem)})\.[^.]+(\.[^.]+)*")
        found += sorted({match["stem"] for name in names if (match := ending.fullmatch(name))}, key=len)
    return found


def _beside(stem: str, meanings: Mapping[str, str]) -> dict[str, str]:
    """Stored names by what follows `stem` in what they mean, of those that mean something in that module."""
    return {meaning.removeprefix(stem): name for name, meaning in meanings.items() if meaning.startswith(stem)}


def _check_plain(checkpoint: Checkpoint, beside: Mapping[str, str]) -> None:
    """Refuse a matrix with anything beside it that has a part in its values."""
    strange = sorted(name for end, name in beside.items() if end not in ("weight", *IDLE))
    if strange:
        raise SourceError(
            f"the unembedding of {checkpoint.label} is stored as {', '.join(sorted(beside.values())[:4])}",
            expected="one matrix of floats",
            fix="quantized heads and adapters are not measured: take the unquantized model, or merge the adapter",
        )


def _check_no_rival(checkpoint: Checkpoint, embedding: str) -> None:
    """Refuse an input embedding in a head's place where another matrix of its shape may be the head."""
    shape = tuple(checkpoint.shape(embedding))
    rivals = [
        name
        for name in checkpoint.names()
        if name != embedding and tuple(checkpoint.shape(name)) in (shape, shape[::-1]) and "pos" not in name
    ]
    if rivals:
        raise SourceError(
            f"{checkpoint.label} holds {rivals[0]} of the shape {list(shape)} of {embedding}, too",
            expected="a head of a known name, or a configuration that ties head and input embedding",
            fix="name the unembedding with --tensor",
        )


def _check_adapters(checkpoint: Checkpoint) -> None:
    touched = [
        name
        for name in checkpoint.names()
        if re.search(r"\.(lora_\w+|modules_to_save|original_module|base_layer)(\.|$)", name)
        and re.search(r"(^|\.)(lm_head|embed_out|output_layer|embed_tokens|wte|word_embeddings|embed_in)\.", name)
    ]
    if touched:
        raise SourceError(
            f"{checkpoint.label} holds an adapter on the embeddings ({touched[0]})",
            expected="one matrix of floats",
            fix="merge the adapter into its model",
        )


def _check_shape(checkpoint: Checkpoint, name: str, expected: tuple[int, ...]) -> None:
    config = checkpoint.config
    stated = {**config, **(config.get("text_config") or {})}
    shape = tuple(checkpoint.shape(name))
    if "vocab_size" in stated and shape != expected:
        raise SourceError(
            f"{name} of {checkpoint.label} has shape {list(shape)}",
            expected=f"{list(expected)}, as its configuration says",
            fix="files and configuration do not belong together: download them again",
        )


def _examples(names: Sequence[str]) -> str:
    likely = [name for name in names if re.search("embed|head|wte|output", name)][:6] or list(names[:6])
    return f"there are, for example: {', '.join(likely)}"
