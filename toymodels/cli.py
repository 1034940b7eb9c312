"""The `toymodels` command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmprobe import console

DESCRIPTION = "Train toy counterparts of language models; their runs are fitted and compared like real models."


def commands() -> Mapping[str, type[console.Command]]:
    """The commands by name."""
    from toymodels.commands.softmax import Softmax
    from toymodels.commands.superposition import Superposition
    from toymodels.commands.teacher_student import TeacherStudent

    return {"superposition": Superposition, "softmax": Softmax, "teacher-student": TeacherStudent}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `toymodels` with these arguments (the process's own by default); returns the exit status."""
    return console.main(commands, "toymodels", DESCRIPTION, argv)
