"""Arithmetic where rows are almost zero, close to the mean, duplicated or huge: float32 against float64 brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmprobe.overlap.neighbours import closest_pairs
from llmprobe.overlap.statistics import OverlapStatistics, overlap_statistics
from llmprobe.overlap.unit_rows import Rows


def brute(W: torch.Tensor) -> tuple[float, float, float]:
    """Mean |c|, mean c² and mean c in float64."""
    W = W.double()
    U = W / W.norm(dim=1, keepdim=True)
    i, j = torch.triu_indices(len(U), len(U), 1)
    c = (U @ U.T)[i, j]
    return float(c.abs().mean()), float(c.square().mean()), float(c.mean())


def agrees(found: OverlapStatistics, W: torch.Tensor, tolerance: float = 3e-5) -> None:
    raw, centered = brute(W), brute(W.double() - W.double().mean(0))
    assert (found.mean_abs_cos, found.mean_sq_cos, found.mean_cos) == pytest.approx(raw, rel=1e-3, abs=tolerance)
    about_mean = found.centered.mean_abs_cos, found.centered.mean_sq_cos, found.centered.mean_cos
    assert about_mean == pytest.approx(centered, rel=1e-3, abs=tolerance)
    assert found.max_abs_cos <= 1 + 1e-5


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    exponents=st.lists(st.integers(-12, 12), min_size=1, max_size=4),
    shift=st.sampled_from([0.0, 0.4, 30.0]),
    half=st.booleans(),
)
def test_rows_of_any_scale(seed: int, exponents: list[int], shift: float, half: bool) -> None:
    rng = np.random.default_rng(seed)
    W = rng.normal(size=(60, 8)) + shift
    W[30:] = rng.normal(size=(30, 8))
    W[30:] *= 10.0 ** rng.choice(exponents, size=(30, 1))
    W = torch.from_numpy(W[: 60 if half else 36]).float()
    agrees(overlap_statistics(W, method="exact"), W)
    agrees(overlap_statistics(W.double(), method="exact"), W, tolerance=1e-9)


@pytest.mark.parametrize(("count", "scale"), [(5, 1e-6), (256, 1e-4), (256, 1e-12), (511, 1e-3)])
def test_untrained_tokens_beside_a_common_mean(count: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(1)
    W = torch.randn(512, 64, generator=generator) + 0.4
    W[-count:] = scale * torch.randn(count, 64, generator=generator)
    agrees(overlap_statistics(W, method="exact"), W)
    exact, sampled = overlap_statistics(W, method="exact"), overlap_statistics(W, method="sampled", rows=300)
    assert abs(sampled.mean_abs_cos - exact.mean_abs_cos) < 4 * sampled.mean_abs_cos_stderr


def test_rows_close_to_the_mean_keep_their_direction() -> None:
    generator = torch.Generator().manual_seed(2)
    W = 100.0 + 1e-3 * torch.randn(400, 16, generator=generator)  # eight parts in a million of spread
    agrees(overlap_statistics(W, method="exact"), W)


def test_a_row_equal_to_the_mean_has_no_centered_direction() -> None:
    W = torch.tensor([[1.0, 0.5], [0.5, 1.0], [0.75, 0.75]])
    found = overlap_statistics(W, method="exact")
    assert np.isnan(found.centered.mean_abs_cos)
    assert found.represented_fraction == pytest.approx(2 / 3)


def test_closest_pairs_among_faint_rows() -> None:
    generator = torch.Generator().manual_seed(3)
    W = torch.randn(200, 16, generator=generator) + 1.0
    W[150:] = 1e-7 * torch.randn(50, 16, generator=generator)
    W[199] = 2 * W[180]
    (best,) = closest_pairs(Rows(W), k=1)
    assert (best.i, best.j) == (180, 199)
    assert best.cos == pytest.approx(1, abs=1e-5)
