"""A sweep over widths as a curve: overlaps against brute force, exponents of planted losses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import linregress

from llmprobe.errors import StoreError
from llmprobe.observations import ObservationStore
from toymodels.superposition.config import SuperpositionConfig
from toymodels.superposition.features import frequencies
from toymodels.superposition.runs import sweep, trained_arrays
from toymodels.superposition.theory import unlearned_loss
from toymodels.superposition.width_curve import OVERLAPS, WidthCurve, width_curve

TINY = SuperpositionConfig(n=60, m=5, batch=128, steps=150, seed=3)
RUNS = [dataclasses.replace(TINY, m=m) for m in (4, 6)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ObservationStore:
    store = ObservationStore(tmp_path_factory.mktemp("curves") / "o.jsonl")
    sweep(RUNS, store, progress=False)
    return store


def mean_square(products: np.ndarray) -> float:
    return float((products[np.triu_indices(len(products), k=1)] ** 2).mean())


def test_overlaps_equal_all_pairs(store) -> None:
    curve = width_curve(RUNS, sweep(RUNS, store, progress=False), store, "toymodels")
    for k, run in enumerate(RUNS):
        W = trained_arrays(store, run)["W"].astype(np.float64)
        norms = np.linalg.norm(W, axis=1)
        U = W / norms[:, None]
        long = U[norms > 1]
        for name, products in zip(OVERLAPS, (U @ U.T, long @ long.T, W @ W.T), strict=True):
            assert curve.overlaps[name][k] == pytest.approx(mean_square(products), rel=1e-4)
        p = frequencies("power", 60, exponent=1.0)
        assert curve.unlearned[k] == pytest.approx(unlearned_loss(p, torch.from_numpy(norms > 0.5)))
        assert curve.by_rank[k] <= curve.unlearned[k] + 1e-12


def test_arrays_that_are_not_there(store) -> None:
    with pytest.raises(StoreError):
        width_curve(RUNS, sweep(RUNS, store, progress=False), store, "another study")


def planted(losses: list[float]) -> WidthCurve:
    rows = tuple({"m": m, "loss": loss} for m, loss in zip((10, 15, 25, 39, 63, 100), losses, strict=True))
    return WidthCurve(TINY, rows, {}, np.zeros(6), np.zeros(6))


def test_planted_exponents() -> None:
    m = np.array([10.0, 15, 25, 39, 63, 100])
    curve = planted(list(5 * m**-0.9))
    assert curve.whole().exponent == pytest.approx(0.9)
    window = curve.window()
    assert window is not None
    assert (window.window.lo, window.window.hi) == (10, 100)
    bent = planted(list(1 / (1 + (m / 30) ** 2)))
    assert bent.window() is None


def test_seeds_share_a_curve() -> None:
    m, scatter = np.array([10.0, 15, 25, 39, 63, 100]), np.exp(np.array([0.1, -0.1, 0.05, -0.05, 0.1, -0.1]))
    rows = [{"m": w, "loss": v} for sign in (1, -1) for w, v in zip(m, 5 * m**-0.9 * scatter**sign, strict=True)]
    curve = WidthCurve(TINY, tuple(rows), {}, np.zeros(12), np.zeros(12))
    line = linregress(np.log(curve.column("m")), np.log(curve.column("loss")))
    assert curve.whole().exponent == pytest.approx(0.9)  # the scatter of the two seeds cancels in logarithms
    assert curve.whole().stderr == pytest.approx(line.stderr)
    widths, loss = curve.by_width("loss")
    assert (widths == m).all()
    np.testing.assert_allclose(loss, 5 * m**-0.9 * np.cosh(np.log(scatter)))
    window = curve.window()
    assert window is not None
    assert window.window.n_points == 12
