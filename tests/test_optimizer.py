"""AdamW with decay equals torch's step by step; growth follows its formula and brings rows to norm 1."""

from __future__ import annotations

import pytest
import torch

from toymodels.superposition.optimizer import AdamW


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("decay", "rate", "bias_rate"), [(0.0, 0.01, 0.01), (0.4, 0.01, 0.01), (1.0, 0.02, 0.005)])
def test_equals_torch_adamw(dtype: torch.dtype, decay: float, rate: float, bias_rate: float) -> None:
    generator = torch.Generator().manual_seed(0)
    P = torch.randn(1, 7, 4, generator=generator, dtype=dtype)
    W, b = P[0, :, :-1].clone().requires_grad_(), P[0, :, -1].clone().requires_grad_()
    ours = AdamW(P, [decay])
    theirs = torch.optim.AdamW(
        [{"params": [W], "weight_decay": decay}, {"params": [b], "weight_decay": 0.0}], betas=(0.9, 0.999), eps=1e-8
    )
    for step in range(40):
        grad = torch.randn(1, 7, 4, generator=generator, dtype=dtype) * 10.0 ** (step % 5 - 6)
        share = (step + 1) / 40
        W.grad, b.grad = grad[0, :, :-1].clone(), grad[0, :, -1].clone()
        theirs.param_groups[0]["lr"], theirs.param_groups[1]["lr"] = rate * share, bias_rate * share
        theirs.step()
        ours.step(grad, rate * share, bias_rate * share)
        expected = torch.cat([W, b[:, None]], dim=1)[None].detach()
        assert torch.allclose(P, expected, rtol=50 * torch.finfo(dtype).eps, atol=50 * torch.finfo(dtype).eps)


def test_growth_follows_its_formula() -> None:
    P = torch.randn(1, 5, 4, dtype=torch.float64)
    W, b = P[0, :, :-1].clone(), P[0, :, -1].clone()
    AdamW(P, [-0.7]).decay(0.1)
    norm = W.norm(dim=1, keepdim=True)
    assert torch.allclose(P[0, :, :-1], W + 0.1 * -0.7 * (1 - 1 / norm) * W)
    assert torch.equal(P[0, :, -1], b)


def test_growth_brings_rows_to_norm_one() -> None:
    P = torch.randn(1, 100, 6) * torch.logspace(-2, 1, 100)[:, None]
    optimizer = AdamW(P, [-1.0])
    for _ in range(2000):
        optimizer.step(torch.zeros_like(P), 0.01, 0.01)
    assert torch.allclose(P[0, :, :-1].norm(dim=1), torch.ones(100), atol=1e-5)


def test_a_zero_row_stays_and_stays_finite() -> None:
    P = torch.zeros(1, 3, 5)
    AdamW(P, [-1.0]).step(torch.zeros_like(P), 0.01, 0.01)
    assert not P.any()


def test_replicas_keep_their_own_decay() -> None:
    P = torch.randn(3, 6, 4)
    gammas, grads = [-1.0, 0.0, 0.5], [torch.randn(3, 6, 4) for _ in range(5)]
    singles = [P[r : r + 1].clone() for r in range(3)]
    together = AdamW(P, gammas)
    alone = [AdamW(p, [g]) for p, g in zip(singles, gammas, strict=True)]
    for grad in grads:
        together.step(grad, 0.01, 0.01)
        for r, optimizer in enumerate(alone):
            optimizer.step(grad[r : r + 1], 0.01, 0.01)
    assert torch.allclose(P, torch.cat(singles), atol=1e-6)
