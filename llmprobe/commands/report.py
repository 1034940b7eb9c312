"""``llmprobe report``: one page from the observations of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llmprobe import console


@dataclass(frozen=True)
class Report:
    """Write report.html and its figures from the observations in a run's folder; nothing is measured again."""

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder that holds observations.jsonl."""

    def run(self) -> None:
        """Write the page."""
        from llmprobe.report.write import write_report

        console.say(f"wrote {write_report(self.run_dir)}")
