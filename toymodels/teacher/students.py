"""Students as rows of a table: how features are embedded, what is trained, from where, on which data.

A student answers f(Z x + c) with Z = Wᵀ B W, W ∈ R^(K×N) with unit columns, B ∈ R^(K×K), f = ReLU or the identity.

Source: arXiv:2602.01045 for the model; its abstract does not fix the student, so several are kept side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from llmprobe.errors import ConfigError
from llmprobe.settings import Count, Positive, Settings, one_of
from toymodels.seeds import stream
from toymodels.teacher.theory import Task

TOY_STEPS = 2000  # of the superposition toy whose W is taken
PARTS = ("W", "B", "c")

Embed = Callable[[int, int, torch.Generator, int], Tensor]


def _identity(k: int, n: int, generator: torch.Generator, seed: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def _rotation(k: int, n: int, generator: torch.Generator, seed: int) -> Tensor:
    q, r = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    return q * r.diagonal().sign()


def _random(k: int, n: int, generator: torch.Generator, seed: int) -> Tensor:
    return unit_columns(torch.randn(k, n, generator=generator, dtype=torch.float64))


def _frame(k: int, n: int, generator: torch.Generator, seed: int) -> Tensor:
    W = _random(k, n, generator, seed)
    # in turns the nearest tight frame and the nearest unit columns; ends within 1e-10 of both
    for _ in range(200):
        u, _, v = torch.linalg.svd(W, full_matrices=False)
        W = unit_columns(u @ v)
    return W


def _trained(k: int, n: int, generator: torch.Generator, seed: int) -> Tensor:
    from toymodels.superposition.config import SuperpositionConfig
    from toymodels.superposition.training import train

    config = SuperpositionConfig(n=n, m=k, batch=256, steps=TOY_STEPS, rate=0.02, bias_rate=0.02, seed=seed)
    return unit_columns(train(config, device="cpu").W.double().T)


EMBEDDINGS: dict[str, Embed] = {
    "identity": _identity,
    "rotation": _rotation,
    "random": _random,
    "frame": _frame,
    "trained": _trained,
}


def unit_columns(W: Float[Tensor, "k n"]) -> Float[Tensor, "k n"]:
    """W with columns of length 1."""
    return W / torch.linalg.vector_norm(W, dim=0, keepdim=True)


ONE_PER_FEATURE = ("identity", "rotation")  # embeddings that exist for K = N alone

CORES: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "gaussian": lambda k, generator: torch.randn(k, k, generator=generator, dtype=torch.float64),
    "identity": lambda k, generator: torch.eye(k, dtype=torch.float64),
}


@dataclass(frozen=True, kw_only=True)
class Student(Settings):
    """One way to learn the teacher.

    Raises
    ------
    SettingError
        A number out of range.
    ConfigError
        Nothing learns, or a bias is to learn from single features of random amplitude.
    """

    embedding: Literal["identity", "rotation", "random", "frame", "trained"] = "random"
    """W at the start; see `EMBEDDINGS`."""
    trains: tuple[Literal["W", "B", "c"], ...] = ("W", "B")
    """What learns, c being the bias; what does not keeps its start, the bias 0."""
    relu: bool = True
    """Whether the read-out is a ReLU, or linear."""
    core: Literal["gaussian", "identity"] = "gaussian"
    """B at the start, up to its scale."""
    start: float = 1e-3
    """Scale of B at the start: entries N(0, start²), divided by √K where `start_by_width`; or start · 1."""
    start_by_width: bool = True
    """Whether this scale is divided by √K."""
    data: Literal["population", "sampled"] = "population"
    """Exact gradients over one feature at a time, or batches of Bernoulli features."""
    amplitude: Positive = 1 / 3
    """⟨v²⟩ of one-at-a-time features: 1/3 for v ~ U(0, 1), 1 for v = 1 (which a trained bias needs)."""
    density: Positive = 1.0
    """Of sampled data: feature i is active with probability min(1, density · p_i)."""
    batch: Count = 64
    """Rows of a sampled step."""
    optimizer: Literal["gd", "adam"] = "gd"
    """Gradient descent or Adam."""
    rate: Positive = 0.9
    """The rate over the largest safe one, 1/(λmax(W Wᵀ) λmax(W C Wᵀ)), C = ⟨x xᵀ⟩ (with a bias at most 1/Σλ_i, or 1 on
    samples); for `adam` and for students that train only the bias, the rate itself."""
    rule: Literal["fixed", "decay", "finite"] = "fixed"
    """Which stretch of the curve is fitted; see `toymodels.teacher.result`."""
    time: Annotated[Positive, tyro.conf.Suppress] = 1000.0
    """How far it is trained, t = rate · steps."""
    superposed: Annotated[bool, tyro.conf.Suppress] = True
    """False for students with K = N by construction; `k` is then ignored."""
    note: Annotated[str, tyro.conf.Suppress] = ""
    """What it shows."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.trains or not set(self.trains) <= set(PARTS):
            raise ConfigError(f"a student that trains {' '.join(self.trains) or 'nothing'}", expected="some of W, B, c")
        if "c" in self.trains and self.data == "population" and self.amplitude != 1:
            raise ConfigError(
                f"a bias on features of random amplitude, ⟨v²⟩ = {self.amplitude:.3g}, without samples",
                expected="v = 1, as f(Z v + c) is not v f(Z)",
                fix="--amplitude 1, or --data sampled",
            )

    @property
    def bias_only(self) -> bool:
        """Whether nothing but the bias learns, exactly: outputs are then independent and need no matrix products."""
        return self.trains == ("c",) and self.data == "population" and self.relu and self.optimizer == "gd"

    def task(self, n: int, a: float, b: float) -> Task:
        """What this student is to learn, in the amplitudes and density of its data."""
        return Task(n, a, b, self.amplitude, self.density)

    def control(self) -> Student:
        """The same student with one dimension per feature: K = N, W = 1 and fixed, B and c start alike."""
        trains = tuple(part for part in self.trains if part != "W")
        return replace(self, embedding="identity", trains=trains, superposed=False)


STUDENTS: dict[str, Student] = {
    "small": Student(note="W and B learn from a tiny start: the teacher is learned"),
    "random": Student(
        trains=("B", "c"),
        start=1.0,
        start_by_width=False,
        data="sampled",
        density=4.0,
        rate=0.5,
        rule="decay",
        time=300.0,
        note="a large random B: interference is unlearned",
    ),
    "interference": Student(
        trains=("c",),
        start=1.0,
        start_by_width=False,
        amplitude=1.0,
        rate=0.7,
        rule="decay",
        time=1e4,
        note="only the bias learns: interference alone",
    ),
    "fixed-W": Student(trains=("B",), note="as small, W fixed"),
    "frame": Student(embedding="frame", note="as small, W starts as a unit-norm tight frame"),
    "trained": Student(embedding="trained", trains=("B",), note="W from a trained toy model of superposition, fixed"),
    "linear": Student(relu=False, trains=("B",), note="no ReLU: a floor of about 1 − K/N"),
    "large-start": Student(start=1.0, note="as small, B starts at N(0, 1)/√K"),
    "small-bias": Student(trains=("W", "B", "c"), amplitude=1.0, note="as small, with a bias (v = 1)"),
    "gain": Student(
        trains=("B", "c"),
        core="identity",
        start=0.1,
        start_by_width=False,
        amplitude=1.0,
        rule="decay",
        time=3000.0,
        note="B from 0.1 · 1 and a bias, W fixed (v = 1)",
    ),
    "gain-frame": Student(
        embedding="frame",
        trains=("B", "c"),
        core="identity",
        start=0.3,
        start_by_width=False,
        amplitude=1.0,
        rule="decay",
        time=3000.0,
        note="B from 0.3 · 1 and a bias, W a tight frame (v = 1)",
    ),
    "adam": Student(optimizer="adam", rate=1e-3, time=5.0, rule="decay", note="as small, by Adam"),
    "rotated": Student(
        embedding="rotation", trains=("B",), relu=False, superposed=False, note="K = N, rotated, linear"
    ),
    "rotated-adam": Student(
        embedding="rotation",
        trains=("B",),
        relu=False,
        superposed=False,
        optimizer="adam",
        rate=1e-3,
        time=5.0,
        rule="decay",
        note="trap: no superposition, Adam in a rotated basis",
    ),
}


def student(name: str) -> Student:
    """A row of `STUDENTS`; `ConfigError` for any other name."""
    return STUDENTS[one_of("student", name, ("none", *STUDENTS))]


def start(student: Student, n: int, k: int, seed: int) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k k"]]:
    """W and B at the start, float64 on the CPU; k is N for students without superposition.

    W and B have streams of their own, so that students which share a start of W share its draw, and neither depends
    on a or b: all tasks of a grid start alike, and their differences are the tasks'.
    """
    k = k if student.superposed else n
    if not 1 <= k <= n:
        raise ConfigError(
            f"K = {k} dimensions for N = {n} features",
            expected="1 ≤ K ≤ N: with more dimensions than features there is nothing to superpose",
            fix="lower --k or raise --n",
        )
    if student.embedding in ONE_PER_FEATURE and k < n:
        raise ConfigError(
            f"embedding {student.embedding!r} with K = {k} dimensions for N = {n} features",
            expected="K = N: it gives each feature a dimension of its own",
            fix="raise --k to N, or choose another embedding",
        )
    embed = torch.Generator().manual_seed(stream(seed, "embedding"))
    W = EMBEDDINGS[student.embedding](k, n, embed, seed)
    core = torch.Generator().manual_seed(stream(seed, "core"))
    scale = student.start / math.sqrt(k) if student.start_by_width else student.start
    return W, scale * CORES[student.core](k, core)
