"""The softmax toy: gradients against autograd, exponents where there are any, closed forms against numerics."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import expit

from llmprobe.errors import ConfigError
from llmprobe.observations import ObservationStore
from toymodels import cli
from toymodels.softmax import SoftmaxConfig, SoftmaxResult, run_all, run_missing
from toymodels.softmax.theory import (
    Boundary,
    aligned_curve,
    margin_exponent,
    single_target_loss,
    top_two_density,
    two_token_boundary,
)
from toymodels.softmax.training import OPTIMIZERS, Task

CPU = torch.device("cpu")


def test_gradient_is_autograds() -> None:
    temperatures = [0.1, 1.0, 0.1]
    task = Task(SoftmaxConfig(vocabulary=7, width=3), temperatures, CPU)
    W = torch.randn(3, 7, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    x = task.inputs(50)
    assert x.square().mean(dim=1).numpy() == pytest.approx(np.ones(50), abs=1e-5)
    total = torch.zeros(())
    for w, t in zip(W, temperatures, strict=True):
        p = torch.softmax(x @ task.teacher.T / t, dim=1)
        total = total + torch.nn.functional.kl_div(torch.log_softmax(x @ w.T, dim=1), p, reduction="batchmean")
    total.backward()
    assert W.grad is not None
    assert task.gradient(W.detach(), x).numpy() == pytest.approx(W.grad.numpy(), abs=1e-6)


@pytest.mark.parametrize(("name", "theirs"), [("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)])
def test_optimizers_are_torchs(name: str, theirs: type[torch.optim.Optimizer]) -> None:
    generator = torch.Generator().manual_seed(0)
    ours, other = torch.zeros(2, 3), torch.zeros(2, 3, requires_grad=True)
    optimizer, step = theirs([other], lr=0.1), OPTIMIZERS[name](ours)  # type: ignore[call-arg]
    for _ in range(30):
        other.grad = torch.randn(2, 3, generator=generator)
        optimizer.step()
        step(ours, other.grad, torch.tensor(0.1))
    assert ours.numpy() == pytest.approx(other.detach().numpy(), abs=1e-6)


@cache
def _trained() -> dict[tuple[str, float], SoftmaxResult]:
    grid = [SoftmaxConfig(temperature=t, steps=1000) for t in (0.001, 0.1, 1.0)]
    grid += [SoftmaxConfig(temperature=t, steps=1000, optimizer="sgd", rate=30.0) for t in (0.0003, 0.1, 1.0)]
    return {(r.config.optimizer, r.config.temperature): r for r in run_all(grid)}


def test_peaked_targets_give_a_third() -> None:
    adam, sgd = _trained()["adam", 0.001], _trained()["sgd", 0.0003]
    assert adam.fit is not None
    assert 0.28 < adam.fit.exponent < 0.37
    assert adam.fit.stderr < 0.02
    assert adam.fit.window.hi / adam.fit.window.lo >= 10
    assert sgd.fit is not None
    assert 0.33 < sgd.fit.exponent < 0.42  # from above: the boundaries are not narrow yet


def test_soft_targets_give_no_power_law() -> None:
    for key, result in _trained().items():
        if key[1] >= 0.1:
            row = result.to_dict()
            assert row["alpha"] is None
            assert row["alpha_stderr"] is None
            assert row["window"] is None
            assert row["warnings"][0].startswith("no power law: ")
            assert len(result.observations()) == 1


def _result(loss: np.ndarray, steps: np.ndarray) -> SoftmaxResult:
    return SoftmaxResult(SoftmaxConfig(rate=1.0, steps=100_000), steps, loss, 4.0, 0.0, "cpu")


def test_the_rule_on_curves_that_are_known() -> None:
    steps = np.unique(np.geomspace(1, 1e5, 60).astype(int))
    noise = np.exp(0.01 * np.random.default_rng(0).standard_normal(len(steps)))
    law = _result(2 * steps ** (-1 / 3) * noise, steps)
    assert law.fit is not None
    assert abs(law.fit.exponent - 1 / 3) < 3 * law.fit.stderr
    for loss in (3 * np.exp(-steps / 3e3) + 1e-30, np.full(len(steps), 0.1) * noise, 3.9 * noise):
        assert _result(loss, steps).fit is None
    floor = np.maximum(4 * np.exp(-steps / 30), 1e-3) * noise
    assert _result(floor, steps).fit is None


def test_runs_do_not_depend_on_their_company_and_are_kept(tmp_path: Path) -> None:
    grid = [
        SoftmaxConfig(temperature=t, steps=40, seed=s, rate=r) for s in (0, 1) for t in (0.01, 1.0) for r in (0.1, 1.0)
    ]
    store = ObservationStore(tmp_path / "o.jsonl")
    together = run_missing(grid, store, device="cpu")
    before = len(store.keys())
    assert [r.seconds for r in run_missing(grid, store, device="cpu")] == [r.seconds for r in together]
    assert len(store.keys()) == before
    for config, result in zip(grid, together, strict=True):
        (alone,) = run_all([config], device="cpu")
        assert result.loss == pytest.approx(alone.loss, rel=1e-4)


def test_a_scheduled_rate_is_counted_in_tau() -> None:
    constant = SoftmaxConfig(steps=400, optimizer="sgd", rate=3.0)
    cosine = SoftmaxConfig(steps=800, optimizer="sgd", rate=3.0, warmup=80, final_rate=0.1)
    a, b = run_all([constant, cosine])
    assert b.tau[-1] < 800 * 3.0
    tau = np.geomspace(30, min(a.tau[-1], b.tau[-1]), 10)
    one, other = (np.exp(np.interp(np.log(tau), np.log(r.tau), np.log(r.loss))) for r in (a, b))
    assert one == pytest.approx(other, rel=0.03)  # gradient flow knows τ alone


def test_divergence_and_a_long_warmup_are_named() -> None:
    with pytest.raises(ConfigError, match="diverged"):
        run_all([SoftmaxConfig(optimizer="sgd", rate=1e60, steps=20)])
    with pytest.raises(ConfigError, match="warm-up"):
        SoftmaxConfig(warmup=10, steps=10)


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    line = f"softmax --vocabulary 16 --width 4 --steps 60 --optimizer sgd --rate 1 --json --store {tmp_path}/o.jsonl"
    assert cli.main(line.split()) == 0
    row = json.loads(capsys.readouterr().out)
    names = "vocabulary width temperature rate optimizer steps seed alpha alpha_stderr window warnings seconds"
    assert list(row) == names.split()


# closed forms


@pytest.mark.parametrize("vocabulary", [2, 128])
def test_one_peaked_target(vocabulary: int) -> None:
    def flow(_: float, z: np.ndarray) -> np.ndarray:
        p = np.exp(z - z.max())
        return np.eye(vocabulary)[0] - p / p.sum()

    tau = np.array([0.1, 1.0, 10.0, 1e3])
    z = solve_ivp(flow, (0, tau[-1]), np.zeros(vocabulary), t_eval=tau, rtol=1e-9, atol=1e-12).y
    loss = np.log(np.exp(z - z[0]).sum(axis=0))
    assert single_target_loss(vocabulary, tau) == pytest.approx(loss, rel=1e-5)
    assert single_target_loss(vocabulary, 0.0) == pytest.approx(np.log(vocabulary))
    late = single_target_loss(vocabulary, np.array([1e6, 1e7]))
    assert np.log10(late[0] / late[1]) == pytest.approx(1, abs=1e-3)


def _exact_flow(length: float, m: int, temperature: float, tau: np.ndarray) -> np.ndarray:
    """L(τ) of V = 2 from zero: β alone, over the exact distribution of the gap, no expansion at the boundary."""
    nodes, weights = np.polynomial.legendre.leggauss(2000)
    s = 0.5 * (nodes + 1)
    f = 4 * s**3 * weights * (1 - s**8) ** ((m - 3) / 2)  # u = s⁴ gathers nodes at the boundary
    f, gap = f / f.sum(), length * np.sqrt(m) * s**4
    p, p_log, rest_log = (
        expit(gap / temperature),
        np.logaddexp(0, -gap / temperature),
        np.logaddexp(0, gap / temperature),
    )

    def slope(_: float, beta: np.ndarray) -> np.ndarray:
        return np.array([f @ (gap * (p - expit(beta[0] * gap))) / (length**2 / 2)])

    beta = solve_ivp(slope, (0, tau[-1]), [0.0], t_eval=tau, rtol=1e-8, atol=1e-10, method="LSODA").y[0]
    kl = [f @ (p * (np.logaddexp(0, -b * gap) - p_log) + (1 - p) * (np.logaddexp(0, b * gap) - rest_log)) for b in beta]
    return np.array(kl)


@pytest.mark.parametrize("temperature", [1e-4, 1e-3, 1e-2])
def test_boundary_law_of_two_tokens(temperature: float) -> None:
    teacher = Task(SoftmaxConfig(vocabulary=2), [1.0], CPU).teacher.double().numpy()
    boundary = two_token_boundary(teacher)
    tau = np.geomspace(400, 3e4, 6)
    exact = _exact_flow(float(np.linalg.norm(teacher[0] - teacher[1])), 32, temperature, tau)
    assert boundary.curve(tau, temperature) == pytest.approx(exact, rel=0.02)
    assert boundary.curve(tau[2:], temperature) == pytest.approx(exact[2:], rel=0.01)  # the error falls as 1/β²


def test_training_of_two_tokens_follows_the_closed_form() -> None:
    config = SoftmaxConfig(vocabulary=2, width=8, temperature=1e-3, optimizer="sgd", rate=2.0, steps=1000)
    task = Task(config, [1e-3], CPU)
    boundary = two_token_boundary(task.teacher.double().numpy())
    W = torch.zeros(1, 2, 8)
    for _ in range(config.steps):
        W -= config.rate * task.gradient(W, task.inputs(config.batch))
    student, teacher = W[0, 0] - W[0, 1], task.teacher[0] - task.teacher[1]
    cosine = float(torch.nn.functional.cosine_similarity(student, teacher, dim=0))
    beta = float(student.norm() / teacher.norm())
    assert cosine > 0.995
    assert boundary.tau(beta, 1e-3) == pytest.approx(config.rate * config.steps, rel=0.06)  # β within 2 %


def test_local_exponent_of_the_closed_form() -> None:
    boundary = Boundary(density=1.7, inertia=2.3)
    beta = np.array([1.0, 30.0, 300.0, 900.0])
    both = np.stack([beta, beta * (1 + 1e-5)])
    loss, tau = boundary.loss(both, 1e-3), boundary.tau(both, 1e-3)
    slope = -np.log(loss[1] / loss[0]) / np.log(tau[1] / tau[0])
    assert boundary.local_exponent(beta, 1e-3) == pytest.approx(slope, rel=1e-4)
    assert boundary.local_exponent(1e-6, 1e-3) == pytest.approx(1 / 3)
    assert boundary.curve(tau[0], 1e-3) == pytest.approx(loss[0], rel=1e-4)


def test_an_aligned_student_by_quadrature_is_the_closed_form() -> None:
    task = Task(SoftmaxConfig(vocabulary=2, width=8), [1.0], CPU)
    teacher, x = task.teacher.double().numpy(), task.inputs(100_000).double().numpy()
    boundary = two_token_boundary(teacher)
    assert top_two_density(teacher, x) == pytest.approx(boundary.density, rel=0.06)
    tau = np.geomspace(1e3, 1e4, 4)
    assert aligned_curve(teacher, x, tau, 1e-3) == pytest.approx(boundary.curve(tau, 1e-3), rel=0.03)


@pytest.mark.parametrize("q", [0.0, 1.0, 3.0])
def test_exponent_by_the_density_of_margins(q: float) -> None:
    # gaps δ ~ δ^q on (0, 1), targets certain, inertia 1: β' = E δ σ(−βδ)
    gap = np.linspace(1e-7, 1, 200_001) ** (2 if q == 0 else 1)
    weight = gap**q * np.gradient(gap)
    weight /= weight.sum()
    tau = np.array([1e5, 2e5])

    def slope(_: float, beta: np.ndarray) -> np.ndarray:
        return np.array([weight @ (gap * expit(-beta[0] * gap))])

    beta = solve_ivp(slope, (0, tau[-1]), [0.0], t_eval=tau, rtol=1e-7, atol=1e-9).y[0]
    loss = [weight @ np.logaddexp(0, -b * gap) for b in beta]
    assert np.log2(loss[0] / loss[1]) == pytest.approx(margin_exponent(q), rel=0.02)
