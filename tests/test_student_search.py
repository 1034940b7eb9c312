"""The search over students: its rule on planted curves, and a small search from end to end."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from test_recipes import recipe

from llmprobe.observations import ObservationStore
from toymodels.teacher.curve import Curve
from toymodels.teacher.run import TeacherConfig, TeacherResult
from toymodels.teacher.theory import unsuperposed_loss

T = np.geomspace(1, 1000, 73)
CHOICE = {"embedding": "random", "trains": ("B",), "start": "tiny", "share": 2}


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The recipe with two tasks in place of nine."""
    found = recipe("student_search")
    monkeypatch.setattr(found, "TASKS", ((1.5, 0.5), (2.0, 1.0)))
    return found


def planted(module: ModuleType, exponent: float, *, own: float = 0.9, superposed: bool = True) -> list[TeacherResult]:
    """Runs of L ∝ t^−exponent from the zero function's loss, or of the theory without superposition."""
    found = []
    for a, b in module.TASKS:
        config = TeacherConfig(256, 128, a, b, "small", superposed)
        zero = config.task.zero_loss
        loss = zero * T**-exponent if superposed else unsuperposed_loss(config.task, T)
        found.append(TeacherResult(config, Curve(T, loss, own * loss, zero, zero, 0.5, 0.0), 0.0, "cpu"))
    return found


def test_the_rule_knows_a_universal_learner(module: ModuleType) -> None:
    controls = planted(module, 0, superposed=False)
    learner = module.Found(CHOICE, planted(module, 1.05), controls)
    assert learner.passes
    assert learner.worst == pytest.approx(0.05)
    assert learner.control_error == pytest.approx(0, abs=1e-9)
    assert not module.Found(CHOICE, planted(module, 1.2), controls).passes  # not 1
    assert not module.Found(CHOICE, planted(module, 1.05, own=0.3), controls).passes  # unlearns interference
    assert not module.Found(CHOICE, planted(module, 1.05), planted(module, 1.05)).passes  # nor does its control differ
    mixed = [planted(module, 1.0)[0], planted(module, 0.6)[1]]
    assert module.Found(CHOICE, mixed, controls).worst == pytest.approx(0.4)


def test_a_small_search(module: ModuleType, tmp_path, monkeypatch, capsys) -> None:
    choices = {"embedding": ("random",), "trains": (("B",), ("W", "B", "c")), "start": ("tiny",), "share": (2,)}
    monkeypatch.setattr(module, "CHOICES", choices)
    config = module.Config(n=16, out=tmp_path)
    found = module.main(config)
    assert [len(one.runs) for one in found] == [2, 2]
    assert "of 2 students" in capsys.readouterr().out
    assert (tmp_path / "search.png").stat().st_size > 10_000
    kept = len(ObservationStore(tmp_path / "observations.jsonl").keys())
    again = module.main(config)
    assert [one.exponents for one in again] == [one.exponents for one in found]
    assert len(ObservationStore(tmp_path / "observations.jsonl").keys()) == kept
