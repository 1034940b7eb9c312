"""Overlap geometry against brute force, closed forms and its invariances."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from llmprobe.errors import TensorError
from llmprobe.overlap import pairs, unit_rows
from llmprobe.overlap.regime import fraction_longer, superposition
from llmprobe.overlap.statistics import overlap_statistics, second_moments, welch_mean_sq
from llmprobe.weights.unembedding import read_unembedding


def brute(W: torch.Tensor) -> dict[str, float]:
    """Every pair in float64, one by one in a table."""
    U = W.double() / W.double().norm(dim=1, keepdim=True)
    i, j = torch.triu_indices(len(U), len(U), 1)
    c = (U @ U.T)[i, j]
    return {
        "mean_abs_cos": float(c.abs().mean()),
        "mean_sq_cos": float((c**2).mean()),
        "mean_cos": float(c.mean()),
        "max_abs_cos": float(c.abs().max()),
    }


def anisotropic(n: int, m: int, seed: int, shift: float = 0.6) -> torch.Tensor:
    """Rows with a common mean direction, unequal spread and unequal lengths."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.logspace(0, -1.5, m, dtype=torch.float64)
    W = torch.randn(n, m, generator=generator, dtype=torch.float64) * spread + shift
    return W * torch.rand(n, 1, generator=generator, dtype=torch.float64).add(0.2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("shape", [(2, 3), (7, 3), (1500, 24), (5000, 17)])
def test_equals_brute_force_raw_and_centered(shape: tuple[int, int], dtype: torch.dtype) -> None:
    W = anisotropic(*shape, seed=1)
    found = overlap_statistics(W.to(dtype), method="exact")
    tolerance = 1e-12 if dtype == torch.float64 else 3e-6
    for name, value in brute(W).items():
        assert getattr(found, name) == pytest.approx(value, rel=tolerance, abs=tolerance), name
    for name, value in brute(W - W.mean(0)).items():
        if hasattr(found.centered, name):
            assert getattr(found.centered, name) == pytest.approx(value, rel=tolerance, abs=tolerance), name
    assert found.mean_abs_cos_stderr == 0


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 60), m=st.integers(2, 12), seed=st.integers(0, 10**6))
def test_invariant_under_rotation_scale_permutation_and_block_size(n: int, m: int, seed: int) -> None:
    W = anisotropic(n, m, seed)
    rng = np.random.default_rng(seed)
    Q = torch.from_numpy(np.linalg.qr(rng.normal(size=(m, m)))[0])
    order = torch.from_numpy(rng.permutation(n))
    lengths = torch.from_numpy(rng.uniform(0.1, 10, size=(n, 1)))
    expected = overlap_statistics(W, method="exact")
    for changed in (W @ Q, W[order]):
        found = overlap_statistics(changed, method="exact")
        for name in ("mean_abs_cos", "mean_sq_cos", "mean_cos", "max_abs_cos", "participation_ratio"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9, abs=1e-11), name
        assert asdict(found.centered) == pytest.approx(asdict(expected.centered), rel=1e-8, abs=1e-10)
    scaled = overlap_statistics(W * lengths, method="exact")  # only the raw cosines ignore each row's length
    assert scaled.mean_abs_cos == pytest.approx(expected.mean_abs_cos, rel=1e-9)
    assert scaled.mean_sq_cos == pytest.approx(expected.mean_sq_cos, rel=1e-9)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "TILE", 5)
        patch.setattr(pairs, "PANEL", 3)
        patch.setattr(unit_rows, "block_rows", lambda m: 7)
        blocked = overlap_statistics(W, method="exact")
    assert blocked.mean_abs_cos == pytest.approx(expected.mean_abs_cos, rel=1e-10)
    assert blocked.mean_sq_cos == pytest.approx(expected.mean_sq_cos, rel=1e-10)


@pytest.mark.parametrize("m", [2, 5, 40])
def test_simplex_has_exactly_one_over_m_squared(m: int) -> None:
    W = torch.eye(m + 1, dtype=torch.float64) - 1 / (m + 1)
    W = torch.linalg.svd(W)[0][:, :m] * torch.linalg.svd(W)[1][:m]  # the simplex in m dimensions
    found = overlap_statistics(W, method="exact")
    assert found.mean_sq_cos == pytest.approx(1 / m**2, rel=1e-10)
    assert found.mean_abs_cos == pytest.approx(1 / m, rel=1e-10)
    assert found.mean_sq_cos == pytest.approx(welch_mean_sq(m + 1, m), rel=1e-10)


def test_orthonormal_basis_twice_meets_the_welch_bound() -> None:
    m = 12
    found = second_moments(torch.eye(m, dtype=torch.float64).repeat(2, 1))
    assert found.mean_sq_cos == pytest.approx(welch_mean_sq(2 * m, m), rel=1e-12)
    assert found.participation_ratio == pytest.approx(m, rel=1e-12)


def test_random_directions_have_mean_square_one_over_m() -> None:
    n, m = 4000, 50
    found = second_moments(torch.randn(n, m, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    # Var c² = 2(m−1)/(m²(m+2)) over n(n−1)/2 pairwise independent pairs
    error = math.sqrt(2 * (m - 1) / (m**2 * (m + 2)) / (n * (n - 1) / 2))
    assert abs(found.mean_sq_cos - 1 / m) < 4 * error


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_measured_as_its_float64_values(dtype: torch.dtype) -> None:
    W = anisotropic(800, 16, seed=5).to(dtype)
    found = overlap_statistics(W, method="exact")
    assert found.mean_abs_cos == pytest.approx(brute(W)["mean_abs_cos"], rel=1e-5)


def test_sampled_error_bar_covers_the_exact_value() -> None:
    W = anisotropic(600, 20, seed=7)
    exact = overlap_statistics(W, method="exact").mean_abs_cos
    z = []
    for seed in range(300):
        found = overlap_statistics(W, method="sampled", rows=60, seed=seed)
        z.append((found.mean_abs_cos - exact) / found.mean_abs_cos_stderr)
    inside = float(np.mean(np.abs(z) < 1.96))
    assert 0.90 <= inside <= 0.985  # 95 % within 2.5 binomial standard errors, and the t of 59 degrees is wider
    assert abs(np.mean(z)) < 0.2


@pytest.mark.parametrize("shift", [0.0, 0.6, 5.0])
def test_sampled_agrees_with_exact_within_three_errors(shift: float) -> None:
    W = anisotropic(3000, 16, seed=11, shift=shift).float()
    exact, sampled = overlap_statistics(W, method="exact"), overlap_statistics(W, method="sampled", rows=400)
    assert abs(sampled.mean_abs_cos - exact.mean_abs_cos) < 3 * sampled.mean_abs_cos_stderr
    assert sampled.mean_sq_cos == exact.mean_sq_cos
    assert sampled.max_abs_cos <= exact.max_abs_cos


def test_sampling_all_rows_is_exact() -> None:
    W = anisotropic(50, 4, seed=2)
    assert overlap_statistics(W, method="sampled", rows=50).mean_abs_cos_stderr == 0


def test_refuses_what_has_no_direction() -> None:
    W = anisotropic(20, 4, seed=0)
    W[3], W[8] = 0, 0
    with pytest.raises(TensorError, match=r"2 of 20 rows are zero, the first is row 3.*--drop-zero-rows"):
        overlap_statistics(W)
    kept = [i for i in range(20) if i not in (3, 8)]
    assert overlap_statistics(W, drop_zero_rows=True) == overlap_statistics(W[kept])
    W[5, 1] = math.nan
    with pytest.raises(TensorError, match="1 of 20 rows hold NaN or infinity, the first is row 5"):
        second_moments(W)
    with pytest.raises(TensorError, match="n ≥ 2 rows"):
        overlap_statistics(torch.ones(1, 4))
    with pytest.raises(TypeCheckError):  # under pytest every annotated shape and type is checked at run time
        overlap_statistics(torch.ones(4, 4, dtype=torch.long))


def test_regime_coordinates() -> None:
    norms = torch.tensor([1.0, 1.0, 0.9, 0.1, 0.0, 0.0])
    assert fraction_longer(norms, 0.5) == pytest.approx(0.5)
    assert superposition(1.0, n=100, m=10) == 1
    assert superposition(0.1, n=100, m=10) == 0
    assert superposition(0.55, n=100, m=10) == pytest.approx(0.5)
    assert superposition(0.05, n=100, m=10) == 0
    assert math.isnan(superposition(1.0, n=10, m=10))


def test_sample_model_matches_the_measured_table() -> None:
    matrix = read_unembedding("sample:smollm2-135m")
    found = overlap_statistics(matrix.W, method="exact")
    assert (found.n, found.m, matrix.tied, matrix.tensor) == (49152, 576, True, "token_embd.weight")
    # all pairs in float64, from an independent measurement of the same file
    assert found.mean_sq_cos == pytest.approx(0.216143, rel=5e-6)
    assert found.mean_abs_cos == pytest.approx(0.445522, rel=5e-6)
    assert found.mean_cos == pytest.approx(0.442314, rel=5e-6)
    assert found.centered.mean_sq_cos == pytest.approx(0.0105825, rel=5e-6)
    assert found.norm.mean == pytest.approx(3.2022, abs=5e-5)
    assert found.norm.std == pytest.approx(0.5775, abs=5e-5)
