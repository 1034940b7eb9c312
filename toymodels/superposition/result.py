"""What a finished run of the toy model of superposition reports, as a row and as observations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llmprobe.observations import Observation, Provenance
from llmprobe.overlap.regime import fraction_longer
from llmprobe.overlap.statistics import second_moments
from toymodels.superposition.config import SuperpositionConfig

METRICS = ("loss", "loss_std", "mean_sq_cos", "phi_half", "phi_one")


@dataclass(frozen=True)
class SuperpositionResult:
    """A finished run.

    Attributes
    ----------
    W, b
        Trained parameters on the CPU, shapes [n, m] and [n].
    losses
        ‖y − x‖² summed over features, mean over the batch, at each step; shape [steps].
    seconds
        Time of the run (of all replicas together, divided by their number).
    """

    config: SuperpositionConfig
    W: Float[Tensor, "n m"]
    b: Float[Tensor, " n"]
    losses: Float[Tensor, " steps"]
    seconds: float
    device: str

    @property
    def loss(self) -> float:
        """Mean loss of the last `average` steps."""
        return float(self.losses[-self.config.average :].double().mean())

    @property
    def loss_std(self) -> float:
        """Standard deviation of the loss over these steps."""
        tail = self.losses[-self.config.average :].double()
        return float(tail.std()) if len(tail) > 1 else 0.0

    def row(self) -> dict[str, Any]:
        """The line of ``toymodels superposition --json``."""
        c = self.config
        norms = torch.linalg.vector_norm(self.W.double(), dim=1)
        return {
            "n": c.n,
            "m": c.m,
            "data_exponent": c.data_exponent,
            "weight_decay": c.weight_decay,
            "activation_density": c.activation_density,
            "steps": c.steps,
            "seed": c.seed,
            "loss": self.loss,
            "loss_std": self.loss_std,
            "mean_sq_cos": second_moments(self.W, drop_zero_rows=True).mean_sq_cos if c.n > 1 else 0.0,
            "phi_half": fraction_longer(norms, 0.5),
            "phi_one": fraction_longer(norms, 1.0),
            "seconds": self.seconds,
        }

    def observations(self, study: str) -> list[Observation]:
        """One row per metric; the error of the loss is that of a mean over independent batches."""
        row, c = self.row(), self.config
        stderr = self.loss_std / math.sqrt(min(c.average, c.steps))
        blank = observation(c, study, "loss", 0.0, seconds=round(self.seconds, 3), device=self.device)
        return [
            replace(blank, metric=metric, value=row[metric], stderr=stderr if metric == "loss" else None)
            for metric in METRICS
        ]


def observation(config: SuperpositionConfig, study: str, metric: str, value: float = 0.0, **record: Any) -> Observation:
    """A row of a run's metric; with the value left out it serves to look the run up."""
    return Observation(
        study=study,
        source_kind="toy",
        family=f"toy-{config.regime}",
        model="superposition",
        m=config.m,
        n=config.n,
        n_params=config.n * (config.m + 1),
        step=config.steps,
        metric=metric,
        value=value,
        n_samples=config.average * config.batch,
        provenance=Provenance.here(config.settings(), **record),
    )
