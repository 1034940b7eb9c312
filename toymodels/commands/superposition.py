"""``toymodels superposition``: the toy model of superposition at several widths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from llmprobe import console
from llmprobe.observations import ObservationStore
from llmprobe.settings import Count, Device, Settings
from toymodels.executors import executor
from toymodels.superposition.config import WIDTHS, SuperpositionConfig, preset
from toymodels.superposition.runs import sweep


@dataclass(frozen=True, kw_only=True)
class Superposition(Settings):
    """Train the toy model of superposition, y = ReLU(W Wᵀ x + b), at several widths."""

    preset: Literal["small", "large", "quick"] = "small"
    """Where the defaults below come from: small or large as in the paper, or quick for a first look."""
    widths: tuple[Count, ...] = WIDTHS["small"]
    """Widths m to train, each a run."""
    config: SuperpositionConfig = field(default_factory=SuperpositionConfig)
    device: Device = "auto"
    """auto, cpu, cuda or mps."""
    store: Path | None = None
    """Observation file to append to; runs found there are not repeated, and killed ones are resumed."""
    study: str = "toymodels"
    """Name of the study in the store."""
    workers: Count = 1
    """Runs at a time, each in a process of its own."""
    threads: Count = 1
    """Cores per run."""
    compile: bool = False
    """Fuse the dense passes by torch.compile: for long runs on a GPU."""
    cluster: str | None = None
    """Address of a dask scheduler (tcp://host:8786) to send the runs to."""
    json: bool = False
    """Print a JSON line per width on stdout and nothing else."""

    @classmethod
    def default(cls, arguments: Sequence[str]) -> Superposition:
        """The defaults that the preset on a command line stands for."""
        name = console.option(arguments, "preset", "small")
        return cls(preset=name, widths=WIDTHS.get(name, ()), config=preset(name, m=1))  # type: ignore[arg-type]

    def run(self) -> None:
        """Train what is missing and print a line per width."""
        configs = [replace(self.config, m=m) for m in self.widths]
        store = None if self.store is None else ObservationStore(self.store)
        with executor(self.workers, self.cluster) as pool:
            rows = sweep(
                configs, store, pool, study=self.study, device=self.device, threads=self.threads, compiled=self.compile
            )
        if self.json:
            console.emit(rows)
        else:
            console.say(console.table([list(row.values()) for row in rows], list(rows[0])))
