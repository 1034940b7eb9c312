"""The `toymodels` command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmprobe import console
from llmprobe.errors import ConfigError

if TYPE_CHECKING:
    from llmprobe.observations import Scalar

DESCRIPTION = "Train toy counterparts of language models; their runs are fitted and compared like real models."


@dataclass(frozen=True)
class Superposition:
    """Train the toy model of superposition, y = ReLU(W Wᵀ x + b), at several widths.

    A setting left out is the preset's.
    """

    preset: str = "small"
    """small or large as in the paper, or quick for a first look."""
    widths: tuple[int, ...] | None = None
    """Widths m to train, each a run."""
    n: int | None = None
    """Features."""
    frequency_law: str | None = None
    """power, exponential, linear, or a file of n weights."""
    data_exponent: float | None = None
    """α of the power law p_i ∝ i^(−α)."""
    decay_length: float | None = None
    """τ of the exponential law, in features."""
    activation_density: float | None = None
    """E = Σ p_i, features active in a sample."""
    amplitude_law: str | None = None
    """uniform, constant or exponential."""
    importance: float | None = None
    """Feature i weighs importance^(i−1) in the loss."""
    weight_decay: float | None = None
    """γ: decay for γ ≥ 0 (weak superposition), growth to unit row norm for γ < 0 (strong)."""
    batch: int | None = None
    """Rows per step."""
    steps: int | None = None
    """Steps."""
    rate: float | None = None
    """Peak learning rate of W (at m = 8 where it depends on m)."""
    bias_rate: float | None = None
    """Peak learning rate of b, likewise."""
    bias_start: float | None = None
    """b starts from N(0, this²); 1 as published, which leaves some frequent features dead."""
    seed: int = 0
    """Seed of start and data."""
    device: str = "auto"
    """auto, cpu, cuda or mps."""
    store: Path | None = None
    """Observation file to append to; runs found there are not repeated, and killed ones go on."""
    study: str = "toymodels"
    """Name of the study in the store."""
    workers: int = 1
    """Runs at a time, each in a process of its own."""
    threads: int = 1
    """Cores per run."""
    compile: bool = False
    """Fuse the dense passes by torch.compile: for long runs on a GPU."""
    cluster: str | None = None
    """Address of a dask scheduler (tcp://host:8786) to send the runs to."""
    json: bool = False
    """Print a JSON line per width on stdout and nothing else."""

    def run(self) -> None:
        from llmprobe.observations import ObservationStore
        from toymodels.superposition.config import PRESETS, WIDTHS, SuperpositionConfig, preset
        from toymodels.superposition.runs import executor, sweep

        names = [name for name in SuperpositionConfig.__dataclass_fields__ if name != "m" and hasattr(self, name)]
        changes: dict[str, Scalar] = {k: v for k in names if (v := getattr(self, k)) is not None}
        if self.preset not in PRESETS:
            raise ConfigError(f"preset {self.preset!r}", expected=f"one of {', '.join(PRESETS)}")
        configs = [preset(self.preset, m=m, **changes) for m in self.widths or WIDTHS[self.preset]]
        store = None if self.store is None else ObservationStore(self.store)
        with executor(self.workers, self.cluster) as pool:
            rows = sweep(
                configs, store, pool, study=self.study, device=self.device, threads=self.threads, compiled=self.compile
            )
        if self.json:
            console.emit(rows)
        else:
            console.say(console.table([list(row.values()) for row in rows], list(rows[0])))


@dataclass(frozen=True)
class TeacherStudent:
    """Train a student on diag(i^−b) with features p_i ∝ i^(−a), and fit how fast its loss falls in time."""

    n: int = 256
    """Features N."""
    k: int = 128
    """Dimensions K of the student."""
    a: float = 1.5
    """p_i ∝ i^(−a)."""
    b: float = 1.0
    """The teacher scales feature i by i^(−b)."""
    student: str = "small"
    """small, random, interference, none (no superposition, in closed form), or another row of the table of students."""
    control: bool = False
    """Train the same student with K = N and W = 1 instead."""
    embedding: str | None = None
    """W at the start: random, frame, trained, rotation or identity. This and what follows change the student."""
    trains: tuple[str, ...] | None = None
    """What learns: some of W, B and c (the bias)."""
    relu: bool | None = None
    """Whether the read-out is a ReLU, or linear."""
    core: str | None = None
    """B at the start, up to its scale: gaussian or identity."""
    start: float | None = None
    """Scale of B at the start."""
    start_by_width: bool | None = None
    """Whether this scale is divided by √K."""
    data: str | None = None
    """population (one feature at a time, exact gradients) or sampled (batches of Bernoulli features)."""
    amplitude: float | None = None
    """⟨v²⟩ of one-at-a-time features."""
    density: float | None = None
    """Of sampled data: feature i is active with probability min(1, density · p_i)."""
    batch: int | None = None
    """Rows of a sampled step."""
    optimiser: str | None = None
    """gd or adam."""
    rate: float | None = None
    """Rate over the largest safe one; of adam, the rate itself."""
    rule: str | None = None
    """Which stretch of the curve is fitted: fixed, decay or finite."""
    seed: int = 0
    """Of start and data."""
    time: float | None = None
    """Train until t = rate · steps is this; the student's own when left out."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: int = 1
    """Cores."""
    store: Path | None = None
    """Observation file to append the exponent to, the curve beside it."""
    study: str = "teacher_student"
    """Name of the study in the store."""
    details: bool = False
    """Print also what is to be seen beside the exponent: other windows, the run without superposition, warnings."""
    json: bool = False
    """Print a JSON line on stdout and nothing else."""

    def run(self) -> None:
        from llmprobe.observations import ObservationStore
        from toymodels.teacher.config import OPTIONS
        from toymodels.teacher.run import TeacherConfig, run

        options = {name: value for name in OPTIONS if (value := getattr(self, name)) is not None}
        config = TeacherConfig(
            self.n, self.k, self.a, self.b, self.student, not self.control, self.seed, self.time, options
        )
        result = run(config, device=self.device, threads=self.threads, progress=True)
        try:
            if self.store is not None:
                store, observation = ObservationStore(self.store), result.observation(self.study)
                store.save_arrays(observation.key, result.arrays())
                store.append(observation)
        finally:  # what was measured is shown even where it cannot be stored
            row = result.to_dict(details=self.details)
            for warning in result.warnings:
                console.progress(f"warning: {warning}")
            if self.json:
                console.emit(row)
            else:
                console.say(console.table(list(row.items()), ("", "value")))


def commands() -> Mapping[str, type[console.Command]]:
    """The commands by name."""
    return {"superposition": Superposition, "teacher-student": TeacherStudent}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return console.main(commands, "toymodels", DESCRIPTION, argv)
