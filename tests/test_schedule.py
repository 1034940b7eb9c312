"""Training time τ of a schedule against numerical integration."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from llmprobe.errors import ConfigError
from llmprobe.schedule import Schedule

SCHEDULES = (
    Schedule(peak=0.3, steps=100),
    Schedule(peak=3e-3, steps=1000, warmup=60),
    Schedule(peak=1e-3, steps=143_000, warmup=1430, final=0.1),
    Schedule(peak=1.0, steps=50, warmup=49, final=0.0),
)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_tau_is_the_integral_of_the_rate(schedule: Schedule) -> None:
    corners = (schedule.warmup, schedule.steps)
    for step in (0.0, schedule.warmup / 3, schedule.warmup, 0.4 * schedule.steps, schedule.steps, 1.5 * schedule.steps):
        inside = [corner for corner in corners if 0 < corner < step]
        integral = quad(schedule.rate, 0, step, points=inside or None, epsrel=1e-11, limit=200)[0]
        assert schedule.tau(step) == pytest.approx(integral, rel=1e-8, abs=1e-12)


def test_pythia_ends_at_a_tenth_of_its_peak() -> None:
    schedule = SCHEDULES[2]
    assert schedule.rate(np.array([0, 715, 1430, 143_000])) == pytest.approx([0, 5e-4, 1e-3, 1e-4])
    assert schedule.tau(143_000) == pytest.approx(1e-3 * (1430 / 2 + 0.55 * (143_000 - 1430)))


def test_a_warmup_of_the_whole_training_is_refused() -> None:
    with pytest.raises(ConfigError, match="warm-up"):
        Schedule(peak=1.0, steps=10, warmup=10)
