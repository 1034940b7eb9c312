"""Gradients and steps of the teacher–student laboratory against autograd, closed forms and step-by-step twins."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from llmprobe.errors import ConfigError
from toymodels.teacher.bias_only import Outputs, learn_biases, record_curve
from toymodels.teacher.curve import record_steps
from toymodels.teacher.descent import Descent, descend, stable_rate
from toymodels.teacher.population import Population
from toymodels.teacher.sampled import Rows, Samples
from toymodels.teacher.students import EMBEDDINGS, STUDENTS, Student, start
from toymodels.teacher.theory import Task, unsuperposed_loss

TASKS = (Task(10, 1.5, 0.5), Task(10, 1.1, 1.0))


def drawn(student: Student, k: int = 6) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """W, B, c at random, float64, two runs of ten features."""
    generator = torch.Generator().manual_seed(7)
    k = 10 if student.embedding == "identity" else k
    W, B, c = (torch.randn(2, *shape, generator=generator, dtype=torch.float64) for shape in ((k, 10), (k, k), (10,)))
    return (None if student.embedding == "identity" else W), B, 0.3 * c


ROWS = [
    Student(trains=("W", "B", "c"), amplitude=1.0),
    Student(trains=("W", "B", "c"), amplitude=1.0, relu=False),
    Student(trains=("B",)),
    Student(embedding="identity", trains=("B", "c"), amplitude=1.0, superposed=False),
]


@pytest.mark.parametrize("student", ROWS)
def test_population_gradients_equal_autograd(student: Student) -> None:
    W, B, c = drawn(student)
    model = Population(student, TASKS, (0, 1), W, B.clone())
    if "c" in student.trains:
        model.params["c"] = c
    model.forward()
    losses = [model.loss(run)[0] for run in range(2)]
    found = model.gradients()
    params = {name: model.params[name].clone().requires_grad_() for name in student.trains}
    total = torch.zeros((), dtype=torch.float64)
    for run, task in enumerate(TASKS):
        V = torch.eye(10, dtype=torch.float64) if W is None else params.get("W", W)[run]
        Z = V.T @ params["B"][run] @ V
        if "c" in params:
            Z = Z + params["c"][run][:, None]
        Y = torch.relu(Z) if student.relu else Z
        residual = Y - torch.diag(torch.from_numpy(task.teacher))
        loss = 0.5 * (torch.from_numpy(task.weights) * residual.square().sum(0)).sum()
        assert losses[run] == pytest.approx(float(loss.detach()), rel=1e-12)
        total = total + loss
    total.backward()
    assert set(found) == set(student.trains)
    for name, tensor in params.items():
        assert tensor.grad is not None
        torch.testing.assert_close(found[name], tensor.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("student", ROWS)
def test_batch_gradients_equal_autograd(student: Student) -> None:
    student = dataclasses.replace(student, batch=8)
    W, B, c = drawn(student)
    model = Samples(student, TASKS, (0, 1), W, B.clone())
    if "c" in student.trains:
        model.params["c"] = c
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 5, 10, generator=generator, dtype=torch.float64)
    x *= torch.rand(2, 5, 10, generator=generator) < 0.3
    x[0, 4] = 0  # padding: this run's batch has one occupied row less, and one empty row more
    used = torch.ones(2, 5, dtype=torch.float64)
    used[0, 4] = 0
    model.rows = model.held = Rows(x, used, torch.tensor([4, 3], dtype=torch.float64))
    found = model.gradients()
    params = {name: model.params[name].clone().requires_grad_() for name in student.trains}
    total = torch.zeros((), dtype=torch.float64)
    for run, task in enumerate(TASKS):
        V = torch.eye(10, dtype=torch.float64) if W is None else params.get("W", W)[run]
        full = torch.cat([x[run, : 4 + run], torch.zeros(4 - run, 10, dtype=torch.float64)])
        z = full @ (V.T @ params["B"][run] @ V).T
        if "c" in params:
            z = z + params["c"][run]
        y = torch.relu(z) if student.relu else z
        loss = 0.5 * (y - full * torch.from_numpy(task.teacher)).square().sum(1).mean()
        assert model.loss(run)[0] == pytest.approx(float(loss.detach()), rel=1e-12)
        total = total + loss
    total.backward()
    for name, tensor in params.items():
        assert tensor.grad is not None
        torch.testing.assert_close(found[name], tensor.grad, rtol=1e-10, atol=1e-12)


def test_descent_without_superposition_is_the_closed_form() -> None:
    student = Student(
        embedding="identity", trains=("B",), relu=False, start=0.0, superposed=False, rate=0.02, time=300.0
    )
    tasks = [Task(32, 1.5, 0.5), Task(32, 2.0, 0.0)]
    for task, curve in zip(tasks, descend(student, tasks, [32, 32], [0, 0], dtype=torch.float64), strict=True):
        assert curve.first == pytest.approx(task.zero_loss)
        np.testing.assert_allclose(curve.loss, unsuperposed_loss(task, curve.t), rtol=0.01)
        np.testing.assert_allclose(curve.own, curve.loss, rtol=1e-9)


def test_a_rotated_basis_changes_nothing_for_gradient_descent() -> None:
    student = dataclasses.replace(STUDENTS["rotated"], start=0.0, rate=0.01, time=100.0)
    task = Task(24, 1.5, 1.0)
    (curve,) = descend(student, [task], [24], [3], dtype=torch.float64)
    np.testing.assert_allclose(curve.loss, unsuperposed_loss(task, curve.t), rtol=0.01)


@pytest.mark.parametrize("name", ["small", "small-bias", "random", "adam"])
def test_runs_side_by_side_equal_runs_alone(name: str) -> None:
    student = dataclasses.replace(STUDENTS[name], time=0.5 if name == "adam" else 60.0)
    tasks = [Task(16, a, 0.5) for a in (1.1, 2.0)]  # of different rates, so that one ends earlier
    together = descend(student, tasks, [8, 5], [1, 2], dtype=torch.float64)  # and of different K
    assert (together[0].rate != together[1].rate) == (name != "adam")
    for task, k, seed, curve in zip(tasks, (8, 5), (1, 2), together, strict=True):
        (alone,) = descend(student, [task], [k], [seed], dtype=torch.float64)
        np.testing.assert_allclose(curve.loss, alone.loss, rtol=1e-9)
        np.testing.assert_array_equal(curve.t, alone.t)
        assert curve.dead == alone.dead


def test_sampled_descent_agrees_with_the_population() -> None:
    # the population twin of many rare features at a time: the moments of the inputs, here by brute force
    student = Student(trains=("B",), relu=False, data="sampled", density=1.0, start=0.0, rate=0.1, time=30.0, batch=256)
    task = student.task(12, 1.2, 0.5)
    seeds = [0, 1, 2, 3, 0]
    curves = descend(student, [task] * 5, [8] * 5, seeds, dtype=torch.float64)
    assert curves[0].loss[-1] == curves[4].loss[-1]  # a seed decides everything
    moments, _ = Samples.moments(task)
    A = torch.diag(torch.from_numpy(task.teacher))
    for seed, curve in zip(seeds, curves, strict=True):
        W, B = start(student, 12, 8, seed)
        rate = stable_rate(student, W, task)
        for _ in range(round(30 / rate)):
            B = B - rate * W @ (W.T @ B @ W - A) @ moments @ W.T
        rest = W.T @ B @ W - A
        expected = 0.5 * float((rest @ moments).mul(rest).sum())
        assert curve.loss[-1] == pytest.approx(expected, rel=0.15)
        assert curve.zero == pytest.approx(curve.first, rel=0.1)  # one on the held-out batch, one on the population
    ratio = [c.loss[-1] / c.first for c in curves]
    assert np.std(ratio) < 0.1


def test_biases_by_leaps_equal_biases_step_by_step() -> None:
    student, task = STUDENTS["interference"], Task(40, 1.5, 0.5, 1.0)
    W, B = start(student, 40, 20, 3)
    Z, p = W.T @ B @ W, torch.from_numpy(task.probabilities)
    teacher = torch.from_numpy(task.teacher)
    leaps, c = Outputs(Z, p, teacher, 0.7), torch.zeros(40, dtype=torch.float64)
    for step in range(1, 401):
        open_ = Z + c[:, None] > 0
        c = c - 0.7 * (((Z + c[:, None]).clamp(min=0) - torch.diag(teacher)) * open_) @ p
        if step in (1, 5, 50, 400):
            leaps.advance({1: 1, 5: 4, 50: 45, 400: 350}[step])
            torch.testing.assert_close(leaps.c, c, rtol=0, atol=1e-12)
            residual = (Z + c[:, None]).clamp(min=0) - torch.diag(teacher)
            total, own = leaps.loss()
            assert total == pytest.approx(0.5 * float((residual.square() @ p).sum()), rel=1e-9)
            assert own == pytest.approx(0.5 * float((residual.diagonal().square() * p).sum()), rel=1e-9)


def test_bias_only_students_are_the_population_run() -> None:
    student = dataclasses.replace(STUDENTS["interference"], time=100.0)
    task = student.task(24, 1.5, 1.0)
    (fast,) = learn_biases(student, [task], [12], [5])
    W, B = start(student, 24, 12, 5)
    model = Population(student, [task], [5], W[None], B[None])
    descent, step, kept = Descent(student, [student.rate], B), 0, {}
    for step in range(int(record_steps(student.rate, 100.0)[-1]) + 1):
        kept[step] = model.loss(0)
        descent.step(model.params, model.gradients())
        model.forward()
    steps = np.rint(fast.t / student.rate).astype(int)
    np.testing.assert_allclose(fast.loss, [kept[s][0] for s in steps], rtol=1e-9)
    np.testing.assert_allclose(fast.own, [kept[s][1] for s in steps], rtol=1e-9)


def test_a_hundred_thousand_steps_of_one_output() -> None:
    curve = record_curve("exponential", 2.0, 64, 8, seed=2, until=1e5)
    assert abs(curve.t[-1] - 1e5) <= curve.rate / 2
    assert (np.diff(curve.loss) <= 0).all()
    assert curve.own.max() == 0


@pytest.mark.parametrize("name", ["random", "frame", "rotation", "identity", "trained"])
def test_embeddings_have_unit_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toymodels.teacher.students.TOY_STEPS", 100)
    k = 12 if name in ("rotation", "identity") else 6
    W = EMBEDDINGS[name](k, 12, torch.Generator().manual_seed(1), 1)
    assert W.shape == (k, 12)
    torch.testing.assert_close(W.norm(dim=0), torch.ones(12, dtype=torch.float64))
    if name == "frame":
        torch.testing.assert_close(W @ W.T, 2 * torch.eye(6, dtype=torch.float64), atol=1e-6, rtol=0)
    if name == "rotation":
        torch.testing.assert_close(W @ W.T, torch.eye(12, dtype=torch.float64))


def test_adam_is_torch_s() -> None:
    student = Student(optimizer="adam")
    ours = torch.randn(1, 4, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    theirs = ours[0].clone().requires_grad_()
    reference, descent = torch.optim.Adam([theirs], lr=0.01), Descent(student, [0.01], ours)
    for _ in range(20):
        reference.zero_grad()
        theirs.pow(4).sum().backward()
        reference.step()
        descent.step({"B": ours}, {"B": 4 * ours**3})
    torch.testing.assert_close(ours[0], theirs.detach(), rtol=1e-9, atol=1e-12)


def test_a_step_too_large_is_said() -> None:
    student = Student(trains=("B",), relu=False, rate=20.0, time=20000.0)
    with pytest.raises(ConfigError, match="diverged"):
        descend(student, [Task(12, 1.5, 0.0)], [6], [0])
    sampled = dataclasses.replace(STUDENTS["random"], rate=50.0, relu=False)
    with pytest.raises(ConfigError, match="diverged"):
        descend(sampled, [sampled.task(12, 1.5, 0.0)], [6], [0])
    with pytest.raises(ConfigError, match="rate 1\\.5"):
        Outputs(torch.randn(3, 3), torch.full((3,), 1 / 3), None, 1.5)


def test_dead_relus_are_said() -> None:
    student = Student(embedding="identity", trains=("B",), start=-1.0, superposed=False)
    model_start = start(student, 1, 1, 0)[1]
    closed = dataclasses.replace(student, start=-1.0 if float(model_start) < 0 else 1.0)
    assert math.isfinite(float(model_start))
    with pytest.raises(ConfigError, match="every ReLU is shut"):
        descend(closed, [Task(1, 1.5, 0.0)], [1], [0])


def test_more_dimensions_than_features() -> None:
    with pytest.raises(ConfigError, match="K = 9 dimensions for N = 8"):
        start(STUDENTS["small"], 8, 9, 0)


@pytest.mark.parametrize("name", ["identity", "rotation"])
def test_embeddings_with_a_dimension_per_feature(name: str) -> None:
    with pytest.raises(ConfigError, match="K = 6 dimensions for N = 8 features; expected K = N"):
        start(Student(embedding=name), 8, 6, 0)
    assert start(Student(embedding=name), 8, 8, 0)[0].shape == (8, 8)


def test_steps_are_log_spaced() -> None:
    steps = record_steps(0.5, 500.0)
    assert steps[0] == 1
    assert steps[-1] == 1000
    ratio = steps[-10:] / steps[-11:-1]
    assert ratio == pytest.approx(np.full(10, 10 ** (1 / 24)), rel=0.01)
