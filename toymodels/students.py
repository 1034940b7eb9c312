"""Students as rows of a table: how features are embedded, what is trained, from where, on which data.

A student answers f(Z x + c) with Z = Wᵀ B W, W ∈ R^(K×N) with unit columns, B ∈ R^(K×K), f = ReLU or the identity.

Source: arXiv:2602.01045 for the model; its abstract does not fix the student, so several are kept side by side.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from llmprobe.errors import ConfigError
from toymodels.dynamics_theory import Task
from toymodels.training import stream

TOY_STEPS = 2000  # of the superposition toy whose W is taken

Embed = Callable[[int, int, torch.Generator, int], Tensor]


@dataclass(frozen=True)
class Student:
    """One way to learn the teacher.

    Attributes
    ----------
    embedding
        A row of `EMBEDDINGS`.
    trains
        Which of W, B and c (the bias) are trained; what is not trained keeps its start, the bias 0.
    relu
        Whether the read-out is a ReLU, or linear.
    start
        B starts as start · N(0, 1), divided by √K where `start_by_width`.
    data
        ``population``: exact gradients over one feature at a time. ``sampled``: batches of Bernoulli features.
    amplitude
        ⟨v²⟩ of one-at-a-time features: 1/3 for v ~ U(0, 1), 1 for v = 1 (which a trained bias needs).
    density
        Of sampled data: feature i is active with probability min(1, density · p_i).
    batch
        Rows of a sampled step.
    optimiser
        ``gd`` or ``adam``.
    rate
        The rate over the largest stable one, 1/(λmax(W Wᵀ) λmax(W C Wᵀ)), C = ⟨x xᵀ⟩; for `adam` and for students that
        train only the bias, the rate itself.
    rule
        A row of `toymodels.teacher.RULES`: which stretch of the curve is fitted.
    time
        How far it is trained, t = rate · steps.
    superposed
        False for students with K = N by construction; `k` is then ignored.
    note
        What it is here to show.
    """

    embedding: str = "random"
    trains: tuple[str, ...] = ("W", "B")
    relu: bool = True
    start: float = 1e-3
    start_by_width: bool = True
    data: Literal["population", "sampled"] = "population"
    amplitude: float = 1 / 3
    density: float = 1.0
    batch: int = 64
    optimiser: Literal["gd", "adam"] = "gd"
    rate: float = 0.9
    rule: str = "fixed"
    time: float = 1000.0
    superposed: bool = True
    note: str = ""

    @property
    def bias_only(self) -> bool:
        """Whether nothing but the bias learns: outputs are then independent and need no matrix products."""
        return self.trains == ("c",)

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
    "adam": Student(optimiser="adam", rate=1e-3, time=5.0, rule="decay", note="as small, by Adam"),
    "rotated": Student(
        embedding="rotation", trains=("B",), relu=False, superposed=False, note="K = N, rotated, linear"
    ),
    "rotated-adam": Student(
        embedding="rotation",
        trains=("B",),
        relu=False,
        superposed=False,
        optimiser="adam",
        rate=1e-3,
        time=5.0,
        rule="decay",
        note="trap: no superposition, Adam in a rotated basis",
    ),
}


def student(name: str) -> Student:
    """A row of `STUDENTS`; `ConfigError` for any other name."""
    if name not in STUDENTS:
        raise ConfigError(f"student {name!r}", expected=f"one of none, {', '.join(STUDENTS)}")
    return STUDENTS[name]


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
    from toymodels.presets import SuperpositionConfig
    from toymodels.training import train

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


def start(row: Student, n: int, k: int, seed: int) -> tuple[Float[Tensor, "k n"], Float[Tensor, "k k"]]:
    """W and B at the start, float64 on the CPU; k is N for students without superposition.

    W and B have streams of their own, so that students which share a start of W share its draw, and neither depends
    on a or b: all tasks of a grid start alike, and their differences are the tasks'.
    """
    k = k if row.superposed else n
    if not 1 <= k <= n:
        raise ConfigError(
            f"K = {k} dimensions for N = {n} features",
            expected="1 ≤ K ≤ N: with more dimensions than features there is nothing to superpose",
            fix="lower --k or raise --n",
        )
    embed = torch.Generator().manual_seed(stream(seed, "embedding"))
    W = EMBEDDINGS[row.embedding](k, n, embed, seed)
    core = torch.Generator().manual_seed(stream(seed, "core"))
    scale = row.start / math.sqrt(k) if row.start_by_width else row.start
    return W, scale * torch.randn(k, k, generator=core, dtype=torch.float64)
