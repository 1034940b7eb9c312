"""Settings that check themselves: what a field may be stands in its type, once, and is checked before work begins.

    @dataclass(frozen=True)
    class Loss(Settings):
        context: Count = 1024
        figure: Figure | None = None

A value out of range is a `SettingError` that names the field; the command line prints it as the flag that was typed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, get_args, get_origin, get_type_hints

from llmprobe.errors import ConfigError


class SettingError(ConfigError):
    """A setting out of range: `name` is the field's, `value` what was given."""

    def __init__(self, name: str, value: object, expected: str, fix: str = "") -> None:
        self.name, self.value = name, value
        super().__init__(f"{name} = {value}", expected=expected, fix=fix)

    @property
    def typed(self) -> str:
        """The same sentence with the flag of a command line in place of the field."""
        return str(self).replace(f"{self.name} = ", f"--{self.name.replace('_', '-')} ", 1)


class Rule(Protocol):
    """What a value of the rule's own kind must satisfy (others are not its to judge); `expected` says it in words."""

    @property
    def expected(self) -> str: ...

    def holds(self, value: Any) -> bool: ...


@dataclass(frozen=True)
class Within:
    """A number from `low` to `high`, `low` itself left out where it is `open`."""

    low: float
    high: float = float("inf")
    open: bool = False

    @property
    def expected(self) -> str:
        least = f"more than {self.low:g}" if self.open else f"at least {self.low:g}"
        return least if self.high == float("inf") else f"{least} and at most {self.high:g}"

    def holds(self, value: Any) -> bool:
        if not isinstance(value, int | float):
            return True
        return (value > self.low if self.open else value >= self.low) and value <= self.high and value != float("inf")


@dataclass(frozen=True)
class Named:
    """A file whose name ends in one of these."""

    suffixes: tuple[str, ...]

    @property
    def expected(self) -> str:
        return f"a name that ends in {', '.join(self.suffixes)}"

    def holds(self, value: Any) -> bool:
        return not isinstance(value, str | Path) or Path(value).suffix.lower() in self.suffixes


@dataclass(frozen=True)
class Like:
    """Text of a pattern."""

    pattern: str
    expected: str

    def holds(self, value: Any) -> bool:
        return not isinstance(value, str) or re.fullmatch(self.pattern, value) is not None


Count = Annotated[int, Within(1.0)]
Natural = Annotated[int, Within(0.0)]
Positive = Annotated[float, Within(0.0, open=True)]
NonNegative = Annotated[float, Within(0.0)]
Share = Annotated[float, Within(0.0, 1.0)]
Figure = Annotated[Path, Named((".png", ".pdf", ".svg"))]
Device = Annotated[str, Like(r"auto|cpu|mps|cuda(:\d+)?", "auto, cpu, cuda, cuda:N or mps")]
DType = Annotated[str, Like("float32|bfloat16|float16|float64", "float32, bfloat16, float16 or float64")]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of frozen dataclasses whose fields are checked when they are made."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            check(field.name, getattr(self, field.name), hints[field.name])


def check(name: str, value: Any, hint: Any) -> None:
    """Raise `SettingError` where a value breaks a rule of its annotation.

    Parameters
    ----------
    name
        What the user calls it.
    hint
        Its type; rules stand in ``Annotated``, also within unions and tuples.
    """
    for rule, one in _rules(hint, value):
        if not rule.holds(one):
            raise SettingError(name, one, rule.expected)


def one_of(what: str, name: str, known: Iterable[str], fix: str = "") -> str:
    """`name`, if it is known; else a `ConfigError` that names what it may have been meant to be."""
    names = list(known)
    if name in names:
        return name
    close = difflib.get_close_matches(name, names, n=1)
    meant = f"did you mean {close[0]}?" if close else ""
    raise ConfigError(f"unknown {what} {name!r}", expected=f"one of {', '.join(names)}", fix=meant or fix)


@dataclass(frozen=True)
class _Among:
    """One of the values of a ``Literal``."""

    values: tuple[Any, ...]

    @property
    def expected(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"

    def holds(self, value: Any) -> bool:
        return value in self.values


def _rules(hint: Any, value: Any) -> Iterator[tuple[Rule, Any]]:
    if get_origin(hint) is Literal:
        yield _Among(get_args(hint)), value
    elif get_origin(hint) is Annotated:
        inner, *marks = get_args(hint)
        yield from ((mark, value) for mark in marks if hasattr(mark, "holds"))
        yield from _rules(inner, value)
    elif get_origin(hint) is tuple and isinstance(value, tuple):
        inner = get_args(hint)
        kinds = inner[:1] * len(value) if inner[1:] == (...,) else inner
        for kind, one in zip(kinds, value, strict=False):
            yield from _rules(kind, one)
    elif value is not None:
        for kind in get_args(hint):
            yield from _rules(kind, value)
