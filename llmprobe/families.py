"""Families of models as data: `families.toml` here, and a user's own file of the same form, which wins.

A family of five lines is enough:

    [mine]
    members = [
      { id = "me/small", m = 256 },
      { id = "me/large", m = 1024, layers = 24, tokens = 300_000_000_000 },
    ]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmprobe.errors import ConfigError
from llmprobe.schedule import Schedule
from llmprobe.settings import one_of
from llmprobe.tables import checked_row, load_tables

BUILT_IN = Path(__file__).with_name("families.toml")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of a family; what is not known is None.

    Attributes
    ----------
    id
        Its name at the Hub, or a folder.
    m, d_model
        Width of the unembedding and of the layers; `d_model` is only given where they differ.
    layers, rows
        Layers, and rows of the unembedding, padding included.
    vocabulary
        Tokens the tokenizer knows, where it is not the family's.
    tied
        Whether the unembedding is the input embedding too.
    params, non_embedding, position
        Parameters in all, without input and output embeddings, and in position embeddings.
    tokens
        Training tokens, where they are not the family's.
    tensor
        Name of the unembedding on disk, where it is an unusual one.
    paper
        Whether arXiv:2505.10465 measured it, where that is not so for the whole family.
    peak_rate
        Largest learning rate of its training.
    """

    id: str
    m: int
    d_model: int | None = None
    layers: int | None = None
    rows: int | None = None
    vocabulary: int | None = None
    tied: bool | None = None
    params: int | None = None
    non_embedding: int | None = None
    position: int = 0
    tokens: int | None = None
    tensor: str | None = None
    paper: bool | None = None
    peak_rate: float | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """Models that differ in size and little else.

    Attributes
    ----------
    name, title
        Short name, and the name for people.
    members
        Smallest first.
    vocabulary, tokens
        Tokens the tokenizer knows and training tokens, for members that do not say otherwise.
    revisions
        Pattern of the names of training checkpoints, with ``{step}`` and perhaps ``{tokens}``.
    tokens_per_step
        Training tokens per step.
    steps, warmup_steps, final_rate
        Steps of the whole training, those over which the rate rose linearly, and the share of the peak to which it then
        fell along a cosine (1: it stayed); see `schedule`.
    gated
        Whether the Hub wants an accepted licence and a token.
    paper
        Whether arXiv:2505.10465 measured it.
    """

    name: str
    members: tuple[Member, ...]
    title: str = ""
    vocabulary: int | None = None
    tokens: int | None = None
    revisions: str | None = None
    tokens_per_step: int | None = None
    steps: int | None = None
    warmup_steps: int = 0
    final_rate: float = 1.0
    gated: bool = False
    paper: bool = False


def load_families(*files: str | Path) -> dict[str, Family]:
    """The built-in families, then those of each file in turn; a later family of the same name replaces an earlier.

    Parameters
    ----------
    files
        TOML files of a user's own families, in the form of ``families.toml``; none by default.

    Returns
    -------
    Families by name, the built-in ones first. Their widths, depths and counts of parameters are those of the published
    configurations; what is not known is None.

    Raises
    ------
    ConfigError
        A file is not there or not TOML, or holds a key or a type that is not known.

    Examples
    --------
    >>> pythia = load_families()["pythia"]
    >>> [member.m for member in pythia.members][:3]
    [128, 256, 512]
    """
    return load_tables(_family, "families", BUILT_IN, *files)


def find_member(families: Mapping[str, Family], source: str) -> tuple[Family, Member] | None:
    """The family and member that a source (with or without ``@revision``) belongs to, or None."""
    wanted = source.partition("@")[0]
    for family in families.values():
        for member in family.members:
            if member.id == wanted:
                return family, member
    return None


def members(
    families: Mapping[str, Family], names: Sequence[str], largest: int | None = None
) -> list[tuple[Family, Member]]:
    """The members of the families named, those wider than `largest` left out.

    Raises
    ------
    ConfigError
        A family is not known.
    """
    chosen = [families[one_of("family", name, families)] for name in names]
    pairs = [(family, member) for family in chosen for member in family.members]
    return [(f, m) for f, m in pairs if largest is None or (m.d_model or m.m) <= largest]


def columns(families: Mapping[str, Family], source: str) -> dict[str, Any]:
    """What observations of a source say of it: ``family``, ``depth`` and ``n_params``; nothing if it is unknown."""
    found = find_member(families, source)
    if found is None:
        return {}
    family, member = found
    return {"family": family.name, "depth": member.layers, "n_params": member.params}


def vocabulary(family: Family, member: Member) -> int | None:
    """Rows of the unembedding that stand for a token; the rest is padding."""
    return member.vocabulary or family.vocabulary


def schedule(family: Family, member: Member) -> Schedule | None:
    """The learning rate along a member's training, or None where its peak or its steps are not known.

    Raises
    ------
    ConfigError
        The numbers make no schedule: a peak of 0, a warm-up as long as the training, a final share above 1.
    """
    if member.peak_rate is None or family.steps is None:
        return None
    return Schedule(peak=member.peak_rate, steps=family.steps, warmup=family.warmup_steps, final=family.final_rate)


def _family(where: str, name: str, row: Any) -> Family:
    members = row.get("members") if isinstance(row, dict) else None
    if not isinstance(members, list) or not members:
        raise ConfigError(f"{where} has no members", expected='members = [ { id = "org/name", m = 768 }, ... ]')
    rows = tuple(checked_row(Member, f"{where} member {i}", member) for i, member in enumerate(members, start=1))
    if repeated := _repeated([member.id for member in rows]):
        raise ConfigError(f"{where} names {repeated} twice", expected="each model once")
    facts = {key: value for key, value in row.items() if key != "members"}
    return checked_row(Family, where, facts, name=name, members=rows)


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for i, name in enumerate(names) if name in names[:i]), None)
