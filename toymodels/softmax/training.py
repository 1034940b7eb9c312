"""Training of the softmax toy: runs of one seed share teacher, inputs and one tensor program.

The gradient needs no autograd: with logits z = x Wᵀ, of the Kullback–Leibler divergence it is
(softmax(z) − p)ᵀ x / batch, p the teacher's distribution. Losses are of a fixed sample never trained on.

Source: arXiv:2602.03685.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from llmprobe.device import pick_double, torch_threads
from llmprobe.errors import ConfigError
from toymodels.softmax.config import SoftmaxConfig
from toymodels.softmax.result import SoftmaxResult
from toymodels.teacher.curve import record_steps

HELD_OUT = 4096
PER_DECADE = 12
TOGETHER = {"cpu": 16, "cuda": 256}  # runs in a tensor program: each program is kept when it is done
LOGITS = {"cpu": 1 << 17, "cuda": 1 << 26}  # at a time: on a CPU they should stay in the cache

Step = Callable[[Tensor, Tensor, Tensor], None]


def run_all(
    configs: Sequence[SoftmaxConfig], *, device: str = "auto", threads: int = 1, progress: bool = False
) -> list[SoftmaxResult]:
    """Train students; those that differ only in temperature and rate share a tensor program.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    threads
        Cores for the products on a CPU.
    progress
        Show steps done, steps per second and time left on stderr.

    Raises
    ------
    ConfigError
        A run diverged.
    """
    place = pick_double(device)  # losses are summed in float64
    found: dict[int, SoftmaxResult] = {}
    with torch_threads(threads):
        total = sum(c.steps for c in configs)
        with tqdm(total=total, desc="softmax", unit="step", disable=not progress, leave=False) as bar:
            for part in programs(configs, place.type):
                began, some = time.perf_counter(), [configs[index] for index in part]
                first, steps, losses = _train(some, place, bar)
                seconds = (time.perf_counter() - began) / len(part)
                for k, index in enumerate(part):
                    found[index] = SoftmaxResult(some[k], steps, losses[:, k], float(first[k]), seconds, str(place))
    return [found[index] for index in range(len(configs))]


def programs(configs: Sequence[SoftmaxConfig], device: str = "cpu") -> list[list[int]]:
    """Places of runs that may share a tensor program: those that differ in temperature, rate and schedule alone."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, c in enumerate(configs):
        groups.setdefault((c.vocabulary, c.width, c.batch, c.steps, c.seed, c.optimizer), []).append(index)
    size = TOGETHER.get(device, TOGETHER["cpu"])
    return [group[k : k + size] for group in groups.values() for k in range(0, len(group), size)]


def _train(runs: Sequence[SoftmaxConfig], device: torch.device, bar: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First losses [R], recorded steps [T] and losses there [T, R]; inputs are drawn on the CPU everywhere."""
    c = runs[0]
    task = Task(c, [run.temperature for run in runs], device)
    W = torch.zeros(len(runs), c.vocabulary, c.width, device=device)
    step_of = OPTIMIZERS[c.optimizer](W)
    rates = torch.tensor(np.stack([run.schedule.rate(np.arange(c.steps) + 1) for run in runs]), device=device).float()
    records = record_steps(1.0, float(c.steps), PER_DECADE)
    due, losses, first = set(records.tolist()), [], task.loss(W)
    for step in range(1, c.steps + 1):
        x = task.inputs(c.batch)
        step_of(W, task.gradient(W, x), rates[:, step - 1, None, None])
        if step in due:
            losses.append(task.loss(W))
        bar.update(len(runs))
    kept = np.stack(losses)
    for run, curve in zip(runs, kept.T, strict=True):
        if not np.isfinite(curve).all():
            raise ConfigError(f"training diverged at rate {run.rate:g}", expected="finite losses", fix="lower --rate")
    return first, records, kept


class Task:
    """A teacher at several temperatures, and the inputs of one seed.

    Inputs are N(0, 1) scaled to root mean square 1, the teacher's entries uniform within ±1/√m.

    Parameters
    ----------
    temperatures
        One per run.
    """

    def __init__(self, config: SoftmaxConfig, temperatures: Sequence[float], device: torch.device) -> None:
        self.config, self.device = config, device
        self.generator = torch.Generator().manual_seed(config.seed)
        uniform = torch.rand(config.vocabulary, config.width, generator=self.generator)
        self.teacher = ((2 * uniform - 1) / config.width**0.5).to(device)
        self.distinct = sorted(set(temperatures))
        every = torch.tensor(temperatures, dtype=torch.float64)
        self._runs = [torch.nonzero(every == t)[:, 0] for t in self.distinct]
        self._held_out = self.inputs(HELD_OUT).double()
        logits = self._held_out @ self.teacher.double().T
        self._targets = [torch.log_softmax(logits / t, dim=1) for t in self.distinct]

    def inputs(self, count: int) -> Float[Tensor, "b m"]:
        """Fresh inputs."""
        x = torch.randn(count, self.config.width, generator=self.generator).to(self.device)
        return x * (self.config.width**0.5 / torch.linalg.vector_norm(x, dim=1, keepdim=True))

    def gradient(self, W: Float[Tensor, "r v m"], x: Float[Tensor, "b m"]) -> Float[Tensor, "r v m"]:
        """Of the mean divergence over these inputs."""
        total, logits = torch.empty_like(W), x @ self.teacher.T
        together = max(1, LOGITS[self.device.type] // logits.numel())
        for t, runs in zip(self.distinct, self._runs, strict=True):
            p = torch.softmax(logits / t, dim=1)
            for some in runs.split(together):
                q = torch.softmax(x @ W[some].transpose(1, 2), dim=2).sub_(p)
                total[some] = q.transpose(1, 2) @ x
        return total.div_(len(x))

    def loss(self, W: Float[Tensor, "r v m"]) -> np.ndarray:
        """KL(teacher ‖ student) in nats, mean over inputs never trained on, float64; shape [r]."""
        values = np.empty(len(W))
        for target, runs in zip(self._targets, self._runs, strict=True):
            p = target.exp()
            for r in runs.tolist():
                q = torch.log_softmax(self._held_out @ W[r].double().T, dim=1)
                values[r] = float((p * (target - q)).sum() / HELD_OUT)
        return values


def _sgd(W: Tensor) -> Step:
    def step(W: Tensor, gradient: Tensor, rate: Tensor) -> None:
        W -= rate * gradient

    return step


def _adam(W: Tensor, first: float = 0.9, second: float = 0.999, floor: float = 1e-8) -> Step:
    m, v, count = torch.zeros_like(W), torch.zeros_like(W), [0]

    def step(W: Tensor, gradient: Tensor, rate: Tensor) -> None:
        count[0] += 1
        m.lerp_(gradient, 1 - first)
        v.mul_(second).addcmul_(gradient, gradient, value=1 - second)
        scale = rate / (1 - first ** count[0])
        W -= scale * m / ((v / (1 - second ** count[0])).sqrt() + floor)

    return step


OPTIMIZERS: dict[str, Callable[[Tensor], Step]] = {"adam": _adam, "sgd": _sgd}
