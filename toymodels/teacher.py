"""Teacher–student training dynamics: how fast the loss falls in time, with superposition and without.

A run gives a curve; its exponent is read by the common fit on a stretch that a stated rule chooses before the fit is
seen, and comes with the exponents of stretches near it, with the exponent of the student without superposition on the
same stretch, and with what the zero function would lose. Runs of one student, N and K share a tensor program.

Source: arXiv:2602.01045.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from llmprobe.errors import ConfigError, FitError
from llmprobe.fit import fit
from llmprobe.laws import PowerLawSum
from llmprobe.observations import Observation, Provenance, Scalar
from llmprobe.window import WindowFit, fit_window
from toymodels.biases import learn_biases
from toymodels.dynamics_theory import (
    Task,
    finite_window,
    unsuperposed_exponent,
    unsuperposed_loss,
    unsuperposed_time,
)
from toymodels.population import PER_DECADE, Curve, descend
from toymodels.sampled import descend_on_samples
from toymodels.students import Student, student
from toymodels.training import choose_device

FIXED = (30.0, 1000.0)
MIN_POINTS = 10
MANY_DEAD = 0.1
NUMBERS = 1 << 26  # elements of the largest arrays of a tensor program; more runs go one program after another


@dataclass(frozen=True)
class TeacherConfig:
    """One run.

    Attributes
    ----------
    n, k
        Features N and dimensions K ≤ N.
    a, b
        p_i ∝ i^(−a); the teacher is diag(i^(−b)).
    student
        A row of `toymodels.students.STUDENTS`, or ``none``: K = N, W = 1, linear, from zero, in closed form.
    superposed
        False for the control: the same student and start with K = N and W = 1.
    seed
        Of W, B and the data.
    time
        Last t = rate · steps; the student's own when left out.
    """

    n: int = 256
    k: int = 128
    a: float = 1.5
    b: float = 1.0
    student: str = "small"
    superposed: bool = True
    seed: int = 0
    time: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise ConfigError(
                f"K = {self.k} dimensions for N = {self.n} features",
                expected="1 ≤ K ≤ N: with more dimensions than features there is nothing to superpose",
                fix="lower --k or raise --n",
            )
        if not (self.a > 0 and self.b >= 0 and (self.time is None or self.time > 0)):
            raise ConfigError(f"a = {self.a:g}, b = {self.b:g}, time = {self.time}", expected="a > 0, b ≥ 0, time > 0")
        if self.student != "none":
            student(self.student)

    @property
    def row(self) -> Student | None:
        """The student, or its control; None without superposition."""
        if self.student == "none":
            return None
        row = student(self.student)
        return row if self.superposed else row.control()

    @property
    def task(self) -> Task:
        """What is to be learned."""
        return Task(self.n, self.a, self.b) if self.row is None else self.row.task(self.n, self.a, self.b)

    @property
    def dimensions(self) -> int:
        """K, or N where the student has a dimension per feature."""
        return self.k if self.row is not None and self.row.superposed else self.n

    def settings(self) -> dict[str, Scalar]:
        """What identifies a run beside N and K."""
        return {name: value for name, value in asdict(self).items() if name not in ("n", "k")}


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
        rule = "finite" if self.config.row is None else self.config.row.rule
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
        row = self.config.row
        return RULES["finite" if row is None else row.rule](self.config, self.curve, self.floor)

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
    def own_share(self) -> float:
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
            "own_share": self.own_share,
            "dead": self.curve.dead,
            "rate": self.curve.rate,
            "warnings": list(self.warnings),
        }

    def observation(self, study: str = "teacher_student") -> Observation:
        """The exponent as a row of the store; the curve belongs beside it, see `arrays`."""
        c = self.config
        beside = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in self.to_dict(details=True).items()
        }
        return Observation(
            study=study,
            source_kind="toy",
            family="teacher-student",
            model="teacher-student",
            metric="time_exponent",
            value=self.fit.exponent,
            stderr=self.fit.stderr if math.isfinite(self.fit.stderr) else None,
            m=c.dimensions,
            n=c.n,
            n_samples=self.fit.window.n_points,
            provenance=Provenance.here(c.settings(), **beside, device=self.device, first_loss=self.curve.first),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """The curve, to be kept under the observation's key."""
        beside = unsuperposed_loss(self.config.task, self.curve.t)
        return {"t": self.curve.t, "loss": self.curve.loss, "own": self.curve.own, "unsuperposed": beside}

    def _inside(self) -> np.ndarray:
        low, high, _ = self.window
        return (self.curve.t >= low * (1 - 1e-9)) & (self.curve.t <= high * (1 + 1e-9))


def run(config: TeacherConfig, **options: Any) -> TeacherResult:
    """Train one student; options as for `run_all`."""
    return run_all([config], **options)[0]


def run_all(
    configs: Sequence[TeacherConfig],
    *,
    device: str = "auto",
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
) -> list[TeacherResult]:
    """Train students; those alike in student, N, K and time share a tensor program.

    Parameters
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    threads
        Cores for the products on a CPU.
    dtype
        Of the parameters; losses are summed in float64 either way, and bias-only students are float64 throughout.

    Raises
    ------
    ConfigError
        A run diverged or has nothing to learn by.
    """
    place = choose_device(device)
    if place.type == "mps":
        place = torch.device("cpu")  # losses are summed in float64, which MPS has not
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, c in enumerate(configs):
        groups.setdefault((c.student, c.superposed, c.n, c.k, c.time), []).append(index)
    found: dict[int, TeacherResult] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for members in groups.values():
            size = max(1, NUMBERS // configs[members[0]].n ** 2)
            for first in range(0, len(members), size):
                part = members[first : first + size]
                began = time.perf_counter()
                curves = _curves([configs[index] for index in part], place, dtype)
                seconds = (time.perf_counter() - began) / len(part)
                for index, curve in zip(part, curves, strict=True):
                    found[index] = TeacherResult(configs[index], curve, seconds, str(place))
    finally:
        torch.set_num_threads(before)
    return [found[index] for index in range(len(configs))]


def _curves(configs: Sequence[TeacherConfig], device: torch.device, dtype: torch.dtype) -> list[Curve]:
    """Curves of runs that are alike in student, N, K and time."""
    row, c = configs[0].row, configs[0]
    tasks, seeds = [config.task for config in configs], [config.seed for config in configs]
    if row is None:
        return [closed_form(task, c.time) for task in tasks]
    if row.bias_only:
        return learn_biases(row, tasks, c.k, seeds, until=c.time, device=device)
    train = descend if row.data == "population" else descend_on_samples
    return train(row, tasks, c.k, seeds, until=c.time, device=device, dtype=dtype)


def closed_form(task: Task, until: float | None = None) -> Curve:
    """The curve without superposition, from 0.1 to `until` (or until the last feature is learned)."""
    until = until or 10 / float(task.weights[-1])
    t = np.geomspace(0.1, until, math.ceil(math.log10(until / 0.1) * PER_DECADE) + 1)
    loss = unsuperposed_loss(task, t)
    keep = loss > 1e-300
    return Curve(t[keep], loss[keep], loss[keep], task.zero_loss, task.zero_loss, 0.0, 0.0)


def _first_below(curve: Curve, level: float) -> float:
    below = np.flatnonzero(curve.loss < level)
    if not len(below):
        raise FitError(
            f"the loss never falls below {level:.3g}: it goes from {curve.first:.3g} to {curve.loss[-1]:.3g}",
            expected="a run that gets there, as the rule of the window asks",
            fix="train longer (--time)",
        )
    return float(curve.t[below[0]])
