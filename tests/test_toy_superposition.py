"""Closed-form gradients against autograd; dense, sparse and batched paths against each other."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch

from toymodels.superposition import gradient
from toymodels.superposition.features import Batch, Sampler, frequencies
from toymodels.superposition.gradient import Gradient, forward


def problem(
    R: int = 1, n: int = 60, m: int = 7, size: int = 128, dtype: torch.dtype = torch.float64, bias: float = 0.0
) -> tuple[torch.Tensor, Batch]:
    p = torch.stack([frequencies("power", n, density=1.0 + 0.3 * r, exponent=1.0) for r in range(R)])
    batch = next(Sampler(p, size, list(range(R)), dtype=dtype).chunk())
    generator = torch.Generator().manual_seed(1)
    P = torch.randn(R, n, m + 1, generator=generator, dtype=dtype)
    P[..., :-1] /= m**0.5
    P[..., -1] += bias
    return P, batch


def autograd(
    P: torch.Tensor, batch: Batch, importance: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The paper's loss on plain arrays, empty rows included."""
    P = P.clone().requires_grad_()
    R, n = P.shape[:2]
    weight = torch.ones(n, dtype=P.dtype) if importance is None else importance
    x = batch.dense(n)
    error = ((forward(P, x) - x).square() * weight).sum(-1)
    silent = (forward(P, torch.zeros(R, 1, n, dtype=P.dtype)).square() * weight).sum(-1)[:, 0]
    loss = (error * batch.occupied.view(R, -1)).sum(1) + batch.empty * silent
    loss.sum().backward()
    assert P.grad is not None
    return loss.detach(), P.grad


def near(a: torch.Tensor, b: torch.Tensor, dtype: torch.dtype) -> bool:
    return bool((a - b).abs().max() <= 200 * torch.finfo(dtype).eps * b.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bias", [0.0, -1.5, -4.0])
@pytest.mark.parametrize("density", [1.0, 0.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_equal_autograd(dtype: torch.dtype, bias: float, density: float, weighted: bool) -> None:
    """density 1 takes the dense path, 0 the sparse one."""
    P, batch = problem(dtype=dtype, bias=bias)
    importance = 0.9 ** torch.arange(60, dtype=dtype) if weighted else None
    gradient = Gradient(importance)
    gradient.density = density
    loss, grad = gradient(P, batch)
    expected_loss, expected = autograd(P, batch, importance)
    assert near(loss, expected_loss, dtype)
    assert near(grad, expected, dtype)


@pytest.mark.parametrize("block_bytes", [1, 8 * 60 * 10, 8 * 60 * 90, 2**20])
@pytest.mark.parametrize("density", [1.0, 0.0])
@pytest.mark.parametrize("R", [1, 3])
def test_the_size_of_blocks_does_not_matter(block_bytes: int, density: float, R: int) -> None:
    P, batch = problem(R)
    gradient = Gradient(block_bytes=block_bytes)
    gradient.density = density
    loss, grad = gradient(P, batch)
    expected_loss, expected = autograd(P, batch)
    assert near(loss, expected_loss, torch.float64)
    assert near(grad, expected, torch.float64)


@pytest.mark.parametrize("density", [1.0, 0.0])
def test_a_batch_without_events(density: float) -> None:
    P = torch.randn(1, 5, 3)
    batch = next(Sampler(torch.full((1, 5), 1e-9).double(), 32, [0]).chunk())
    gradient = Gradient()
    gradient.density = density
    loss, grad = gradient(P, batch)
    b = P[0, :, -1].clamp(min=0)
    assert torch.allclose(loss, 32 * b.square().sum()[None])
    assert torch.allclose(grad[0, :, -1], 64 * b)
    assert not grad[..., :-1].any()


@pytest.mark.parametrize("density", [1.0, 0.0])
def test_all_silent(density: float) -> None:
    P, batch = problem(bias=-100.0)
    gradient = Gradient()
    gradient.density = density
    loss, grad = gradient(P, batch)
    assert float(loss) == pytest.approx(float(batch.value.square().sum()))
    assert not grad.any()


def test_the_density_decides() -> None:
    """Outputs that fall silent turn the sparse path on, and noisy ones turn it off again."""
    gradient = Gradient()
    quiet, batch = problem(bias=-3.5)
    loud, _ = problem(bias=2.0)
    gradient(quiet, batch)
    assert 0 < gradient.density < 0.02
    gradient(loud, batch)
    assert gradient.density > 0.5
    loss, _ = gradient(loud, batch)
    assert near(loss, autograd(loud, batch)[0], torch.float64)


def test_compiled_passes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and made functional as for any device; what only a code generator could add takes too long here."""
    plain, traced = torch.compile, []

    def without_code(function: Callable[..., torch.Tensor], **options: bool) -> Callable[..., torch.Tensor]:
        traced.append(function)
        return plain(inspect.unwrap(function), backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", without_code)
    monkeypatch.setattr(gradient, "_square", inspect.unwrap(gradient._square))  # shapes are checked elsewhere
    importance = 0.9 ** torch.arange(60, dtype=torch.float64)
    for weights in (None, importance):
        compiled, ordinary = Gradient(weights, compiled=True), Gradient(weights)
        for size in (128, 100):
            P, batch = problem(3, size=size)
            for one, other in zip(compiled(P, batch), ordinary(P, batch), strict=True):
                torch.testing.assert_close(one, other, rtol=1e-12, atol=0)
    assert len(traced) == 2
