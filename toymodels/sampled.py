"""Students on sampled batches: Bernoulli features, many at a time, from the sampler of the superposition toy.

Feature i is active with probability min(1, density · p_i) and v ~ U(0, 1). Gradients are those of the batch,
½ ‖f(Z x + c) − A x‖² averaged over its rows, in closed form; rows without any feature are done once, with their
count. The loss is recorded on a batch that is never trained on.

Source: arXiv:2602.01045; sampling as in arXiv:2505.10465.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.dynamics_theory import Task
from toymodels.features import Batch, Sampler
from toymodels.population import Curve, Descent, Recorder, stable_rate, starts
from toymodels.students import Student
from toymodels.training import stream

EVALUATION_ROWS = 2048
MEAN, MEAN_SQUARE = 1 / 2, 1 / 3  # of v ~ U(0, 1)


def input_moments(q: Float[Tensor, " n"]) -> Float[Tensor, "n n"]:
    """⟨x xᵀ⟩ of independent features that are active with probability q and v ~ U(0, 1)."""
    moments = torch.outer(q, q) * MEAN**2
    return moments.diagonal_scatter(q * MEAN_SQUARE)


class Samples:
    """Students' answers and gradients on batches.

    Parameters
    ----------
    row
        The student.
    tasks
        One per run, of the same N.
    W, B
        Starts, shapes [R, K, N] and [R, K, K]; W is None where it is the identity for good.
    """

    def __init__(self, row: Student, tasks: Sequence[Task], W: Tensor | None, B: Tensor) -> None:
        self.row, self.W = row, W
        self.n = tasks[0].n
        self.params: dict[str, Tensor] = {"B": B, "c": B.new_zeros(len(B), self.n)}
        if W is not None:
            self.params["W"] = W
        self.teacher = torch.tensor(np.array([task.teacher for task in tasks])).to(B)

    def forward(self, x: Float[Tensor, "r rows n"]) -> tuple[Tensor, Tensor, Tensor]:
        """W x, B W x and the pre-activations Z x + c."""
        W, B, c = self.params.get("W"), self.params["B"], self.params["c"]
        h = x if W is None else torch.bmm(x, W.mT)
        g = torch.bmm(h, B.mT)
        z = g if W is None else torch.bmm(g, W)
        return h, g, z + c[:, None, :]

    def gradients(self, x: Float[Tensor, "r rows n"], weight: Tensor, empty: Tensor) -> dict[str, Tensor]:
        """Gradients of what the student trains.

        Parameters
        ----------
        x
            Rows with a feature; padding is all zero.
        weight
            1/batch for a row in use, 0 for padding, shape [R, rows].
        empty
            Share of the batch that has no feature, shape [R].
        """
        W, B, c = self.params.get("W"), self.params["B"], self.params["c"]
        h, g, z = self.forward(x)
        error = z - x * self.teacher[:, None, :]
        if self.row.relu:
            error *= z > 0
        error *= weight[:, :, None]
        found: dict[str, Tensor] = {}
        if "c" in self.row.trains:
            found["c"] = error.sum(1) + (c.clamp(min=0) if self.row.relu else c) * empty[:, None]
        back = error if W is None else torch.bmm(error, W.mT)
        if "B" in self.row.trains:
            found["B"] = torch.bmm(back.mT, h)
        if "W" in self.row.trains:
            found["W"] = torch.bmm(g.mT, error) + torch.bmm(torch.bmm(back, B).mT, x)
        return found

    def losses(self, run: int, x: Float[Tensor, "rows n"], batch: int) -> tuple[float, float]:
        """Loss of a run on `batch` rows, of which `x` are those with a feature, and the part of active features."""
        W, B, c = self.params.get("W"), self.params["B"][run], self.params["c"][run]
        h = x if W is None else x @ W[run].T
        g = h @ B.T
        z = (g if W is None else g @ W[run]) + c
        y = z.clamp(min=0) if self.row.relu else z
        squares = (y - x * self.teacher[run]).double().square()
        silent = (c.clamp(min=0) if self.row.relu else c).double().square().sum() * (batch - len(x))
        return float(squares.sum() + silent) / (2 * batch), float((squares * (x > 0)).sum()) / (2 * batch)

    def shut(self, run: int) -> float:
        """Share of features that, alone and at full amplitude, leave their own output shut."""
        if not self.row.relu:
            return 0.0
        W, B = self.params.get("W"), self.params["B"][run]
        own = B.diagonal() if W is None else (W[run] * (B @ W[run])).sum(0)
        return float((own + self.params["c"][run] <= 0).double().mean())


def descend_on_samples(
    row: Student,
    tasks: Sequence[Task],
    k: int,
    seeds: Sequence[int],
    *,
    until: float | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Curve]:
    """Train one student on several tasks side by side; see `toymodels.population.descend`.

    Raises
    ------
    ConfigError
        A run diverged.
    """
    place = torch.device(device)
    until = row.time if until is None else until
    W, B = starts(row, tasks[0].n, k, seeds, place, dtype)
    q = torch.tensor(np.array([task.probabilities for task in tasks]))
    rates = [
        stable_rate(row, None if W is None else W[run], input_moments(q[run]).to(place)) for run in range(len(tasks))
    ]
    model, record, optimiser = Samples(row, tasks, W, B), Recorder(rates, until), Descent(row, rates, B)
    batches = _endless(Sampler(q, row.batch, [stream(s, "data") for s in seeds], device=place, dtype=dtype))
    held = Sampler(q, EVALUATION_ROWS, [stream(s, "evaluation") for s in seeds], device=place, dtype=dtype)
    evaluation = _rows(next(held.chunk()), model.n)
    last = max(int(steps[-1]) for steps in record.steps)
    shut = [0.0] * len(tasks)
    for step in range(last + 1):
        for run in record.due.get(step, []):
            x, used, _ = evaluation
            record.keep(step, run, *model.losses(run, x[run][used[run] > 0], EVALUATION_ROWS))
            if record.finished(step, run):
                shut[run] = model.shut(run)
        if step < last:
            x, used, empty = _rows(next(batches), model.n)
            optimiser.step(model.params, model.gradients(x, used / row.batch, empty / row.batch))
    return [record.curve(run, task.zero_loss, shut[run]) for run, task in enumerate(tasks)]


def _endless(sampler: Sampler) -> Iterator[Batch]:
    while True:
        yield from sampler.chunk()


def _rows(batch: Batch, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows with a feature [R, rows, N] with v ~ U(0, 1), which of them are in use, and how many have none."""
    x = batch.dense(n) * MEAN  # the sampler's amplitudes have mean 1
    return x, batch.occupied.view(len(x), -1), batch.empty
