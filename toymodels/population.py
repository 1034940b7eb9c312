"""Exact population gradient descent of students on features that come one at a time, many runs in one batch.

The loss L = ½ Σ_i λ_i ‖f(Z e_i + c) − A_ii e_i‖² is a finite sum, so there is no sampling noise, and its gradients have
a closed form: with G = ((f(Z + c) − A) ⊙ f'(Z + c)) diag(λ),

    ∇B = W G Wᵀ,    ∇W = (B W) Gᵀ + Bᵀ (W G),    ∇c = Σ_i G_·i.

Source: arXiv:2602.01045. With a bias the sum is exact for v = 1 only, as f(Z v + c) is then not v f(Z).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llmprobe.errors import ConfigError
from toymodels.dynamics_theory import Task
from toymodels.students import Student, start

PER_DECADE = 24
BLOWN_UP = 1e3  # a loss so many times the first one is divergence, even while it is finite


@dataclass(frozen=True, eq=False)
class Curve:
    """What a run went through, at log-spaced times.

    Attributes
    ----------
    t
        rate · steps, shape [T], increasing.
    loss
        Population loss there (of a sampled run: on a fixed batch that is never trained on), shape [T].
    own
        Its part that features cause in their own outputs, ½ Σ λ_i (y_i − A_ii x_i)²; the rest is interference.
    first
        Loss before the first step.
    zero
        Loss of the function that is 0 everywhere.
    rate
        Learning rate.
    dead
        Share of features whose own output is shut at the end (pre-activation ≤ 0): their teacher cannot be learned.
    """

    t: np.ndarray
    loss: np.ndarray
    own: np.ndarray
    first: float
    zero: float
    rate: float
    dead: float


class Recorder:
    """Which step of which run is kept, and what was kept.

    Parameters
    ----------
    rates
        Of each run.
    until
        Last time t; each run takes until/rate steps.
    """

    def __init__(self, rates: Sequence[float], until: float, per_decade: int = PER_DECADE) -> None:
        self.rates = list(rates)
        self.steps = [record_steps(rate, until, per_decade) for rate in rates]
        self.due: dict[int, list[int]] = {0: list(range(len(rates)))}
        for run, steps in enumerate(self.steps):
            for step in steps.tolist():
                self.due.setdefault(step, []).append(run)
        self.first = [math.nan] * len(rates)
        self.kept: list[list[tuple[float, float]]] = [[] for _ in rates]

    def keep(self, step: int, run: int, loss: float, own: float) -> None:
        """Keep a run's loss; `ConfigError` where it has blown up."""
        if step == 0:
            self.first[run] = loss
            return
        if not math.isfinite(loss) or loss > BLOWN_UP * self.first[run] + BLOWN_UP:
            raise ConfigError(
                f"training diverged: the loss is {loss:.3g} after {step} steps at rate {self.rates[run]:.3g}",
                expected=f"a loss below its start, {self.first[run]:.3g}",
                fix="lower the rate of the student",
            )
        self.kept[run].append((loss, own))

    def finished(self, step: int, run: int) -> bool:
        """Whether a run has taken its last step."""
        return step >= int(self.steps[run][-1])

    def curve(self, run: int, zero: float, dead: float) -> Curve:
        """The curve of a finished run."""
        loss, own = (np.array(column) for column in zip(*self.kept[run], strict=True))
        t = self.steps[run] * self.rates[run]
        return Curve(t, loss, own, self.first[run], zero, self.rates[run], dead)


def record_steps(rate: float, until: float, per_decade: int = PER_DECADE) -> np.ndarray:
    """Steps from 1 to until/rate, evenly spaced in the logarithm where steps are dense enough; shape [T]."""
    last = max(1, round(until / rate))
    points = max(2, math.ceil(math.log10(max(last, 2)) * per_decade) + 1)
    return np.unique(np.rint(np.geomspace(1, last, points)).astype(int))


class Population:
    """Losses and gradients of R runs that share a student and K.

    Parameters
    ----------
    row
        The student.
    tasks
        One per run, of the same N.
    W, B
        Starts, shapes [R, K, N] and [R, K, K]. W may be left out where it is the identity and stays so.
    """

    def __init__(self, row: Student, tasks: Sequence[Task], W: Tensor | None, B: Tensor) -> None:
        self.row = row
        self.params: dict[str, Tensor] = {"B": B, "c": B.new_zeros(len(B), tasks[0].n)}
        if W is not None:
            self.params["W"] = W
        self.weights = torch.tensor(np.array([task.weights for task in tasks])).to(B)
        self.teacher = torch.tensor(np.array([task.teacher for task in tasks])).to(B)

    def outputs(self) -> tuple[Float[Tensor, "r n n"], Tensor | None]:
        """Answers f(Z + c), one column per feature, and B W (None without W)."""
        W, B = self.params.get("W"), self.params["B"]
        if W is None:
            inner, Z = None, B.clone()
        else:
            inner = torch.bmm(B, W)
            Z = torch.bmm(W.mT, inner)
        if "c" in self.row.trains:
            Z += self.params["c"][:, :, None]
        return (Z.clamp_min_(0) if self.row.relu else Z), inner

    def losses(self, Y: Float[Tensor, "r n n"], runs: Sequence[int]) -> list[tuple[float, float]]:
        """Loss and its own part of some runs, summed in float64."""
        found = []
        for run in runs:
            y, weights = Y[run].double(), self.weights[run].double()
            diagonal = y.diagonal()
            other = y.square().sum(0) - diagonal.square()
            own = float((weights * (diagonal - self.teacher[run].double()).square()).sum()) / 2
            found.append((float((weights * other).sum()) / 2 + own, own))
        return found

    def gradients(self, Y: Float[Tensor, "r n n"], inner: Tensor | None) -> dict[str, Tensor]:
        """Gradients of what the student trains; Y is overwritten."""
        W, B = self.params.get("W"), self.params["B"]
        diagonal = torch.diagonal(Y, dim1=1, dim2=2)
        error = diagonal - self.teacher
        diagonal.copy_(error * (diagonal > 0) if self.row.relu else error)
        G = Y.mul_(self.weights[:, None, :])
        found: dict[str, Tensor] = {}
        if "c" in self.row.trains:
            found["c"] = G.sum(2)
        if W is None:
            return {**found, **({"B": G} if "B" in self.row.trains else {})}
        WG = torch.bmm(W, G)
        if "B" in self.row.trains:
            found["B"] = torch.bmm(WG, W.mT)
        if "W" in self.row.trains and inner is not None:
            found["W"] = torch.bmm(inner, G.mT).baddbmm_(B.mT, WG)
        return found

    def shut(self, Y: Float[Tensor, "r n n"]) -> list[float]:
        """Share of features whose own output is 0, per run."""
        if not self.row.relu:
            return [0.0] * len(Y)
        return (torch.diagonal(Y, dim1=1, dim2=2) <= 0).double().mean(1).tolist()

    def take(self, keep: Sequence[int]) -> None:
        """Go on with some of the runs."""
        index = torch.tensor(keep, device=self.weights.device)
        self.params = {name: tensor[index] for name, tensor in self.params.items()}
        self.weights, self.teacher = self.weights[index], self.teacher[index]


class Descent:
    """Gradient descent, or Adam (0.9, 0.999, 1e-8), with a rate per run."""

    def __init__(self, row: Student, rates: Sequence[float], like: Tensor) -> None:
        self.adam = row.optimiser == "adam"
        self.rates = torch.tensor(list(rates), dtype=torch.float64).to(like)
        self.mean: dict[str, Tensor] = {}
        self.square: dict[str, Tensor] = {}
        self.steps = 0

    def step(self, params: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Move `params` in place."""
        self.steps += 1
        for name, gradient in gradients.items():
            move = self._adapted(name, gradient) if self.adam else gradient
            shape = (-1,) + (1,) * (gradient.ndim - 1)
            params[name].sub_(move * self.rates.view(shape))

    def take(self, keep: Sequence[int]) -> None:
        """Go on with some of the runs."""
        index = torch.tensor(keep, device=self.rates.device)
        self.rates = self.rates[index]
        self.mean = {name: tensor[index] for name, tensor in self.mean.items()}
        self.square = {name: tensor[index] for name, tensor in self.square.items()}

    def _adapted(self, name: str, gradient: Tensor) -> Tensor:
        mean = self.mean.setdefault(name, torch.zeros_like(gradient)).lerp_(gradient, 0.1)
        square = self.square.setdefault(name, torch.zeros_like(gradient)).lerp_(gradient.square(), 0.001)
        scale = math.sqrt(1 - 0.999**self.steps)
        return mean / (1 - 0.9**self.steps) / (square.sqrt() / scale + 1e-8)


def starts(
    row: Student, n: int, k: int, seeds: Sequence[int], device: torch.device, dtype: torch.dtype
) -> tuple[Tensor | None, Tensor]:
    """W and B of all runs; W is None where it is the identity for good."""
    drawn = {seed: start(row, n, k, seed) for seed in dict.fromkeys(seeds)}
    B = torch.stack([drawn[seed][1] for seed in seeds]).to(device, dtype)
    if row.embedding == "identity" and "W" not in row.trains:
        return None, B
    return torch.stack([drawn[seed][0] for seed in seeds]).to(device, dtype), B


def stable_rate(row: Student, W: Float[Tensor, "k n"] | None, moments: Float[Tensor, "n n"]) -> float:
    """The student's rate; see `Student.rate`. `moments` is C = ⟨x xᵀ⟩."""
    if row.optimiser == "adam" or row.bias_only:
        return row.rate
    moments = moments.double()
    if W is None:
        return row.rate / float(torch.linalg.eigvalsh(moments)[-1])
    W = W.double()
    return row.rate / float(torch.linalg.eigvalsh(W @ W.T)[-1] * torch.linalg.eigvalsh(W @ moments @ W.T)[-1])


def descend(
    row: Student,
    tasks: Sequence[Task],
    k: int,
    seeds: Sequence[int],
    *,
    until: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Curve]:
    """Train one student on several tasks (of one N) from several seeds, side by side.

    Parameters
    ----------
    until
        Last time t; the student's own when left out.

    Raises
    ------
    ConfigError
        A run diverged, or no ReLU is open from the start, so that there is no gradient.
    """
    until = row.time if until is None else until
    W, B = starts(row, tasks[0].n, k, seeds, torch.device(device), dtype)
    rates = [
        stable_rate(row, None if W is None else W[run], torch.diag(torch.from_numpy(task.weights)).to(B.device))
        for run, task in enumerate(tasks)
    ]
    model, record = Population(row, tasks, W, B), Recorder(rates, until)
    optimiser = Descent(row, rates, B)
    curves: dict[int, Curve] = {}
    running, step = list(range(len(tasks))), 0
    while running:
        Y, inner = model.outputs()
        due = [running.index(run) for run in record.due.get(step, [])]
        for place, (loss, own) in zip(due, model.losses(Y, due), strict=True):
            record.keep(step, running[place], loss, own)
        if step == 0 and row.relu:
            _check_open(Y)
        done = [place for place in due if record.finished(step, running[place])]
        if done and step:
            shut = model.shut(Y)
            for place in done:
                run = running[place]
                curves[run] = record.curve(run, tasks[run].zero_loss, shut[place])
            keep = [place for place in range(len(running)) if place not in done]
            running = [running[place] for place in keep]
            if not running:
                break
            model.take(keep)
            optimiser.take(keep)
            Y, inner = Y[keep], None if inner is None else inner[keep]
        optimiser.step(model.params, model.gradients(Y, inner))
        step += 1
    return [curves[run] for run in range(len(tasks))]


def _check_open(Y: Float[Tensor, "r n n"]) -> None:
    if bool((Y.amax((1, 2)) <= 0).any()):
        raise ConfigError(
            "every ReLU is shut at the start: the gradient is zero and nothing will be learned",
            expected="some positive pre-activations",
            fix="another seed, embedding or start",
        )
