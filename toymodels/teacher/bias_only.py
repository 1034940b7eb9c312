"""Students of which only the bias learns: exact gradient descent by leaps, at the cost of what changes.

With Z fixed, output j depends on nothing but its own bias c_j, and on the set of features that open it, which are
those of largest Z_ji: a prefix of the sorted row. While that set stays, a step c ← c − η (S0 c + S1 − own) is linear,
so n steps are one: c − c* shrinks by (1 − η S0)^n. The steps are those of gradient descent, not an approximation, and
a hundred thousand cost little more than the number of openings and closings.

Source: arXiv:2602.01045 for the model; the leaps are worked out here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from llmprobe.errors import ConfigError
from toymodels.seeds import stream
from toymodels.teacher.curve import Curve, Recorder
from toymodels.teacher.students import Student, start
from toymodels.teacher.theory import RECORD_LAWS, Task


class Outputs:
    """J outputs ReLU(Z_ji + c_j) on features that come one at a time with v = 1, float64.

    Parameters
    ----------
    Z
        Overlaps of output j with feature i, shape [J, N].
    p
        Probabilities of the features, shape [N].
    teacher
        What feature j asks of output j, shape [J]; None for nothing at all (pure interference).
    rate
        η, at most 1/Σp so that a bias never overshoots.
    """

    def __init__(self, Z: Tensor, p: Tensor, teacher: Tensor | None, rate: float) -> None:
        if not 0 < rate * float(p.sum()) <= 1:
            raise ConfigError(
                f"rate {rate:g} for biases under features of total probability {float(p.sum()):.3g}",
                expected="at most the inverse of that probability",
                fix="lower the rate of the student",
            )
        self.rate, self.teacher = rate, teacher
        self.z, order = Z.double().sort(dim=1, descending=True)
        weights = p.double()[order]
        zero = self.z.new_zeros(len(Z), 1)
        self.sums = [torch.cat([zero, (weights * self.z**power).cumsum(1)], 1) for power in (0, 1, 2)]
        self.levels = -self.z  # ascending: feature k of the sorted row is open where c exceeds levels[k]
        self.c = self.z.new_zeros(len(Z))
        self.own, self.own_level, self.own_p = None, None, None
        if teacher is not None:
            self.own_level = -Z.double().diagonal()
            self.own_p = p.double()[: len(Z)]

    def open(self) -> Int[Tensor, " j"]:
        """How many features open each output."""
        return torch.searchsorted(self.levels, self.c[:, None])[:, 0]

    def loss(self) -> tuple[float, float]:
        """Loss summed over outputs, and the part that features cause in their own outputs."""
        s0, s1, s2 = (sums.gather(1, self.open()[:, None])[:, 0] for sums in self.sums)
        total = 0.5 * float((s2 + 2 * self.c * s1 + self.c**2 * s0).clamp(min=0).sum())
        if self.teacher is None or self.own_level is None or self.own_p is None:
            return total, 0.0
        response = (self.c - self.own_level).clamp(min=0)
        own = 0.5 * float((self.own_p * (response - self.teacher).square()).sum())
        return total - 0.5 * float((self.own_p * response.square()).sum()) + own, own

    def advance(self, steps: int) -> None:
        """Take steps of gradient descent."""
        left = torch.full_like(self.c, steps)
        while bool((left > 0).any()):
            k = self.open()[:, None]
            s0, s1, _ = (sums.gather(1, k)[:, 0] for sums in self.sums)
            pull = torch.zeros_like(self.c)
            lower = self.levels.gather(1, (k - 1).clamp(min=0))[:, 0].masked_fill(k[:, 0] == 0, -torch.inf)
            last = self.levels.shape[1] - 1
            upper = self.levels.gather(1, k.clamp(max=last))[:, 0].masked_fill(k[:, 0] > last, torch.inf)
            if self.teacher is not None and self.own_level is not None and self.own_p is not None:
                pull = self.own_p * self.teacher * (self.c > self.own_level)
            rest = (pull - s1) / s0  # where the bias would settle if no feature opened or closed
            gap = self.c - rest
            shrink = 1 - self.rate * s0
            bound = torch.where(gap > 0, lower, upper)
            share = (bound - rest) / gap  # of the gap that is left where a feature opens or closes
            bounded = (share > 0) & (share <= 1)  # a bias at rest, or moving away from all levels, meets none
            leap = torch.where(bounded, share.log() / shrink.log(), torch.inf).floor()
            leap = leap.nan_to_num(nan=torch.inf, posinf=torch.inf).clamp(min=1).minimum(left)
            moved = rest + gap * shrink**leap
            idle = (left <= 0) | (s0 == 0)
            self.c = torch.where(idle, self.c, moved)
            left = torch.where(idle, torch.zeros_like(left), left - leap)


def learn_biases(
    student: Student,
    tasks: Sequence[Task],
    ks: Sequence[int],
    seeds: Sequence[int],
    *,
    until: float | None = None,
    device: torch.device | str = "cpu",
) -> list[Curve]:
    """Curves of a student that trains nothing but c; see `toymodels.teacher.descent.descend`."""
    curves = []
    for task, k, seed in zip(tasks, ks, seeds, strict=True):
        W, B = start(student, task.n, k, seed)
        W, B = W.to(device), B.to(device)
        p, teacher = (torch.from_numpy(column).to(device) for column in (task.probabilities, task.teacher))
        curves.append(_curve(Outputs(W.T @ B @ W, p, teacher, student.rate), until or student.time, task.zero_loss))
    return curves


def record_curve(
    overlaps: str, a: float, n: int, outputs: int, seed: int, *, rate: float = 0.7, until: float = 1e6
) -> Curve:
    """Loss of outputs with independent random overlaps and nothing to learn: the record law by itself.

    Parameters
    ----------
    overlaps
        ``exponential``, ``gaussian`` or ``uniform`` (on 0 to 1).
    n, outputs
        Features, outputs.
    """
    if overlaps not in RECORD_LAWS:
        raise ConfigError(f"overlaps {overlaps!r}", expected=f"one of {', '.join(RECORD_LAWS)}")
    generator = torch.Generator().manual_seed(stream(seed, f"overlaps {overlaps}"))
    u = torch.rand(outputs, n, generator=generator, dtype=torch.float64)
    draw = {
        "exponential": lambda: -torch.log1p(-u),
        "gaussian": lambda: torch.special.ndtri(u.clamp(min=1e-300)),
        "uniform": lambda: u,
    }
    p = torch.from_numpy(Task(n, a, 0.0, 1.0).probabilities)
    return _curve(Outputs(draw[overlaps](), p, None, rate), until, 0.0)


def _curve(outputs: Outputs, until: float, zero: float) -> Curve:
    record = Recorder([outputs.rate], until)
    record.keep(0, 0, *outputs.loss())
    before = 0
    for step in record.steps[0].tolist():
        outputs.advance(step - before)
        record.keep(step, 0, *outputs.loss())
        before = step
    dead = 0.0
    if outputs.own_level is not None:
        dead = float((outputs.c <= outputs.own_level).double().mean())
    return record.curve(0, zero, dead)
