"""``llmprobe families``: the table of known models."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from llmprobe import console
from llmprobe.families import load_families


@dataclass(frozen=True)
class Families:
    """List the model families that are known, the built-in ones and your own."""

    toml: tuple[str, ...] = ()
    """Files of your own families; theirs win over the built-in ones."""
    json: bool = False
    """Print one JSON object per family and nothing else."""

    def run(self) -> None:
        """Print the table."""
        families = load_families(*self.toml)
        if self.json:
            console.emit([asdict(family) for family in families.values()])
            return
        rows = [
            (family.name, member.id, member.m, member.layers, member.rows, member.params, member.tied)
            for family in families.values()
            for member in family.members
        ]
        console.say(console.table(rows, ("family", "model", "m", "layers", "rows", "parameters", "tied")))
        console.say(f"\n{len(rows)} models of {len(families)} families; a file of your own adds to them with --toml")
