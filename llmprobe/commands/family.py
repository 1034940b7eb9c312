"""``llmprobe family``: a family's table from the configurations and headers of its models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llmprobe import console
from llmprobe.settings import Settings


@dataclass(frozen=True)
class Family(Settings):
    """Write the TOML of a family: width, layers, vocabulary, parameters of each model; no weights are read."""

    name: Annotated[str, tyro.conf.Positional]
    """Name of the family."""
    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="REPO...")]
    """Its models: org/name, org/name@revision or folders."""
    output: Path | None = None
    """File to write; without it the table goes to stdout."""
    json: bool = False
    """Print one JSON object per model and nothing else."""

    def run(self) -> None:
        """Read each model's facts and write the table."""
        from llmprobe.cache import atomic
        from llmprobe.errors import ConfigError
        from llmprobe.facts import member_of, to_toml

        if not self.sources:
            raise ConfigError("no model was named", fix="try: llmprobe family mine org/small org/large")
        found = [member_of(source) for source in self.sources]
        text = to_toml(self.name, [member for member, _ in found])
        if self.output is not None:
            with atomic(self.output) as temporary:
                temporary.write_text(text, encoding="utf-8")
            console.progress(f"wrote {self.output}; use it by --toml {self.output}")
        if self.json:
            console.emit([{**asdict(member), "bytes_read": read} for member, read in found])
        elif self.output is None:
            console.say(text.rstrip())
