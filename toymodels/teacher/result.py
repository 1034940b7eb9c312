"""Exponents of a finished teacher–student run: on which stretch, beside what, and what a reader must know.

The stretch is chosen by a stated rule that looks at the curve's ends or at the task, never at the exponent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from llmprobe.errors import FitError
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.window import WindowFit, fit_window
from llmprobe.lines import finite
from llmprobe.observations import Identity, Observation
from toymodels.teacher.config import FIXED_END, TeacherConfig
from toymodels.teacher.curve import Curve
from toymodels.teacher.theory import finite_window, unsuperposed_exponent, unsuperposed_loss, unsuperposed_time

FIXED = (30.0, FIXED_END)
MIN_POINTS = 10
MANY_DEAD = 0.1


def _fixed_rule(config: TeacherConfig, curve: Curve, floor: float) -> tuple[float, float, str]:
    low, high = FIXED
    if curve.t[-1] < 0.95 * high:
        raise FitError(
            f"the run ends at t = {curve.t[-1]:.4g}",
            expected=f"t up to {high:g}, where the window ends",
            fix="raise --time",
        )
    return low, high, f"fixed: {low:g} ≤ t ≤ {high:g}"


def _decay_rule(config: TeacherConfig, curve: Curve, floor: float) -> tuple[float, float, str]:
    end = max(curve.first / 100, 3 * floor)
    low, high = _first_below(curve, curve.first / 2), _first_below(curve, end)
    return low, high, f"from L < L(0)/2 to L < {end:.3g}, the larger of L(0)/100 and three times the floor"


def _finite_rule(config: TeacherConfig, curve: Curve, floor: float) -> tuple[float, float, str]:
    low, high = finite_window(config.task)
    return low, high, "from feature 4 learned until the features beyond N would carry 2% of the loss"


# what is fitted; each is settled by the curve's ends or by the task, never by the exponent
RULES: dict[str, Callable[[TeacherConfig, Curve, float], tuple[float, float, str]]] = {
    "fixed": _fixed_rule,
    "decay": _decay_rule,
    "finite": _finite_rule,
}


@dataclass(frozen=True, eq=False)
class TeacherResult:
    """A finished run and its exponents.

    Attributes
    ----------
    seconds
        Time of the run (of all that shared its tensor program, divided by their number).
    """

    config: TeacherConfig
    curve: Curve
    seconds: float
    device: str

    @cached_property
    def floor(self) -> float:
        """E of L = E + A t^(−α), fitted from the first L < L(0)/2 (or the window's start) to the end."""
        student = self.config.chosen_student
        rule = "finite" if student is None else student.rule
        low = _first_below(self.curve, self.curve.first / 2) if rule == "decay" else FIXED[0]
        keep = (self.curve.t >= low) & (self.curve.loss > 0)
        if keep.sum() < MIN_POINTS:
            return 0.0
        result = fit(PowerLawSum(("t",), offset="shared"), self.curve.t[keep], self.curve.loss[keep])
        return result.params["E"]

    @cached_property
    def window(self) -> tuple[float, float, str]:
        """Ends of the stretch that is fitted, and the rule in words.

        Raises
        ------
        FitError
            The run never gets where the rule wants it, or N is too small for the rule.
        """
        student = self.config.chosen_student
        return RULES["finite" if student is None else student.rule](self.config, self.curve, self.floor)

    @cached_property
    def fit(self) -> WindowFit:
        """The exponent of the total loss, with its sensitivity to the window."""
        return self.fit_of(self.curve.loss)

    @cached_property
    def reducible(self) -> WindowFit | None:
        """The exponent of loss − floor on the same stretch; None where the floor is reached in it."""
        rest = self.curve.loss - self.floor
        inside = self._inside()
        if not (rest[inside] > 0).all():
            return None
        return self.fit_of(np.where(rest > 0, rest, np.nan))

    @cached_property
    def unsuperposed(self) -> WindowFit | None:
        """The exponent without superposition, same N, a, b, data and stretch; None where its loss is below 1e-300."""
        loss = unsuperposed_loss(self.config.task, self.curve.t)
        if not (loss[self._inside()] > 1e-300).all():
            return None
        return self.fit_of(np.where(loss > 1e-300, loss, np.nan))

    def fit_of(self, y: np.ndarray) -> WindowFit:
        """The exponent of a curve over t (shape [T]; NaN is left out) on this run's window.

        Raises
        ------
        FitError
            Fewer than ten points of the curve lie inside.
        """
        low, high, _ = self.window
        points = int(self._inside().sum())
        if points < MIN_POINTS:
            raise FitError(
                f"{points} points of the curve for {low:.4g} ≤ t ≤ {high:.4g}",
                expected=f"at least {MIN_POINTS} points in the window",
                fix="train longer, lower the rate, or widen the window",
            )
        good = np.isfinite(y) & (y > 0)
        law = PowerLawSum(("t",))
        return fit_window(self.curve.t[good], y[good], low, high, law=law, per_decade=None)

    @property
    def alpha_theory(self) -> float:
        """(a + 2b − 1)/a: what holds without superposition."""
        return unsuperposed_exponent(self.config.a, self.config.b)

    @property
    def acceleration(self) -> float:
        """Time of the student without superposition over this one's, to the loss at the window's end.

        At equal rates this is a ratio of steps. NaN where that loss is above the zero function's.
        """
        high = self.window[1]
        loss = float(np.interp(math.log(high), np.log(self.curve.t), self.curve.loss))
        return unsuperposed_time(self.config.task, loss) / high

    @property
    def self_share(self) -> float:
        """Of what the loss falls in the window, the share that is features' own outputs: the teacher being learned."""
        inside = np.flatnonzero(self._inside())
        first, last = inside[0], inside[-1]
        fall = self.curve.loss[first] - self.curve.loss[last]
        return float((self.curve.own[first] - self.curve.own[last]) / fall) if fall > 0 else math.nan

    @property
    def end_over_zero(self) -> float:
        """Loss at the window's end over the zero function's: above 1, nothing has been learned yet."""
        return float(self.curve.loss[np.flatnonzero(self._inside())[-1]] / self.curve.zero)

    @property
    def learning(self) -> bool:
        """Whether the window is one of learning: it ends below the zero function's loss and falls by own outputs."""
        return self.end_over_zero < 1 and self.self_share > 0.5

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the exponent must know."""
        found = []
        low, high = self.fit.spread
        if self.end_over_zero > 1:
            found.append(
                f"the window ends at {self.end_over_zero:.3g} times the zero function's loss: "
                "the exponent is of interference being unlearned, not of the teacher being learned"
            )
        if self.curve.dead > MANY_DEAD:
            found.append(f"{self.curve.dead:.0%} of the features' own ReLUs are shut at the end (dead)")
        if high - low > 0.2:
            found.append(f"windows near this one give exponents from {low:.2f} to {high:.2f}")
        return tuple(found)

    def to_dict(self, *, details: bool = False) -> dict[str, Any]:
        """The line of ``toymodels teacher-student --json``; with everything beside it where asked for."""
        c, own = self.config, self.fit
        line: dict[str, Any] = {
            "n": c.n,
            "k": c.dimensions,
            "a": c.a,
            "b": c.b,
            "alpha": own.exponent,
            "alpha_stderr": own.stderr,
            "alpha_theory": self.alpha_theory,
            "window": [own.window.lo, own.window.hi],
            "floor": self.floor,
            "seconds": self.seconds,
        }
        if not details:
            return line
        beside, rest = self.unsuperposed, self.reducible
        return {
            **line,
            "student": c.student,
            "superposed": c.superposed,
            "seed": c.seed,
            "rule": self.window[2],
            "alpha_spread": list(own.spread),
            "alpha_unsuperposed": None if beside is None else beside.exponent,
            "alpha_reducible": None if rest is None else rest.exponent,
            "acceleration": self.acceleration,
            "zero_loss": self.curve.zero,
            "end_over_zero": self.end_over_zero,
            "own_share": self.self_share,
            "dead": self.curve.dead,
            "rate": self.curve.rate,
            "warnings": list(self.warnings),
        }

    def observation(self, study: str = "teacher_student") -> Observation:
        """The exponent, or the last loss where no exponent can be read; the curve belongs beside it, see `arrays`."""
        c = self.config
        about: dict[str, Any] = {"family": "teacher-student", "m": c.dimensions, "n": c.n}
        record = {
            "seconds": self.seconds,
            "device": self.device,
            "first_loss": self.curve.first,
            "zero_loss": self.curve.zero,
            "rate": self.curve.rate,
            "dead": self.curve.dead,
        }
        try:
            error = self.fit.stderr if math.isfinite(self.fit.stderr) else None
            about |= {"stderr": error, "n_samples": self.fit.window.n_points}
            record |= finite(self.to_dict(details=True))
        except FitError:
            return identity(c, study, "final_loss").observe(float(self.curve.loss[-1]), record=record, **about)
        return identity(c, study, "time_exponent").observe(self.fit.exponent, record=record, **about)

    def arrays(self) -> dict[str, np.ndarray]:
        """The curve, to be kept under the observation's key."""
        beside = unsuperposed_loss(self.config.task, self.curve.t)
        return {"t": self.curve.t, "loss": self.curve.loss, "own": self.curve.own, "unsuperposed": beside}

    def _inside(self) -> np.ndarray:
        low, high, _ = self.window
        return (self.curve.t >= low * (1 - 1e-9)) & (self.curve.t <= high * (1 + 1e-9))


def identity(config: TeacherConfig, study: str, metric: Literal["final_loss", "time_exponent"]) -> Identity:
    """What a run is asked for: by this its curve and exponent are found again."""
    settings = config.settings()
    return Identity(study=study, source_kind="toy", metric=metric, model="teacher-student", settings=settings)


def _first_below(curve: Curve, level: float) -> float:
    below = np.flatnonzero(curve.loss < level)
    if not len(below):
        raise FitError(
            f"the loss never falls below {level:.3g}: it goes from {curve.first:.3g} to {curve.loss[-1]:.3g}",
            expected="a run that gets there, as the rule of the window asks",
            fix="train longer (--time)",
        )
    return float(curve.t[below[0]])
