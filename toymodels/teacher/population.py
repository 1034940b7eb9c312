"""Students on features that come one at a time: exact losses and gradients, no sampling noise, many runs in one batch.

The loss L = ½ Σ_i λ_i ‖f(Z e_i + c) − A_ii e_i‖² is a finite sum, and its gradients have a closed form: with
G = ((f(Z + c) − A) ⊙ f'(Z + c)) diag(λ),

    ∇B = W G Wᵀ,    ∇W = (B W) Gᵀ + Bᵀ (W G),    ∇c = Σ_i G_·i.

Source: arXiv:2602.01045. With a bias the sum is exact for v = 1 only, as f(Z v + c) is then not v f(Z).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from llmprobe.errors import ConfigError
from toymodels.teacher.students import Student
from toymodels.teacher.theory import Task


class Population:
    """Losses and gradients of R runs that share a student; a model for `toymodels.teacher.descent.descend`.

    Parameters
    ----------
    student
        The student.
    tasks, seeds
        One per run, tasks of the same N; no seed is needed for exact gradients.
    W, B
        Starts, shapes [R, K, N] and [R, K, K]. W may be left out where it is the identity and stays so. Runs of
        smaller K fill the rest of W and B with zeros: these have no gradient and stay zero.
    """

    def __init__(
        self, student: Student, tasks: Sequence[Task], seeds: Sequence[int], W: Tensor | None, B: Tensor
    ) -> None:
        self.student = student
        self.params: dict[str, Tensor] = {"B": B, "c": B.new_zeros(len(B), tasks[0].n)}
        if W is not None:
            self.params["W"] = W
        self.weights = torch.tensor(np.array([task.weights for task in tasks])).to(B)
        self.teacher = torch.tensor(np.array([task.teacher for task in tasks])).to(B)
        self.forward()
        if student.relu and bool((self.Y.amax((1, 2)) <= 0).any()):
            raise ConfigError(
                "every ReLU is shut at the start: the gradient is zero and nothing will be learned",
                expected="some positive pre-activations",
                fix="another seed, embedding or start",
            )

    @staticmethod
    def moments(task: Task) -> tuple[Float[Tensor, "n n"], float]:
        """C = ⟨x xᵀ⟩ of the inputs, float64, and the weight with which a bias counts, Σ λ_i."""
        weights = torch.from_numpy(task.weights)
        return torch.diag(weights), float(weights.sum())

    def forward(self) -> None:
        """Answers Y = f(Z + c), shape [R, N, N] with a column per feature, and B W (None without W)."""
        W, B = self.params.get("W"), self.params["B"]
        if W is None:
            self.inner, Y = None, B.clone()
        else:
            self.inner = torch.bmm(B, W)
            Y = torch.bmm(W.mT, self.inner)
        if "c" in self.student.trains:
            Y += self.params["c"][:, :, None]
        self.Y = Y.clamp_min_(0) if self.student.relu else Y

    def loss(self, run: int) -> tuple[float, float]:
        """Loss and its own part of one of the runs, at the last `forward`, summed in float64."""
        y, weights = self.Y[run].double(), self.weights[run].double()
        diagonal = y.diagonal()
        other = y.square().sum(0) - diagonal.square()
        own = float((weights * (diagonal - self.teacher[run].double()).square()).sum()) / 2
        return float((weights * other).sum()) / 2 + own, own

    def gradients(self) -> dict[str, Tensor]:
        """Gradients of what the student trains, at the last `forward`, whose answers are used up."""
        W, B, Y = self.params.get("W"), self.params["B"], self.Y
        diagonal = torch.diagonal(Y, dim1=1, dim2=2)
        error = diagonal - self.teacher
        diagonal.copy_(error * (diagonal > 0) if self.student.relu else error)
        G = Y.mul_(self.weights[:, None, :])
        found: dict[str, Tensor] = {}
        if "c" in self.student.trains:
            found["c"] = G.sum(2)
        if W is None:
            return {**found, **({"B": G} if "B" in self.student.trains else {})}
        WG = torch.bmm(W, G)
        if "B" in self.student.trains:
            found["B"] = torch.bmm(WG, W.mT)
        if "W" in self.student.trains and self.inner is not None:
            found["W"] = torch.bmm(self.inner, G.mT).baddbmm_(B.mT, WG)
        return found

    def dead(self, run: int) -> float:
        """Share of a run's features whose own output is 0, at the last `forward`."""
        return float((self.Y[run].diagonal() <= 0).double().mean()) if self.student.relu else 0.0

    def take(self, keep: Sequence[int]) -> None:
        """Continue with some of the runs."""
        index = torch.tensor(keep, device=self.weights.device)
        self.params = {name: tensor[index] for name, tensor in self.params.items()}
        self.weights, self.teacher, self.Y = self.weights[index], self.teacher[index], self.Y[index]
        self.inner = None if self.inner is None else self.inner[index]
