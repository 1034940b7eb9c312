"""A sweep over widths as one curve: its loss, its overlaps in three definitions, and the exponent of its law.

The published figure of the mean square overlap does not say over which pairs it is taken, so all three readings are
kept: cosines of all rows, cosines of rows with |W_i| > 1, and plain products (W_i·W_j)².
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from llmprobe.errors import FitError
from llmprobe.fitting.window import WindowFit, fit_window
from llmprobe.observations import ObservationStore
from llmprobe.overlap.statistics import second_moments
from toymodels.executors import Machine
from toymodels.superposition.config import SuperpositionConfig
from toymodels.superposition.runs import sweep, trained_arrays
from toymodels.superposition.theory import long_rows, plain_overlaps, unlearned_loss

OVERLAPS = ("cosine, all rows", "cosine, |W| > 1", "plain product")


@dataclass(frozen=True)
class WidthCurve:
    """Runs that differ in width (and seed) only.

    Attributes
    ----------
    rows
        The lines of ``toymodels superposition --json``.
    overlaps
        Mean square overlap by definition (see `OVERLAPS`), each over the runs.
    unlearned, by_rank
        Loss of what is not learned (|W_i| ≤ 1/2): of the very features, and of as many of the rarest.
    """

    config: SuperpositionConfig
    rows: tuple[dict[str, Any], ...]
    overlaps: dict[str, np.ndarray]
    unlearned: np.ndarray
    by_rank: np.ndarray

    def column(self, name: str) -> np.ndarray:
        """One key of `rows` over the runs."""
        return np.array([row[name] for row in self.rows], dtype=float)

    def by_width(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """The widths, increasing, and the mean over seeds of one key of `rows` at each."""
        m, place = np.unique(self.column("m"), return_inverse=True)
        return m, np.bincount(place, self.column(name)) / np.bincount(place)

    def whole(self) -> WindowFit:
        """The power law through all widths."""
        m = self.column("m")
        return fit_window(m, self.column("loss"), m.min(), m.max())

    def window(self) -> WindowFit | None:
        """The power law on the longest straight stretch; None where there is none."""
        try:
            return fit_window(self.column("m"), self.column("loss"))
        except FitError:
            return None


def width_curves(
    grid: Sequence[Sequence[SuperpositionConfig]], store: ObservationStore, machine: Machine, study: str
) -> list[WidthCurve]:
    """Train what is missing of a grid, and give the curve of each of its rows."""
    with machine.executor() as pool:
        rows = iter(sweep([run for curve in grid for run in curve], store, pool, study=study, device=machine.device))
    return [width_curve(runs, [next(rows) for _ in runs], store, study) for runs in grid]


def width_curve(
    configs: Sequence[SuperpositionConfig], rows: Sequence[dict[str, Any]], store: ObservationStore, study: str
) -> WidthCurve:
    """The curve of a sweep whose arrays are in the store.

    Raises
    ------
    StoreError
        The arrays of a run are not there.
    """
    overlaps: dict[str, list[float]] = {name: [] for name in OVERLAPS}
    unlearned, by_rank = [], []
    for config, row in zip(configs, rows, strict=True):
        W = torch.from_numpy(trained_arrays(store, config, study)["W"])
        long = long_rows(W)
        values = (
            row["mean_sq_cos"],
            second_moments(long).mean_sq_cos if len(long) > 1 else math.nan,
            plain_overlaps(W),
        )
        for name, value in zip(OVERLAPS, values, strict=True):
            overlaps[name].append(value)
        p = config.frequencies()
        learned = torch.linalg.vector_norm(W, dim=1) > 0.5
        unlearned.append(unlearned_loss(p, learned, amplitude=config.amplitude_law))
        by_rank.append(unlearned_loss(p, int(learned.sum()), amplitude=config.amplitude_law))
    return WidthCurve(
        configs[0],
        tuple(rows),
        {name: np.array(values) for name, values in overlaps.items()},
        np.array(unlearned),
        np.array(by_rank),
    )
