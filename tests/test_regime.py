"""Which rows are represented: brute force, invariances, matrices whose regime is known, and the error of a sample."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmprobe.overlap.pairs import all_pairs
from llmprobe.overlap.statistics import overlap_statistics
from llmprobe.overlap.unit_rows import Rows
from toymodels.superposition.config import preset
from toymodels.superposition.training import train


def wins(W: torch.Tensor) -> int:
    """Rows that win their own contest, one by one in float64."""
    V = W.double() - W.double().mean(0)
    products = V @ V.T
    own = products.diagonal().clone()
    return int((own > products.fill_diagonal_(-torch.inf).amax(1)).sum())


def ragged(n: int, m: int, seed: int) -> torch.Tensor:
    """Rows of very unequal length about a common mean."""
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, m)) * rng.uniform(0.01, 2, (n, 1)) ** 2 + rng.normal(size=m))


@settings(max_examples=30, deadline=None)
@given(n=st.integers(3, 60), m=st.integers(1, 12), seed=st.integers(0, 10**6))
def test_equals_brute_force_and_ignores_rotation_scale_and_shift(n: int, m: int, seed: int) -> None:
    W = ragged(n, m, seed)
    rng = np.random.default_rng(seed)
    Q = torch.from_numpy(np.linalg.qr(rng.normal(size=(m, m)))[0])
    expected = wins(W) / n
    for changed in (W, W @ Q, 37.0 * W, 1e-9 * W, W + torch.from_numpy(rng.normal(size=m))):
        assert overlap_statistics(changed, method="exact").represented_fraction == expected


@pytest.mark.parametrize("shape", [(1025, 7), (5000, 9)])
def test_equals_brute_force_over_several_tiles_and_panels(shape: tuple[int, int]) -> None:
    W = ragged(*shape, seed=4)
    assert overlap_statistics(W, method="exact").represented_fraction == wins(W) / shape[0]
    assert overlap_statistics(W.float(), method="exact").represented_fraction == pytest.approx(
        wins(W) / shape[0], abs=2 / shape[0]
    )


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-6])
def test_an_orthonormal_few_among_tiny_rows_is_no_superposition(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    W = torch.cat([torch.eye(50), size * torch.randn(1950, 50, generator=generator)])
    found = overlap_statistics(W, method="exact")
    assert 50 / 2000 <= found.represented_fraction < 0.03
    assert found.superposition < 0.02


def test_gaussian_rows_are_represented_without_training() -> None:
    W = torch.randn(1000, 25, generator=torch.Generator().manual_seed(0))
    assert overlap_statistics(W, method="exact").superposition > 0.9


@pytest.mark.parametrize(("decay", "low", "high"), [(0.3, 0.0, 0.05), (-1.0, 0.95, 1.0)])
def test_trained_toys_lie_where_they_should(decay: float, low: float, high: float) -> None:
    W = train(preset("quick", m=25, weight_decay=decay, steps=2000), device="cpu").W
    assert low <= overlap_statistics(W, drop_zero_rows=True).superposition <= high


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_duplicates_tie_and_are_counted(dtype: torch.dtype) -> None:
    W = torch.randn(300, 40, generator=torch.Generator().manual_seed(1), dtype=dtype)
    W[10] = W[200]
    W[11] = W[12] = W[13]
    found = overlap_statistics(W, method="exact")
    assert found.ties == 5
    assert found.represented_fraction == pytest.approx(1 - 5 / 300)
    assert overlap_statistics(W, method="sampled", rows=250).ties <= 5


def test_sampled_rows_are_judged_as_all_pairs_judge_them() -> None:
    W = ragged(700, 6, seed=8).float()
    data = Rows(W)
    assert overlap_statistics(W, method="sampled", rows=699).represented_fraction == pytest.approx(
        all_pairs(data, progress=False).represented, abs=1.01 / 699
    )


@pytest.mark.parametrize("m", [5, 40])
def test_the_binomial_error_covers(m: int) -> None:
    W = ragged(600, m, seed=3).float()
    exact = overlap_statistics(W, method="exact").represented_fraction
    assert 0.02 < exact < 1
    inside = 0
    for seed in range(300):
        found = overlap_statistics(W, method="sampled", rows=80, seed=seed)
        inside += abs(found.represented_fraction - exact) <= 1.96 * found.represented_stderr
    assert 0.90 <= inside / 300 <= 1.0
