"""``toymodels softmax``: a student head learns a teacher head by cross-entropy, and its exponent in time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from llmprobe import console
from llmprobe.observations import ObservationStore
from llmprobe.settings import Count, Device, Settings
from toymodels.softmax import SoftmaxConfig, run_all, run_missing


@dataclass(frozen=True, kw_only=True)
class Softmax(Settings):
    """Train a student head on a teacher's softmax, and fit how fast its loss falls in τ = ∫ rate."""

    config: SoftmaxConfig = field(default_factory=SoftmaxConfig)
    device: Device = "auto"
    """auto, cpu or cuda."""
    threads: Count = 1
    """Cores."""
    store: Path | None = None
    """Observation file to append the exponent to, the curve beside it; a run found there is not repeated."""
    study: str = "softmax"
    """Name of the study in the store."""
    json: bool = False
    """Print a JSON line on stdout and nothing else."""

    def run(self) -> None:
        """Train, store and print."""
        if self.store is None:
            (result,) = run_all([self.config], device=self.device, threads=self.threads, progress=True)
        else:
            store = ObservationStore(self.store)
            (result,) = run_missing([self.config], store, study=self.study, device=self.device, threads=self.threads)
        for warning in result.warnings:
            console.progress(f"warning: {warning}")
        row = result.to_dict()
        if self.json:
            console.emit(row)
        else:
            console.say(console.table(list(row.items()), ("", "value")))
