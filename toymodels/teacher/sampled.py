"""Students on sampled batches: Bernoulli features, many at a time, from the sampler of the superposition toy.

Feature i is active with probability min(1, density · p_i) and v ~ U(0, 1). Gradients are those of the batch,
½ ‖f(Z x + c) − A x‖² averaged over its rows, in closed form; rows without any feature are done once, with their
count. The loss is recorded on a batch that is never trained on.

Source: arXiv:2602.01045; sampling as in arXiv:2505.10465.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from toymodels.seeds import stream
from toymodels.superposition.features import Batch, Sampler
from toymodels.teacher.students import Student
from toymodels.teacher.theory import Task

EVALUATION_ROWS = 2048
MEAN, MEAN_SQUARE = 1 / 2, 1 / 3  # of v ~ U(0, 1)


@dataclass(frozen=True)
class Rows:
    """A batch as the students see it.

    Attributes
    ----------
    x
        Rows with a feature, filled up with zero rows to the same number in each run; shape [R, rows, N].
    used
        1 for a row in use, 0 for filling, shape [R, rows].
    empty
        How many rows have no feature, shape [R].
    """

    x: Float[Tensor, "r rows n"]
    used: Float[Tensor, "r rows"]
    empty: Float[Tensor, " r"]

    @classmethod
    def of(cls, batch: Batch, n: int) -> Rows:
        """Rows of v ~ U(0, 1)."""
        x = batch.dense(n) * MEAN  # the sampler's amplitudes have mean 1
        return cls(x, batch.occupied.view(len(x), -1), batch.empty)

    def take(self, index: Tensor) -> Rows:
        """Those of some of the runs."""
        return Rows(self.x[index], self.used[index], self.empty[index])


class Samples:
    """Students' losses and gradients on batches; a model for `toymodels.teacher.descent.descend`.

    Parameters
    ----------
    student
        The student.
    tasks, seeds
        One per run, tasks of the same N.
    W, B
        Starts, shapes [R, K, N] and [R, K, K], zero beyond a run's K; W is None where it is the identity for good.
    """

    def __init__(
        self, student: Student, tasks: Sequence[Task], seeds: Sequence[int], W: Tensor | None, B: Tensor
    ) -> None:
        self.student, self.n = student, tasks[0].n
        self.params: dict[str, Tensor] = {"B": B, "c": B.new_zeros(len(B), self.n)}
        if W is not None:
            self.params["W"] = W
        self.teacher = torch.tensor(np.array([task.teacher for task in tasks])).to(B)
        self.runs = torch.arange(len(B), device=B.device)
        q = torch.tensor(np.array([task.probabilities for task in tasks]))
        batches, held = (
            Sampler(q, size, [stream(s, use) for s in seeds], device=B.device, dtype=B.dtype)
            for size, use in ((student.batch, "data"), (EVALUATION_ROWS, "evaluation"))
        )
        self.held = Rows.of(next(held.chunk()), self.n)
        self._batches = _endless(batches)
        self.forward()

    @staticmethod
    def moments(task: Task) -> tuple[Float[Tensor, "n n"], float]:
        """C = ⟨x xᵀ⟩ of independent features with v ~ U(0, 1), float64, and the weight with which a bias counts, 1."""
        q = torch.from_numpy(task.probabilities)
        return (torch.outer(q, q) * MEAN**2).diagonal_scatter(q * MEAN_SQUARE), 1.0

    def forward(self) -> None:
        """Draw a batch."""
        self.rows = Rows.of(next(self._batches), self.n).take(self.runs)

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of what the student trains on the last batch drawn."""
        W, B, c = self.params.get("W"), self.params["B"], self.params["c"]
        x = self.rows.x
        h = x if W is None else torch.bmm(x, W.mT)
        g = torch.bmm(h, B.mT)
        z = (g if W is None else torch.bmm(g, W)) + c[:, None, :]
        error = z - x * self.teacher[:, None, :]
        if self.student.relu:
            error *= z > 0
        error *= self.rows.used[:, :, None] / self.student.batch
        found: dict[str, Tensor] = {}
        if "c" in self.student.trains:
            silent = c.clamp(min=0) if self.student.relu else c
            found["c"] = error.sum(1) + silent * self.rows.empty[:, None] / self.student.batch
        back = error if W is None else torch.bmm(error, W.mT)
        if "B" in self.student.trains:
            found["B"] = torch.bmm(back.mT, h)
        if "W" in self.student.trains:
            found["W"] = torch.bmm(g.mT, error) + torch.bmm(torch.bmm(back, B).mT, x)
        return found

    def loss(self, run: int) -> tuple[float, float]:
        """Loss of a run on the batch that is never trained on, and the part of active features."""
        W, B, c = self.params.get("W"), self.params["B"][run], self.params["c"][run]
        x = self.held.x[run][self.held.used[run] > 0]
        h = x if W is None else x @ W[run].T
        g = h @ B.T
        z = (g if W is None else g @ W[run]) + c
        y = z.clamp(min=0) if self.student.relu else z
        squares = (y - x * self.teacher[run]).double().square()
        silent = (c.clamp(min=0) if self.student.relu else c).double().square().sum() * self.held.empty[run]
        rows = 2 * (len(x) + float(self.held.empty[run]))
        return float(squares.sum() + silent) / rows, float((squares * (x > 0)).sum()) / rows

    def dead(self, run: int) -> float:
        """Share of features that, alone and at full amplitude, leave their own output shut."""
        if not self.student.relu:
            return 0.0
        W, B = self.params.get("W"), self.params["B"][run]
        own = B.diagonal() if W is None else (W[run] * (B @ W[run])).sum(0)
        return float((own + self.params["c"][run] <= 0).double().mean())

    def take(self, keep: Sequence[int]) -> None:
        """Continue with some of the runs; what the others would have drawn is drawn and left."""
        index = torch.tensor(keep, device=self.teacher.device)
        self.params = {name: tensor[index] for name, tensor in self.params.items()}
        self.teacher, self.runs = self.teacher[index], self.runs[index]
        self.held, self.rows = self.held.take(index), self.rows.take(index)


def _endless(sampler: Sampler) -> Iterator[Batch]:
    while True:
        yield from sampler.chunk()
