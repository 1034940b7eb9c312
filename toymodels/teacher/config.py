"""What identifies a teacher–student run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from llmprobe.errors import ConfigError
from llmprobe.observations import Scalar
from toymodels.teacher.students import Student, student
from toymodels.teacher.theory import Task

# fields of a student that a run may change; its time is the run's own
OPTIONS = tuple(entry.name for entry in fields(Student) if entry.name not in ("time", "superposed", "note"))


@dataclass(frozen=True)
class TeacherConfig:
    """One run.

    Attributes
    ----------
    n, k
        Features N and dimensions K ≤ N.
    a, b
        p_i ∝ i^(−a); the teacher is diag(i^(−b)).
    student
        A row of `toymodels.teacher.students.STUDENTS`, or ``none``: K = N, W = 1, linear, from zero, in closed form.
    superposed
        False for the control: the same student and start with K = N and W = 1.
    seed
        Of W, B and the data.
    time
        Last t = rate · steps; the student's own when left out.
    options
        Changes to the student, by the names of its fields: ``{"relu": False, "trains": ("B",)}``.
    """

    n: int = 256
    k: int = 128
    a: float = 1.5
    b: float = 1.0
    student: str = "small"
    superposed: bool = True
    seed: int = 0
    time: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ConfigError(
                f"K = {self.k} dimensions for N = {self.n} features",
                expected="1 ≤ K ≤ N: with more dimensions than features there is nothing to superpose",
                fix="lower --k or raise --n",
            )
        if not (self.a > 0 and self.b >= 0 and (self.time is None or self.time > 0)):
            raise ConfigError(f"a = {self.a:g}, b = {self.b:g}, time = {self.time}", expected="a > 0, b ≥ 0, time > 0")
        unknown = sorted(set(self.options) - set(OPTIONS))
        if unknown or (self.options and self.student == "none"):
            raise ConfigError(
                f"options {', '.join(unknown or self.options)} of student {self.student!r}",
                expected=f"some of {', '.join(OPTIONS)}; the student `none` has no options",
            )
        _ = self.row

    @property
    def row(self) -> Student | None:
        """The student, or its control; None without superposition."""
        if self.student == "none":
            return None
        row = replace(student(self.student), **self.options)
        return row if self.superposed else row.control()

    @property
    def task(self) -> Task:
        """What is to be learned."""
        return Task(self.n, self.a, self.b) if self.row is None else self.row.task(self.n, self.a, self.b)

    @property
    def dimensions(self) -> int:
        """K, or N where the student has a dimension per feature."""
        return self.k if self.row is not None and self.row.superposed else self.n

    def settings(self) -> dict[str, Scalar]:
        """What identifies a run beside N and K."""
        own = {name: value for name, value in asdict(self).items() if name not in ("n", "k", "options")}
        changes = {
            f"student.{name}": "+".join(value) if isinstance(value, tuple) else value
            for name, value in sorted(self.options.items())
        }
        return {**own, **changes}
