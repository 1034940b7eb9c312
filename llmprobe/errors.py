"""Errors a user can mend: each says what was read, what was expected and what to do."""

from typing import Any


class ProbeError(Exception):
    """Base of every error that is the input's fault, not the program's.

    Parameters
    ----------
    read
        What was found, with its name: ``"model.safetensors ends after 812 of 4096 bytes"``.
    expected
        What would have been right; empty where there is no more to say.
    fix
        What the user can do about it; empty where nothing can be done.

    Attributes
    ----------
    measured
        Results, as ``--json`` prints them, that were finished and could not be stored: they are printed with the error.

    Examples
    --------
    >>> print(ProbeError("--context 0", expected="a count of 1 or more", fix="leave it out for 1024"))
    --context 0; expected a count of 1 or more; leave it out for 1024
    """

    def __init__(self, read: str, *, expected: str = "", fix: str = "") -> None:
        self.read, self.expected, self.fix = read, expected, fix
        self.measured: list[dict[str, Any]] = []
        super().__init__(read, expected, fix)

    def __str__(self) -> str:
        parts = [self.read, f"expected {self.expected}" if self.expected else "", self.fix]
        return "; ".join(part for part in parts if part)


class SourceError(ProbeError):
    """A model source cannot be found, reached or read."""


class TensorError(ProbeError):
    """A matrix was read but cannot be measured: NaN, zero rows, wrong shape."""


class CorpusError(ProbeError):
    """A text corpus is missing, empty or unreadable."""


class FitError(ProbeError):
    """Data or law do not make a fit: too few points, negative y, unknown columns."""


class StoreError(ProbeError):
    """An observation store cannot be read or written."""


class ConfigError(ProbeError):
    """Settings contradict each other or the model: m > n, unknown names, wrong types."""


def first_line(error: Exception) -> str:
    """What an error says, in one line: its first, and the next where the first ends with a colon."""
    lines = (str(error).strip() or type(error).__name__).split("\n")
    return " ".join(" ".join(lines[: 1 + lines[0].rstrip().endswith(":")]).split())
