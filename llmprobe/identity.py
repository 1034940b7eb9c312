"""What was asked for, and the row that answers it: `Identity` and `Observation`.

A measurement is known by its identity before it is made, so a study can say what is missing in a store. A language
model and a toy run write the same `Observation`; `fit` and `report` read nothing else.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from llmprobe import lines
from llmprobe.errors import StoreError
from llmprobe.provenance import Provenance, Scalar

KEY = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What was asked for: enough to say before a measurement whether it has been made.

    What was granted (a context cut to the model's positions, the width that was found, the commit that was read) is
    no part of it; that stands in the `Observation`.

    Attributes
    ----------
    study
        What the measurement belongs to.
    source_kind
        ``llm``, ``toy`` or ``published``.
    metric
        ``loss``, ``mean_sq_cos``, ...
    model, corpus
        Source of the model as it was typed, and name of the corpus; empty where there is none.
    settings
        What else was asked for: context, dtype, seed, weight decay, ...
    """

    study: str
    source_kind: Literal["llm", "toy", "published"]
    metric: str
    model: str = ""
    corpus: str = ""
    settings: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """16 hex digits that stand for the identity."""
        return digest({f.name: getattr(self, f.name) for f in fields(self)} | {"settings": dict(self.settings)})

    def observe(self, value: float, *, record: Mapping[str, Any] | None = None, **columns: Any) -> Observation:
        """The observation of this identity.

        Parameters
        ----------
        value
            What was measured; see `Observation`.
        record
            How it came about, beside the environment; see `Provenance`.
        columns
            Other columns of the observation.
        """
        about = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "settings"}
        provenance = Provenance.here(self.settings, **(record or {}))
        return Observation(**about, **columns, value=value, provenance=provenance, key=self.key)


@dataclass(frozen=True, kw_only=True)
class Observation:
    """One measured number.

    Attributes
    ----------
    study
        What the measurement belongs to.
    source_kind
        ``llm``, ``toy`` or ``published``.
    metric
        ``loss``, ``mean_sq_cos``, ...
    value
        The number, finite.
    unit
        Its unit: ``nats``; ``1`` (default) where it has none.
    family
        Family of the model; empty by default, as are the next three.
    model
        Source of the model, as it was typed.
    revision
        The commit that was read.
    corpus
        Name of the corpus.
    m
        Width; None by default, as are all counts below.
    depth
        Layers.
    n
        Vocabulary rows; features for a toy.
    n_params
        Parameters in all.
    tokens
        Training tokens seen.
    step
        Training step.
    stderr
        One standard error of `value`, in its unit.
    n_samples
        What `value` is a mean over, counted.
    provenance
        How it came about; see `Provenance`.
    key
        That of its `Identity`; a row without one (written by hand) takes a hash of all that is not its value.

    Raises
    ------
    StoreError
        `value` is not finite.

    Examples
    --------
    >>> row = Observation(study="mine", source_kind="published", metric="loss", value=3.1, unit="nats", m=768)
    >>> Observation.from_json(row.to_json()) == row
    True
    """

    study: str
    source_kind: Literal["llm", "toy", "published"]
    metric: str
    value: float
    unit: str = "1"
    family: str = ""
    model: str = ""
    revision: str = ""
    corpus: str = ""
    m: int | None = None
    depth: int | None = None
    n: int | None = None
    n_params: int | None = None
    tokens: int | None = None
    step: int | None = None
    stderr: float | None = None
    n_samples: int | None = None
    provenance: Provenance = field(default_factory=Provenance)
    key: str = ""

    def __post_init__(self) -> None:
        if not self.key:
            measured = {"value", "stderr", "n_samples", "unit", "provenance", "key"}
            columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in measured}
            object.__setattr__(self, "key", digest({**columns, "settings": dict(self.provenance.settings)}))
        if not math.isfinite(self.value):
            raise StoreError(
                f"{self.metric} of {self.model or self.study} is {self.value}",
                expected="a finite number",
                fix="a measurement that failed is not stored; look at its log",
            )

    def to_json(self) -> str:
        """One line of the store, its checksum last."""
        return lines.sealed(json.dumps(lines.finite(asdict(self)), separators=(",", ":")))

    @classmethod
    def from_json(cls, line: str) -> Observation:
        """The row of one line.

        Raises
        ------
        ValueError
            The line is not JSON, has unknown or missing columns, or does not match its checksum. A line without
            a checksum (written by hand) is taken as it stands.
        """
        row = lines.parsed(line)
        if not KEY.fullmatch(row.get("key", "")):
            row.pop("key", None)
        row["provenance"] = Provenance(**lines.provenance(row.get("provenance")))
        try:
            return cls(**row)
        except (TypeError, StoreError) as error:
            raise ValueError(str(error)) from error


def digest(identity: Mapping[str, Any]) -> str:
    """16 hex digits of a table."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
