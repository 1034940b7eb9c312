"""Closed forms against independent expressions, and against a trained model."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from toymodels.superposition.config import SuperpositionConfig
from toymodels.superposition.features import frequencies
from toymodels.superposition.theory import (
    long_rows,
    plain_overlaps,
    strong_exponent,
    unlearned_loss,
    weak_exponent,
    zero_loss,
)
from toymodels.superposition.training import train


def test_unlearned_loss_of_four_features() -> None:
    p = torch.tensor([0.4, 0.3, 0.2, 0.1])
    assert unlearned_loss(p, 1) == pytest.approx(4 / 3 * 0.6)
    assert unlearned_loss(p, torch.tensor([False, True, True, False])) == pytest.approx(4 / 3 * 0.5)
    assert unlearned_loss(p, 1, amplitude="constant") == pytest.approx(0.6)
    assert unlearned_loss(p.flip(0), 1) == unlearned_loss(p, 1)
    assert unlearned_loss(p, 0) == pytest.approx(zero_loss(1.0))


@pytest.mark.parametrize("exponent", [1.5, 2.0])
def test_the_loss_by_unlearned_features_falls_with_the_weak_exponent(exponent: float) -> None:
    p = frequencies("power", 1_000_000, exponent=exponent)
    one, two = (unlearned_loss(p, k) for k in (100, 200))
    assert math.log(one / two) / math.log(2) == pytest.approx(weak_exponent(exponent), abs=0.02)
    assert math.isnan(weak_exponent(1.0))
    assert strong_exponent(0.5) == 1
    assert strong_exponent(2.0) == 2


def test_plain_overlaps_equal_all_pairs() -> None:
    W = torch.randn(30, 7)
    gram = (W @ W.T).double().numpy()
    pairs = gram[np.triu_indices(30, k=1)]
    assert plain_overlaps(W) == pytest.approx(float((pairs**2).mean()), rel=1e-5)


def test_long_rows() -> None:
    W = torch.tensor([[2.0, 0.0], [0.0, 0.5], [0.0, -1.5]])
    assert torch.equal(long_rows(W), W[[0, 2]])


def test_a_weakly_superposed_model_loses_what_it_does_not_learn() -> None:
    config = SuperpositionConfig(n=100, m=10, batch=256, steps=3000, data_exponent=1.5, weight_decay=0.2, seed=1)
    result = train(config, device="cpu")
    p = frequencies("power", 100, exponent=1.5)
    learned = result.W.norm(dim=1) > 0.5
    assert result.loss == pytest.approx(unlearned_loss(p, learned), rel=0.2)
    assert int(learned.sum()) < 40
