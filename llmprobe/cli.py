"""The `llmprobe` command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from llmprobe import console


def commands() -> Mapping[str, type[console.Command]]:
    """The commands by name."""
    from llmprobe.commands.families import Families
    from llmprobe.commands.family import Family
    from llmprobe.commands.fit import Fit
    from llmprobe.commands.geometry import Geometry
    from llmprobe.commands.loss import Loss
    from llmprobe.commands.overlap import Overlap
    from llmprobe.commands.report import Report

    return {
        "families": Families,
        "family": Family,
        "overlap": Overlap,
        "geometry": Geometry,
        "loss": Loss,
        "fit": Fit,
        "report": Report,
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run `llmprobe` with these arguments (the process's own by default); returns the exit status."""
    return console.main(
        commands,
        "llmprobe",
        "Measure how a language model's unembedding vectors overlap and how its loss falls with width.",
        argv,
    )
