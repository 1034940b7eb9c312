"""Gradient descent of many students side by side: one loop, whatever the data.

What a student's loss and gradients are is a `Model`'s business (`population`, `sampled`); here are the starts, the
rates, the steps, and what is recorded. Runs that have ended leave the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from toymodels.teacher.curve import Curve, Recorder
from toymodels.teacher.population import Population
from toymodels.teacher.sampled import Samples
from toymodels.teacher.students import Student, start
from toymodels.teacher.theory import Task


class Model(Protocol):
    """R runs of a student: parameters by name, each with the runs first."""

    params: dict[str, Tensor]

    def forward(self) -> None:
        """Prepare a step."""

    def loss(self, run: int) -> tuple[float, float]:
        """Loss of a run, and the part of it that features cause in their own outputs."""

    def gradients(self) -> dict[str, Tensor]:
        """Of what is trained; once after each `forward`."""

    def dead(self, run: int) -> float:
        """Share of features whose own output is shut."""

    def take(self, keep: Sequence[int]) -> None:
        """Continue with some of the runs."""


MODELS: dict[str, type[Population] | type[Samples]] = {"population": Population, "sampled": Samples}


class Descent:
    """Gradient descent, or Adam (0.9, 0.999, 1e-8), with a rate per run."""

    def __init__(self, student: Student, rates: Sequence[float], like: Tensor) -> None:
        self.adam = student.optimizer == "adam"
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
        """Continue with some of the runs."""
        index = torch.tensor(keep, device=self.rates.device)
        self.rates = self.rates[index]
        self.mean = {name: tensor[index] for name, tensor in self.mean.items()}
        self.square = {name: tensor[index] for name, tensor in self.square.items()}

    def _adapted(self, name: str, gradient: Tensor) -> Tensor:
        mean = self.mean.setdefault(name, torch.zeros_like(gradient)).lerp_(gradient, 0.1)
        square = self.square.setdefault(name, torch.zeros_like(gradient)).lerp_(gradient.square(), 0.001)
        scale = math.sqrt(1 - 0.999**self.steps)
        return mean / (1 - 0.9**self.steps) / (square.sqrt() / scale + 1e-8)


def stable_rate(student: Student, W: Float[Tensor, "k n"] | None, task: Task) -> float:
    """The student's rate on a task; see `Student.rate`. W is None where it is the identity."""
    if student.optimizer == "adam" or student.bias_only:
        return student.rate
    C, bias = MODELS[student.data].moments(task)
    if W is None:
        curvature = float(torch.linalg.eigvalsh(C)[-1])
    else:
        curvature = float(torch.linalg.eigvalsh(W @ W.T)[-1] * torch.linalg.eigvalsh(W @ C @ W.T)[-1])
    return student.rate / max(curvature, bias if "c" in student.trains else 0.0)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """Matrices of different sizes as one batch, filled up with zeros."""
    rows, columns = (max(part.shape[axis] for part in parts) for axis in (0, 1))
    return torch.stack(
        [torch.nn.functional.pad(part, (0, columns - part.shape[1], 0, rows - part.shape[0])) for part in parts]
    )


def descend(
    student: Student,
    tasks: Sequence[Task],
    ks: Sequence[int],
    seeds: Sequence[int],
    *,
    until: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    bar: tqdm | None = None,
) -> list[Curve]:
    """Train one student on several tasks (of one N), with several K, from several seeds, side by side.

    Parameters
    ----------
    ks
        Dimensions K of each run; ignored by students without superposition.
    until
        Last time t; the student's own when left out.
    bar
        Progress bar: its total and its count are steps.

    Raises
    ------
    ConfigError
        A run diverged, or no ReLU is open from the start, so that there is no gradient.
    """
    begun = {(k, seed): start(student, tasks[0].n, k, seed) for k, seed in dict.fromkeys(zip(ks, seeds, strict=True))}
    starts = [begun[pair] for pair in zip(ks, seeds, strict=True)]
    fixed = student.embedding == "identity" and "W" not in student.trains
    rates = [stable_rate(student, None if fixed else W, task) for (W, _), task in zip(starts, tasks, strict=True)]
    B = stacked([B for _, B in starts]).to(device, dtype)
    W = None if fixed else stacked([W for W, _ in starts]).to(device, dtype)
    model: Model = MODELS[student.data](student, tasks, seeds, W, B)
    record, optimizer = Recorder(rates, student.time if until is None else until), Descent(student, rates, B)
    if bar is not None:
        bar.reset(total=sum(int(steps[-1]) for steps in record.steps))
    curves: dict[int, Curve] = {}
    running, step = list(range(len(tasks))), 0
    while running:
        due = [running.index(run) for run in record.due.get(step, [])]
        for place in due:
            record.keep(step, running[place], *model.loss(place))
        done = [place for place in due if step and record.finished(step, running[place])]
        for place in done:
            run = running[place]
            curves[run] = record.curve(run, tasks[run].zero_loss, model.dead(place))
        if done:
            keep = [place for place in range(len(running)) if place not in done]
            if not keep:
                break
            running = [running[place] for place in keep]
            model.take(keep)
            optimizer.take(keep)
        optimizer.step(model.params, model.gradients())
        model.forward()
        step += 1
        if bar is not None:
            bar.update(len(running))
    return [curves[run] for run in range(len(tasks))]
