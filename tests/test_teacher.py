"""Closed forms of training dynamics, windows by rule, what a run reports, and the command."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_recipes import recipe

import toymodels.teacher.run
from llmprobe.errors import ConfigError, FitError
from llmprobe.observations import ObservationStore
from toymodels.cli import main
from toymodels.teacher.bias_only import record_curve
from toymodels.teacher.curve import Curve
from toymodels.teacher.run import TeacherConfig, TeacherResult, run, run_all, run_missing
from toymodels.teacher.students import STUDENTS
from toymodels.teacher.theory import (
    Task,
    finite_window,
    linear_floor,
    local_exponent,
    record_exponent,
    unsuperposed_exponent,
    unsuperposed_loss,
    unsuperposed_time,
)

KEYS = ["n", "k", "a", "b", "alpha", "alpha_stderr", "alpha_theory", "window", "floor", "seconds"]


def result(t: np.ndarray, loss: np.ndarray, student: str = "small", **changes: float) -> TeacherResult:
    """A run whose curve is given."""
    fields = {"first": float(loss[0]), "zero": 1.0, "rate": 0.5, "dead": 0.0, **changes}
    return TeacherResult(TeacherConfig(student=student), Curve(t, loss, 0.9 * loss, **fields), 1.0, "cpu")


# closed forms


def test_unsuperposed_loss_of_three_features() -> None:
    task = Task(3, 1.0, 1.0, 1.0)
    p = np.array([6, 3, 2]) / 11
    by_hand = 0.5 * sum(p[i] / (i + 1) ** 2 * math.exp(-2 * p[i] * 5) for i in range(3))
    assert unsuperposed_loss(task, 5.0) == pytest.approx(by_hand)
    assert unsuperposed_loss(task, 0.0) == pytest.approx(task.zero_loss)
    assert unsuperposed_time(task, by_hand) == pytest.approx(5.0)
    assert math.isnan(unsuperposed_time(task, 2 * task.zero_loss))
    np.testing.assert_allclose(Task(3, 1.0, 0.0, density=2.0).probabilities, [1, 6 / 11, 4 / 11])


@pytest.mark.parametrize(("a", "b"), [(1.5, 0.5), (1.5, 1.0), (2.0, 0.5), (2.0, 1.0), (1.5, 2.0)])
def test_without_superposition_the_exponent_is_the_theory_s(a: float, b: float) -> None:
    found = run(TeacherConfig(n=256, a=a, b=b, student="none"))
    assert found.fit.exponent == pytest.approx((a + 2 * b - 1) / a, abs=0.03)
    assert found.unsuperposed is not None
    assert found.unsuperposed.exponent == pytest.approx(found.fit.exponent)
    assert found.acceleration == pytest.approx(1, rel=0.05)
    assert found.floor < 1e-3 * found.curve.loss[0]


def test_the_finite_window_opens_with_n() -> None:
    low, high = finite_window(Task(1024, 1.5, 0.5))
    assert low == pytest.approx(finite_window(Task(1024, 1.5, 1.0))[0])
    t = np.geomspace(low, high, 50)
    exact = local_exponent(t, unsuperposed_loss(Task(1024, 1.5, 0.5), t))
    assert np.abs(exact[1:-1] - 1).max() < 0.05
    with pytest.raises(FitError, match=r"N = 256 features at a = 1\.1, b = 0"):
        finite_window(Task(256, 1.1, 0.0))
    assert math.isnan(unsuperposed_exponent(0.5, 0.0))


def test_linear_students_have_a_floor() -> None:
    # the best W^T B W is a projection on K of N directions, whatever the directions
    n, k = 12, 5
    W = np.random.default_rng(0).standard_normal((k, n))
    P = np.linalg.pinv(W) @ W
    assert np.sum((np.eye(n) - P) ** 2) / n == pytest.approx(linear_floor(n, k))
    assert linear_floor(4, 4) == 0


@pytest.mark.parametrize(
    ("overlaps", "a", "n", "tolerance"), [("exponential", 2.0, 2048, 0.12), ("uniform", 2.0, 2048, 0.15)]
)
def test_record_statistics(overlaps: str, a: float, n: int, tolerance: float) -> None:
    curve = record_curve(overlaps, a, n, 256, seed=21, until=1e5)
    inside = (curve.t > 30) & (curve.t < 30000)
    slope = -np.polyfit(np.log(curve.t[inside]), np.log(curve.loss[inside]), 1)[0]
    assert slope == pytest.approx(record_exponent(overlaps, a), abs=tolerance)


# windows and what is said


def test_a_power_law_is_read_back() -> None:
    t = np.geomspace(1, 1200, 80)
    found = result(t, 2 * t**-0.8)
    assert found.fit.exponent == pytest.approx(0.8)
    assert (found.fit.window.lo, found.fit.window.hi) == (30, 1000)
    assert found.self_share == pytest.approx(0.9)
    assert found.reducible is not None
    assert found.warnings == ()
    floored = result(t, 2 * t**-0.8 + 0.01)
    assert floored.floor == pytest.approx(0.01, rel=1e-3)
    assert floored.reducible is not None
    assert floored.reducible.exponent == pytest.approx(0.8, abs=1e-3)


def test_the_decay_rule_goes_from_half_to_a_hundredth() -> None:
    t = np.geomspace(1, 1e4, 200)
    found = result(t, 100 / t, "interference")
    assert found.window[0] == pytest.approx(2, rel=0.06)
    assert found.window[1] == pytest.approx(100, rel=0.06)
    high = result(t, 100 / t + 2, "interference", first=102.0)
    assert high.window[1] == pytest.approx(100 / (3 * 2 - 2), rel=0.06)  # three times the floor comes first
    assert any("zero function" in warning for warning in high.warnings)


@pytest.mark.parametrize(
    ("t", "student", "message"),
    [
        (np.geomspace(1, 100, 50), "small", "the run ends at t = 100"),
        (np.geomspace(1, 1200, 12), "small", "5 points of the curve"),
        (np.geomspace(1, 50, 100), "interference", "the loss never falls below"),
    ],
)
def test_no_exponent_without_a_window(t: np.ndarray, student: str, message: str) -> None:
    with pytest.raises(FitError, match=message):
        _ = result(t, 100 / t, student).fit


def test_dead_relus_and_crooked_windows_are_said() -> None:
    t = np.geomspace(1, 1200, 80)
    found = result(t, np.exp(-t / 300), dead=0.4)
    assert any("40% of the features' own ReLUs" in warning for warning in found.warnings)
    assert any("windows near this one" in warning for warning in found.warnings)


@pytest.mark.parametrize("name", sorted(STUDENTS))
def test_every_student_trains_beside_its_control(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toymodels.teacher.students.TOY_STEPS", 50)
    configs = [TeacherConfig(n=12, k=6, student=name, superposed=s, seed=1, time=1.0) for s in (True, False)]
    one, other = run_all(configs, device="cpu")
    for found in (one, other):
        assert np.isfinite(found.curve.loss).all()
        assert found.curve.loss[-1] < found.curve.first
    assert one.config.dimensions == (6 if STUDENTS[name].superposed else 12)
    assert other.config.dimensions == 12


def test_configs_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="K = 9 dimensions for N = 8"):
        TeacherConfig(n=8, k=9)
    with pytest.raises(ConfigError, match="student 'tiny'"):
        TeacherConfig(student="tiny")
    with pytest.raises(ConfigError, match=r"a = 0\.0; expected more than 0"):
        TeacherConfig(a=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "red"}, "options color of student 'small'"),
        ({"trains": ()}, "a student that trains nothing"),
        ({"rate": 0.0}, "rate = 0"),
        ({"trains": ("B", "c")}, "a bias on features of random amplitude"),
    ],
)
def test_options_that_cannot_be(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TeacherConfig(options=options)


def test_options_change_the_student_and_identify_the_run() -> None:
    plain, linear = TeacherConfig(n=12, k=6), TeacherConfig(n=12, k=6, options={"relu": False, "trains": ("B",)})
    assert linear.settings() == {**plain.settings(), "student.relu": False, "student.trains": "B"}
    assert linear.chosen_student == dataclasses.replace(STUDENTS["linear"], note=STUDENTS["small"].note)
    with pytest.raises(ConfigError, match="the student `none` has no options"):
        TeacherConfig(student="none", options={"relu": False})


def test_an_interference_grid_is_universal() -> None:
    configs = [
        TeacherConfig(n=128, k=64, a=a, b=b, student="interference", seed=3) for a in (1.5, 2.0) for b in (0.5, 1.0)
    ]
    found = np.array([r.fit.exponent for r in run_all(configs)])
    assert found.std() < 0.12
    assert 0.8 < found.mean() < 1.15


def test_a_run_in_the_store_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObservationStore(tmp_path / "observations.jsonl")
    config = TeacherConfig(n=64, k=32, student="interference", seed=4)
    (first,) = run_missing([config], store)
    monkeypatch.setattr(
        "toymodels.teacher.run._trained", lambda configs, **_: [] if not configs else pytest.fail("ran")
    )
    (again,) = run_missing([config], store)
    assert str(again.to_dict(details=True)) == str(first.to_dict(details=True))  # as text, for NaN differs from itself


def test_each_program_is_kept_when_it_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toymodels.teacher.run.NUMBERS", {"cpu": 2 * 64**2})
    store = ObservationStore(tmp_path / "observations.jsonl")
    configs = [TeacherConfig(n=64, k=32, student="interference", seed=seed) for seed in range(5)]
    real, calls = toymodels.teacher.run.learn_biases, []

    def killed(*arguments: Any, **options: Any) -> list[Curve]:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr("toymodels.teacher.run.learn_biases", killed)
    with pytest.raises(KeyboardInterrupt):
        run_missing(configs, store, device="cpu")
    assert len(store.keys()) == 4
    again = run_missing(configs, store, device="cpu")
    assert len(calls) == 4  # one program more, for the fifth run
    assert [r.fit.exponent for r in again] == [r.fit.exponent for r in run_all(configs, device="cpu")]


# the command


def test_the_command_prints_the_contract(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = tmp_path / "observations.jsonl"
    line = "teacher-student --n 64 --k 32 --a 1.5 --b 0.5 --student interference --seed 4 --json"
    assert main([*line.split(), "--store", str(store)]) == 0
    out, err = capsys.readouterr()
    row = json.loads(out)
    assert list(row) == KEYS
    assert (row["n"], row["k"], row["a"], row["b"]) == (64, 32, 1.5, 0.5)
    assert row["alpha_theory"] == pytest.approx(1.0)
    assert "zero function" in err
    (kept,) = ObservationStore(store)
    assert (kept.family, kept.metric, kept.source_kind) == ("teacher-student", "time_exponent", "toy")
    assert kept.value == row["alpha"]
    assert kept.provenance.settings["student"] == "interference"
    arrays = ObservationStore(store).load_arrays(kept.key)
    assert set(arrays) == {"t", "loss", "own", "unsuperposed"}


def test_a_curve_without_an_exponent_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObservationStore(tmp_path / "observations.jsonl")
    config = TeacherConfig(n=64, k=32, student="interference", seed=4, time=1.0)  # far from where its loss has halved
    (first,) = run_missing([config], store)
    (kept,) = store
    assert (kept.metric, kept.value) == ("final_loss", first.curve.loss[-1])
    monkeypatch.setattr("toymodels.teacher.run._trained", lambda configs, **_: iter(()))
    (again,) = run_missing([config], store)
    np.testing.assert_array_equal(again.curve.loss, first.curve.loss)


def test_the_command_takes_options_one_by_one(capsys: pytest.CaptureFixture[str]) -> None:
    line = "teacher-student --n 32 --k 16 --a 1.5 --b 0.5 --trains B c --amplitude 1 --core identity --start 0.3 --json"
    assert main([*line.split(), "--rule", "decay", "--relu"]) == 0
    options = {"trains": ("B", "c"), "amplitude": 1.0, "core": "identity", "start": 0.3, "rule": "decay", "relu": True}
    expected = run(TeacherConfig(n=32, k=16, a=1.5, b=0.5, options=options))
    assert json.loads(capsys.readouterr().out)["alpha"] == expected.fit.exponent


def test_the_command_prints_details_and_errors(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teacher-student", "--student", "none", "--a", "2", "--b", "0.5", "--details", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert list(row)[: len(KEYS)] == KEYS
    assert row["k"] == 256
    assert row["alpha"] == pytest.approx(1, abs=0.03)
    assert {"alpha_unsuperposed", "acceleration", "alpha_spread", "end_over_zero", "warnings"} <= set(row)
    assert main(["teacher-student", "--n", "8", "--k", "9"]) == 2
    assert "K = 9 dimensions for N = 8 features" in capsys.readouterr().err


def test_the_recipe_writes_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = recipe("teacher_student")
    monkeypatch.setattr(module, "NAMED", {"interference": 2})
    monkeypatch.setattr(module, "save", lambda figure, path: Path(path).touch())  # drawing takes longer than all else
    config = module.Config(
        quick=True,
        n=128,
        a=(2.0,),
        b=(0.5, 1.0),
        scan_n=128,
        scan_students=("interference",),
        record_n=128,
        device="cpu",
        threads=1,
        out=tmp_path,
    )
    module.main(config)
    report = (tmp_path / "report.md").read_text()
    for heading in ("universal exponent 1", "ReLUs end shut", "The record law", "Other students", "Three traps"):
        assert heading in report
    assert {figure.name for figure in tmp_path.glob("*.png")} == {"exponents.png", "curves.png", "record_law.png"}
    assert len(ObservationStore(tmp_path / "observations.jsonl").keys()) == 8  # the grid, its control and the scan
