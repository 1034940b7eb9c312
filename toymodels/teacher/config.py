"""What identifies a teacher–student run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any

import tyro

from llmprobe.errors import ConfigError
from llmprobe.observations import Scalar
from llmprobe.settings import Count, Natural, NonNegative, Positive, SettingError, Settings
from toymodels.teacher.students import Student, student
from toymodels.teacher.theory import Task

# fields of a student that a run may change; its time is the run's own
FIXED_END = 1000.0  # last t of the window of the rule `fixed`
OPTIONS = tuple(entry.name for entry in fields(Student) if entry.name not in ("time", "superposed", "note"))


@dataclass(frozen=True)
class TeacherConfig(Settings):
    """One run.

    Raises
    ------
    SettingError
        A number out of range.
    ConfigError
        K > N, or changes that the student does not know.
    """

    n: Count = 256
    """Features N."""
    k: Count = 128
    """Dimensions K ≤ N of the student."""
    a: Positive = 1.5
    """p_i ∝ i^(−a)."""
    b: NonNegative = 1.0
    """The teacher is diag(i^(−b))."""
    student: str = "small"
    """small, random, interference, none (K = N, W = 1, linear, from zero, in closed form), or another student."""
    superposed: Annotated[bool, tyro.conf.Suppress] = True
    """False for the control: the same student and start with K = N and W = 1."""
    seed: Natural = 0
    """Of W, B and the data."""
    time: Positive | None = None
    """Train until t = rate · steps is this; the student's own when left out."""
    options: Annotated[Mapping[str, Any], tyro.conf.Suppress] = field(default_factory=dict)
    """Changes to the student, by the names of its fields: ``{"relu": False, "trains": ("B",)}``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k > self.n:
            raise ConfigError(
                f"K = {self.k} dimensions for N = {self.n} features",
                expected="1 ≤ K ≤ N: with more dimensions than features there is nothing to superpose",
                fix="lower --k or raise --n",
            )
        unknown = sorted(set(self.options) - set(OPTIONS))
        if unknown or (self.options and self.student == "none"):
            raise ConfigError(
                f"options {', '.join(unknown or self.options)} of student {self.student!r}",
                expected=f"some of {', '.join(OPTIONS)}; the student `none` has no options",
            )
        _ = self.chosen_student

    @property
    def chosen_student(self) -> Student | None:
        """The student, or its control; None without superposition."""
        if self.student == "none":
            return None
        chosen = replace(student(self.student), **self.options)
        return chosen if self.superposed else chosen.control()

    @property
    def task(self) -> Task:
        """What is to be learned."""
        chosen = self.chosen_student
        return Task(self.n, self.a, self.b) if chosen is None else chosen.task(self.n, self.a, self.b)

    def check_window(self) -> None:
        """Raise `SettingError` where the run would end before the window that its exponent is read on."""
        chosen = self.chosen_student
        if chosen is not None and self.time is not None and chosen.rule == "fixed" and self.time < FIXED_END:
            raise SettingError("time", self.time, f"at least {FIXED_END:g}, where the window of the rule fixed ends")

    @property
    def dimensions(self) -> int:
        """K, or N where the student has a dimension per feature."""
        chosen = self.chosen_student
        return self.k if chosen is not None and chosen.superposed else self.n

    def settings(self) -> dict[str, Scalar]:
        """What identifies a run."""
        own = {name: value for name, value in asdict(self).items() if name != "options"} | {"k": self.dimensions}
        changes = {
            f"student.{name}": "+".join(value) if isinstance(value, tuple) else value
            for name, value in sorted(self.options.items())
        }
        return {**own, **changes}
