"""Distribution, closest pairs and frequency bins against brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llmprobe.errors import TensorError
from llmprobe.overlap import neighbours
from llmprobe.overlap.neighbours import by_frequency, closest_pairs, cosine_distribution, row_mean_sq_cos
from llmprobe.overlap.pairs import contests
from llmprobe.overlap.unit_rows import Rows


@pytest.fixture
def matrix() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(300, 12, generator=generator, dtype=torch.float64) + 0.4


def cosines(W: torch.Tensor, center: bool) -> torch.Tensor:
    V = W - W.mean(0) if center else W
    U = V / V.norm(dim=1, keepdim=True)
    return U @ U.T


@pytest.mark.parametrize("center", [False, True])
def test_closest_pairs(matrix: torch.Tensor, center: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    W = matrix
    monkeypatch.setattr(neighbours, "TILE", 64)
    c = cosines(W, center)
    i, j = torch.triu_indices(300, 300, 1)
    values, places = c[i, j].topk(15)
    found = closest_pairs(Rows(W), k=15, center=center)
    assert [(p.i, p.j) for p in found] == [(int(i[k]), int(j[k])) for k in places]
    np.testing.assert_allclose([p.cos for p in found], values, rtol=1e-12)
    assert len(closest_pairs(Rows(W[:3]), k=15)) == 3


@pytest.mark.parametrize("center", [False, True])
def test_distribution_and_quantiles(matrix: torch.Tensor, center: bool) -> None:
    W = matrix
    c = cosines(W, center)
    i, j = torch.triu_indices(300, 300, 1)
    found = cosine_distribution(Rows(W), center=center, rows=300)
    assert found.counts.sum() == 300 * 299
    for q, value in found.quantiles.items():
        assert value == pytest.approx(float(c[i, j].quantile(q)), abs=0.004)


@pytest.mark.parametrize("center", [False, True])
def test_rows_against_all_and_by_frequency(matrix: torch.Tensor, center: bool) -> None:
    W = matrix
    c2 = cosines(W, center).fill_diagonal_(0) ** 2
    expected = c2.sum(1) / 299
    torch.testing.assert_close(row_mean_sq_cos(Rows(W), center=center), expected)
    counts = np.zeros(300, dtype=np.int64)
    counts[:200] = np.arange(200, 0, -1)
    found = by_frequency(Rows(W), counts, contests(Rows(W)), bins=4, center=center)
    assert [b.tokens for b in found] == [50, 50, 50, 50, 100]
    assert [b.occurrences for b in found] == [8775, 6275, 3775, 1275, 0]
    assert found[1].mean_sq_cos == pytest.approx(float(expected[50:100].mean()))
    assert found[4].norm == pytest.approx(float(W[200:].norm(dim=1).mean()))
    with pytest.raises(TensorError, match="one per row"):
        by_frequency(Rows(W), counts[:10], contests(Rows(W)))
