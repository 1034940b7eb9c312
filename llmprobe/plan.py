"""What a study of models would still do, before it does it: models, bytes to read, tokens to score, hours.

Sizes are those of the family tables, two bytes a weight; what they do not hold is not guessed and not in the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmprobe import console
from llmprobe.families import Family, find_member, load_families
from llmprobe.measurements import RANDOM_ROWS, OverlapSettings
from llmprobe.observations import ObservationStore
from llmprobe.settings import Count, Positive, Settings
from llmprobe.study import Work, missing

WEIGHT = 2  # bytes of a published weight: float16 or bfloat16


@dataclass(frozen=True, kw_only=True)
class Planned(Settings):
    """Settings of a study that can say beforehand what it would do."""

    plan: bool = False
    """Say what is missing and about how long it takes, and stop."""
    read_rate: Positive = 50.0
    """Megabytes read per second, for the plan."""
    compute_rate: Positive = 50.0
    """Billions of operations per second of one worker, for the plan."""
    document_tokens: Count = 1000
    """Tokens of a document, for the plan, where tokens are not limited."""


@dataclass(frozen=True)
class Step:
    """What is missing of one model.

    Attributes
    ----------
    name
        Of the piece of work.
    metrics
        How many identities are missing.
    read
        Bytes to read, None where no family table says.
    tokens
        To score, 0 for overlaps, None where nothing limits them.
    seconds
        Of reading and computing, None where either is not known.
    """

    name: str
    metrics: int
    read: int | None
    tokens: int | None
    seconds: float | None


def steps(store: ObservationStore, work: Sequence[Work], config: Planned, toml: Sequence[str] = ()) -> list[Step]:
    """What of the work is missing in the store, at the rates of the settings.

    Overlaps take 2nm² + 2·1024·nm operations; losses two a parameter and token.
    """
    families = load_families(*toml)
    return [_step(piece, config, families) for piece in missing(store, work)]


def tell_plan(store: ObservationStore, work: Sequence[Work], config: Planned, toml: Sequence[str] = (), *,
         workers: int = 1) -> None:  # fmt: skip
    """Print the plan."""
    found = steps(store, work, config, toml)
    rows = [(s.name, s.metrics, _in(s.read, 1e6), s.tokens, _in(s.seconds, 3600.0)) for s in found]
    console.say(console.table(rows, ("model", "missing", "MB to read", "tokens", "hours")))
    known = [s for s in found if s.seconds is not None]
    hours = sum(s.seconds or 0 for s in known) / 3600 / workers
    read = sum(s.read or 0 for s in found) / 1e9
    console.say(f"{len(found)} of {len(work)} pieces of work are missing: {read:.3g} GB to read, {hours:.3g} hours on "
                f"{workers} worker{'s' * (workers > 1)}, of the {len(known)} whose size is known")  # fmt: skip
    console.say(f"at {config.read_rate:g} MB/s, {config.compute_rate:g} billion operations a second and "
                f"{config.document_tokens} tokens a document; nothing was measured")  # fmt: skip


def _step(piece: Work, config: Planned, families: Mapping[str, Family]) -> Step:
    found = find_member(families, piece.name.removeprefix(RANDOM_ROWS))
    member = found[1] if found else None
    corpora = {(one.corpus, str(dict(one.settings))): one for one in piece.identities if one.corpus}
    if corpora:
        each = [_tokens(one.settings, config) for one in corpora.values()]
        tokens = None if None in each else sum(n or 0 for n in each)
        weights = member.params if member else None
        operations = None if weights is None or tokens is None else 2.0 * weights * tokens
    else:
        tokens, n, m = 0, member.rows if member else None, member.m if member else 0
        weights = None if n is None else n * m
        operations = None if weights is None else 2.0 * weights * (m + OverlapSettings.rows)
    read = None if weights is None else WEIGHT * weights
    seconds = None
    if read is not None and operations is not None:
        seconds = read / (1e6 * config.read_rate) + operations / (1e9 * config.compute_rate)
    return Step(piece.name, len(piece.identities), read, tokens, seconds)


def _tokens(settings: Mapping[str, object], config: Planned) -> int | None:
    """Tokens of one corpus, by the limits it is scored under."""
    documents, most = settings.get("max_documents"), settings.get("max_tokens")
    limits = [most] if isinstance(most, int) else []
    limits += [documents * config.document_tokens] if isinstance(documents, int) else []
    return min(limits, default=None)


def _in(value: int | float | None, unit: float) -> float | None:
    return None if value is None else value / unit
