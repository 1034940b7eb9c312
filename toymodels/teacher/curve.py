"""Curves in training time: which steps of a run are kept, and what was kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from llmprobe.errors import ConfigError

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
