"""What a model's configuration and the headers of its files say of it, as a row of the family table; no weight is read.

Counts come from the model as transformers builds it without weights, after the files were seen to fill it whole.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from llmprobe.errors import ProbeError, SourceError
from llmprobe.families import Member
from llmprobe.weights.head import find_head
from llmprobe.weights.source import parse_source

if TYPE_CHECKING:
    from llmprobe.weights.architecture import Architecture
    from llmprobe.weights.checkpoint import Checkpoint

POSITIONS = re.compile(r"(^|[._])(wpe|pos\w*)([._]|$)")


def member_of(source: str) -> tuple[Member, int]:
    """The row of a model, and the bytes of weight files that were read for it.

    Parameters
    ----------
    source
        As for `read_unembedding`.

    Raises
    ------
    SourceError
        Nothing is there, transformers does not know the architecture, or the files do not fill it: then its
        parameters cannot be known.
    """
    from llmprobe.weights.architecture import Architecture

    checkpoint = parse_source(source).open()
    architecture = Architecture.of(checkpoint.config)
    if architecture is None or not architecture.head:
        raise SourceError(
            f"the parameters of {source} cannot be known: its architecture "
            f"({checkpoint.config.get('model_type') or 'no config.json'}) is not one that transformers builds",
            fix="write its row by hand; only id and m are needed",
        )
    _check_filled(checkpoint, architecture)
    head = find_head(checkpoint, architecture)
    n, m = checkpoint.shape(head.name)
    config = architecture.model.config.get_text_config(decoder=True)
    parameters = {name: p.numel() for name, p in architecture.model.named_parameters()}  # tied ones count once
    tied = architecture.embedding in architecture.twins
    outer = n * m if tied else n * m + parameters.get(architecture.embedding, 0)
    position = sum(count for name, count in parameters.items() if _is_position(name, architecture))
    member = Member(
        id=source,
        m=m,
        d_model=config.hidden_size if config.hidden_size != m else None,
        layers=config.num_hidden_layers,
        rows=n,
        vocabulary=_vocabulary(source),
        tied=tied,
        params=sum(parameters.values()),
        non_embedding=sum(parameters.values()) - outer,
        position=position,
    )
    return member, checkpoint.bytes_read


def to_toml(name: str, members: list[Member]) -> str:
    """A family as TOML, smallest first, as `llmprobe families --toml` reads it."""
    own = {member.vocabulary for member in members}
    shared = own.pop() if len(own) == 1 else None
    lines = []
    for member in sorted(members, key=lambda one: (one.m, one.params or 0)):
        facts = {k: v for k, v in vars(member).items() if v is not None and not (k == "position" and v == 0)}
        if shared is not None:
            facts.pop("vocabulary", None)
        lines.append("  { " + ", ".join(f"{key} = {_value(value)}" for key, value in facts.items()) + " },\n")
    vocabulary = f"vocabulary = {_value(shared)}\n" if shared is not None else ""
    return f"[{_key(name)}]\n{vocabulary}members = [\n{''.join(lines)}]\n"


def _check_filled(checkpoint: Checkpoint, architecture: Architecture) -> None:
    held = set(architecture.parameters_of(checkpoint.names()).values())
    tied = set(architecture.model.all_tied_weights_keys) | (architecture.twins if architecture.twins & held else set())
    lacking = [name for name, _ in architecture.model.named_parameters() if name not in held | tied]
    if lacking or checkpoint.missing:
        raise SourceError(
            f"the parameters of {checkpoint.label} cannot be known: its files lack {checkpoint.missing or lacking[0]}",
            expected="a whole model",
            fix="take a checkpoint that holds all of it, or write its row by hand",
        )


def _is_position(name: str, architecture: Architecture) -> bool:
    from torch import nn

    module = architecture.model.get_submodule(name.rpartition(".")[0])
    return isinstance(module, nn.Embedding) and name != architecture.embedding and bool(POSITIONS.search(name))


def _vocabulary(source: str) -> int | None:
    from llmprobe.loss.language_model import load_tokenizer

    try:
        return len(load_tokenizer(source))
    except ProbeError:
        return None


def _value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:_}" if isinstance(value, int) else _key(str(value), quoted=True)


def _key(text: str, *, quoted: bool = False) -> str:
    if not quoted and re.fullmatch(r"[A-Za-z0-9_-]+", text):
        return text
    escaped = "".join(c if c.isprintable() and c not in '"\\' else f"\\u{ord(c):04X}" for c in text)
    return f'"{escaped}"'
