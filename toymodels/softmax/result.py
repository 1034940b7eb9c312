"""The exponent of a finished softmax run, on a stretch that a stated rule chooses; none where there is no power law."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from llmprobe.errors import FitError
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.stretch import choose_window
from llmprobe.fitting.window import WindowFit, fit_window
from llmprobe.lines import finite
from llmprobe.observations import Identity, Observation
from toymodels.softmax.config import SoftmaxConfig

DECADES = 1.0  # of τ, at least
FALL = 2.0  # by which the loss must fall on the stretch: a noise floor is straight too
SCATTER = 0.1  # about the law, root mean square in the logarithm, at most
SPREAD = 0.05
RULE = (
    "from the run's end back, while the loss is below half its first, as far as the local exponent changes by less "
    "than 10% end to end or by less than two standard errors; at least a decade of τ, on which the loss falls at least "
    "twofold and scatters by less than 10% about the law"
)


@dataclass(frozen=True, eq=False)
class SoftmaxResult:
    """A finished run.

    Attributes
    ----------
    steps
        Recorded steps, shape [T], increasing.
    loss
        KL(teacher ‖ student) there in nats, on inputs never trained on, shape [T].
    first
        Loss before the first step.
    seconds
        Time of the run (of all that shared its tensor program, divided by their number).
    """

    config: SoftmaxConfig
    steps: np.ndarray
    loss: np.ndarray
    first: float
    seconds: float
    device: str

    @property
    def tau(self) -> np.ndarray:
        """τ = ∫ rate at the recorded steps, shape [T]."""
        return self.config.schedule.tau(self.steps)

    @cached_property
    def judged(self) -> WindowFit | FitError:
        """The fit on the window that `RULE` chooses, or why there is no power law."""
        begun = np.flatnonzero(self.loss < self.first / 2)
        if not len(begun):
            return FitError(f"the loss falls from {self.first:.3g} to {self.loss[-1]:.3g} only", fix="train longer")
        late = slice(int(begun[0]), None)
        tau, loss = self.tau[late], np.maximum(self.loss[late], 1e-300)
        try:
            low, high = _straight_end(tau, loss)
            found = fit_window(tau, loss, low, high, law=PowerLawSum(("tau",)), per_decade=None)
        except FitError as error:
            return error
        fall, scatter = (high / low) ** found.exponent, float(np.sqrt(np.mean(found.result.residuals**2)))
        if fall < FALL or scatter > SCATTER:
            change = f"falls {fall:.2g}-fold" if fall >= 1 else f"rises {1 / fall:.2g}-fold"
            return FitError(
                f"from τ = {low:.3g} to {high:.3g} the loss {change} and scatters by {scatter:.0%}",
                expected=f"{FALL:g}-fold and {SCATTER:.0%}",
            )
        return found

    @property
    def fit(self) -> WindowFit | None:
        """The exponent; None where there is no power law."""
        return self.judged if isinstance(self.judged, WindowFit) else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the exponent, or of its absence, must know."""
        if isinstance(self.judged, FitError):
            return (f"no power law: {self.judged.read}",)
        low, high = self.judged.spread
        if high - low > SPREAD:
            return (f"windows near this one give exponents from {low:.2f} to {high:.2f}",)
        return ()

    def to_dict(self) -> dict[str, Any]:
        """The line of ``toymodels softmax --json``."""
        c, found = self.config, self.fit
        names = ("vocabulary", "width", "temperature", "rate", "optimizer", "steps", "seed")
        return {
            **{name: getattr(c, name) for name in names},
            "alpha": None if found is None else found.exponent,
            "alpha_stderr": None if found is None else found.stderr,
            "window": None if found is None else [found.window.lo, found.window.hi],
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }

    def observations(self, study: str = "softmax") -> list[Observation]:
        """The last loss, under whose key the curve belongs (see `arrays`), and the exponent where there is one."""
        c, found = self.config, self.fit
        about: dict[str, Any] = {"family": "softmax", "m": c.width, "n": c.vocabulary, "step": c.steps}
        record = {"seconds": self.seconds, "device": self.device, "first_loss": self.first}
        last = identity(c, study, "final_loss").observe(float(self.loss[-1]), record=record, unit="nats", **about)
        if found is None:
            return [last]
        error = found.stderr if math.isfinite(found.stderr) else None
        about |= {"stderr": error, "n_samples": found.window.n_points}
        record |= finite({**self.to_dict(), "rule": RULE, "alpha_spread": list(found.spread)})
        return [last, identity(c, study, "time_exponent").observe(found.exponent, record=record, **about)]

    def arrays(self) -> dict[str, np.ndarray]:
        """The curve, to be kept under the observation's key."""
        return {"steps": self.steps, "tau": self.tau, "loss": self.loss}


def identity(config: SoftmaxConfig, study: str, metric: Literal["final_loss", "time_exponent"]) -> Identity:
    """What a run is asked for: by this its curve and exponent are found again."""
    return Identity(study=study, source_kind="toy", metric=metric, model="softmax", settings=config.settings())


def _straight_end(tau: np.ndarray, loss: np.ndarray) -> tuple[float, float]:
    """The longest stretch up to the last point that `choose_window` calls straight; `FitError` where there is none."""
    for first in range(len(tau)):
        window = choose_window(tau[first:], loss[first:], min_decades=DECADES)
        if window.lo == tau[first] and window.hi == tau[-1]:
            return window.lo, window.hi
    raise FitError("no point is left")
