"""Learning-rate schedules and the training time they stand for, τ = ∫ rate d(step).

Linear warm-up, then a cosine from the peak to a share of it; a share of 1 is a constant rate. Gradient flow knows no
steps, only τ, so runs of different rates and schedules lie on one axis (arXiv:2602.03685).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.errors import ConfigError
from llmprobe.settings import Count, Natural, Positive, Settings, Share


@dataclass(frozen=True, kw_only=True)
class Schedule(Settings):
    """The rate at each step.

    Raises
    ------
    SettingError
        A number out of range.
    ConfigError
        A warm-up as long as the training.
    """

    peak: Positive
    """Largest rate."""
    steps: Count
    """Steps of the whole training; the rate stays at its last value beyond them."""
    warmup: Natural = 0
    """Steps over which the rate rises linearly from 0."""
    final: Share = 1.0
    """Rate at the last step, as a share of the peak; 1 is a constant rate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warmup >= self.steps:
            raise ConfigError(f"a warm-up of {self.warmup} steps in a training of {self.steps}", expected="fewer")

    def rate(self, step: ArrayLike | float | int) -> np.ndarray:
        """Rate at a step, shape as `step`; what lies between steps is the schedule's own continuation."""
        s = np.asarray(step, dtype=float)
        cosine = self.final + (1 - self.final) * 0.5 * (1 + np.cos(np.pi * self._progress(s)))
        return np.asarray(self.peak * np.where(s < self.warmup, s / max(self.warmup, 1), cosine))

    def tau(self, step: ArrayLike | float | int) -> np.ndarray:
        """τ = ∫_0^step rate, in closed form; shape as `step`, in the unit of the rate.

        τ(s) = peak s²/(2w)                                                      s ≤ w
        τ(s) = peak [w/2 + (1 + f)/2 (s − w) + (1 − f)/2 (S − w)/π sin(πu)]      u = (s − w)/(S − w)
        """
        s = np.asarray(step, dtype=float)
        rising = np.minimum(s, self.warmup) ** 2 / (2 * max(self.warmup, 1))
        span, within = self.steps - self.warmup, np.clip(s, self.warmup, self.steps) - self.warmup
        bow = (1 - self.final) / 2 * span / np.pi * np.sin(np.pi * self._progress(s))
        beyond = self.final * np.maximum(s - self.steps, 0)
        return np.asarray(self.peak * (rising + (1 + self.final) / 2 * within + bow + beyond))

    def _progress(self, s: np.ndarray) -> np.ndarray:
        return np.asarray(np.clip((s - self.warmup) / (self.steps - self.warmup), 0.0, 1.0))
