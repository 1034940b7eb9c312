"""What a finished run of the toy model of superposition reports, as a row and as observations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llmprobe.measurements import OVERLAP_METRICS, overlap_rows
from llmprobe.observations import Identity, Observation
from llmprobe.overlap.regime import fraction_longer
from llmprobe.overlap.statistics import OverlapStatistics, overlap_statistics
from toymodels.superposition.config import SuperpositionConfig

OWN_METRICS = ("loss", "loss_std", "phi_half", "phi_one")
METRICS = (*OWN_METRICS, "mean_sq_cos")  # by which a run counts as stored; other overlaps may be undefined


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

    @cached_property
    def overlaps(self) -> OverlapStatistics | None:
        """Overlaps of W, as of any unembedding, rows of norm zero left out; None where fewer than two are left."""
        if int((torch.linalg.vector_norm(self.W, dim=1) > 0).sum()) < 2:
            return None
        return overlap_statistics(self.W, drop_zero_rows=True)

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
            "mean_sq_cos": self.overlaps.mean_sq_cos if self.overlaps else 0.0,
            "phi_half": fraction_longer(norms, 0.5),
            "phi_one": fraction_longer(norms, 1.0),
            "seconds": self.seconds,
        }

    def observations(self, study: str) -> list[Observation]:
        """One row per metric; the error of the loss is that of a mean over independent batches."""
        c, values = self.config, self.row()
        record = {"seconds": round(self.seconds, 3), "device": self.device}
        about = {"family": f"toy-{c.regime}", "n_params": c.n * (c.m + 1), "step": c.steps}
        stderr = self.loss_std / math.sqrt(min(c.average, c.steps))
        samples = {"m": c.m, "n": c.n, "n_samples": c.average * c.batch}
        own = [
            one.observe(values[one.metric], stderr=stderr if one.metric == "loss" else None, record=record,
                        **about, **samples)
            for one in identities(c, study, OWN_METRICS)
        ]  # fmt: skip
        if self.overlaps is None:
            return own
        return own + overlap_rows(identities(c, study, OVERLAP_METRICS), self.overlaps, record, **about)


def identities(config: SuperpositionConfig, study: str, metrics: Sequence[str] = METRICS) -> tuple[Identity, ...]:
    """What a run is asked for: by these its rows are found again."""
    settings = config.settings()
    return tuple(
        Identity(study=study, source_kind="toy", metric=metric, model="superposition", settings=settings)
        for metric in metrics
    )
