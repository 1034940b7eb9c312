"""``toymodels teacher-student``: one student's training, and the exponent of its loss in time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from llmprobe import console
from llmprobe.observations import ObservationStore
from llmprobe.settings import Count, Device, Settings
from toymodels.teacher.config import OPTIONS, TeacherConfig
from toymodels.teacher.run import run, run_missing
from toymodels.teacher.students import STUDENTS, Student, student


@dataclass(frozen=True, kw_only=True)
class TeacherStudent(Settings):
    """Train a student on diag(i^−b) with features p_i ∝ i^(−a), and fit how fast its loss falls in time."""

    config: TeacherConfig = field(default_factory=TeacherConfig)
    control: bool = False
    """Train the same student with K = N and W = 1 instead."""
    settings: Student = STUDENTS["small"]
    device: Device = "auto"
    """auto, cpu or cuda."""
    threads: Count = 1
    """Cores."""
    store: Path | None = None
    """Observation file to append the exponent to, the curve beside it; a run found there is not repeated."""
    study: str = "teacher_student"
    """Name of the study in the store."""
    details: bool = False
    """Print also what is to be seen beside the exponent: other windows, the run without superposition, warnings."""
    json: bool = False
    """Print a JSON line on stdout and nothing else."""

    @classmethod
    def default(cls, arguments: Sequence[str]) -> TeacherStudent:
        """The defaults that the student on a command line stands for."""
        name = console.option(arguments, "student", "small")
        own = Student() if name == "none" else student(name)
        return cls(config=TeacherConfig(student=name), settings=own)

    def run(self) -> None:
        """Train, store and print."""
        name = self.config.student
        usual = Student() if name == "none" else student(name)
        changes = {k: v for k in OPTIONS if (v := getattr(self.settings, k)) != getattr(usual, k)}
        config = replace(self.config, superposed=not self.control, options=changes)
        config.check_window()
        if self.store is None:
            result = run(config, device=self.device, threads=self.threads, progress=True)
        else:
            store, own = ObservationStore(self.store), {"device": self.device, "threads": self.threads}
            (result,) = run_missing([config], store, study=self.study, progress=True, **own)
        row = result.to_dict(details=self.details)
        for warning in result.warnings:
            console.progress(f"warning: {warning}")
        if self.json:
            console.emit(row)
        else:
            console.say(console.table(list(row.items()), ("", "value")))
