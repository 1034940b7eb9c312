"""Frequencies sum to the density; the sampler draws independent Bernoulli features of the right law."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from llmprobe.errors import ConfigError
from toymodels.superposition.features import AMPLITUDE_LAWS, FREQUENCY_LAWS, Batch, Sampler, frequencies


def batches(sampler: Sampler, count: int) -> list[Batch]:
    found: list[Batch] = []
    while len(found) < count:
        found += list(sampler.chunk())
    return found[:count]


@given(st.sampled_from(sorted(FREQUENCY_LAWS)), st.integers(2, 300), st.floats(0.1, 1.0), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_frequencies_sum_to_the_density_and_fall(law: str, n: int, density: float, exponent: float) -> None:
    p = frequencies(law, n, density=density, exponent=exponent)
    assert float(p.sum()) == pytest.approx(density, rel=1e-12)
    assert bool((p > 0).all())
    assert bool((p.diff() <= 0).all())


def test_power_law_of_four() -> None:
    weights = torch.tensor([1, 1 / 2, 1 / 3, 1 / 4], dtype=torch.float64)
    assert torch.allclose(frequencies("power", 4, density=0.5, exponent=1.0), 0.5 * weights / weights.sum())


def test_weights_from_a_file(tmp_path) -> None:
    text, binary = tmp_path / "w.txt", tmp_path / "w.npy"
    np.savetxt(text, [4.0, 3.0, 1.0])
    np.save(binary, np.array([4.0, 3.0, 1.0]))
    expected = torch.tensor([0.5, 0.375, 0.125], dtype=torch.float64)
    assert torch.allclose(frequencies(str(text), 3), expected)
    assert torch.allclose(frequencies(str(binary), 3), expected)
    with pytest.raises(ConfigError, match="holds"):
        frequencies(str(text), 4)


@pytest.mark.parametrize(
    ("law", "density", "message"),
    [("zipf", 1.0, "frequency law 'zipf'"), ("power", 3.0, "at most 2.083"), ("power", 0.0, "above 0")],
)
def test_bad_laws_are_refused(law: str, density: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        frequencies(law, 4, density=density, exponent=1.0)


def test_damaged_weight_files_are_refused(tmp_path) -> None:
    path = tmp_path / "w.txt"
    path.write_text("one\ntwo\n")
    with pytest.raises(ConfigError, match="not a list of numbers"):
        frequencies(str(path), 2)
    path.write_text("1\n-1\n")
    with pytest.raises(ConfigError, match="non-negative"):
        frequencies(str(path), 2)


def test_feature_counts_pass_a_chi_squared_test() -> None:
    n, size, steps = 40, 256, 512
    p = frequencies("power", n, density=2.0, exponent=1.0)  # p_1 = 0.47: duplicates are common
    drawn = batches(Sampler(p[None], size, [7]), steps)
    counts = torch.zeros(n, dtype=torch.float64)
    for batch in drawn:
        counts += torch.bincount(batch.unit, minlength=n)
    trials = size * steps
    deviation = (counts - trials * p) ** 2 / (trials * p * (1 - p))
    assert 1e-3 < stats.chi2.sf(float(deviation.sum()), n) < 1 - 1e-3


def test_features_are_independent() -> None:
    """Pairs of features, and a feature in consecutive rows, coincide as often as independence says."""
    n, size = 3, 4096
    p = torch.tensor([0.5, 0.3, 0.95], dtype=torch.float64)
    drawn = batches(Sampler(p[None], size, [3]), 16)
    both = torch.zeros(n, n, dtype=torch.float64)
    for batch in drawn:
        x = batch.dense(n)[0].double().ne(0).double()
        both += x.T @ x
    trials = size * len(drawn)
    expected = torch.outer(p, p)
    expected.diagonal().copy_(p)
    z = (both / trials - expected) / (expected * (1 - expected) / trials).sqrt()
    assert float(z.abs().max()) < 4


@pytest.mark.parametrize("law", sorted(AMPLITUDE_LAWS))
def test_amplitudes_have_mean_one_and_the_stated_mean_square(law: str) -> None:
    p = torch.full((1, 100), 0.02, dtype=torch.float64)
    values = torch.cat([b.value for b in batches(Sampler(p, 2048, [1], amplitude=law), 32)]).double()
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean()) - 1) < 4 * error + 1e-12
    square = values.square()
    assert (
        abs(float(square.mean()) - AMPLITUDE_LAWS[law].mean_square)
        < 4 * float(square.std()) / len(values) ** 0.5 + 1e-12
    )


def test_a_uniform_amplitude_stays_below_two() -> None:
    values = torch.cat([b.value for b in batches(Sampler(torch.full((1, 9), 0.1).double(), 512, [0]), 8)])
    assert stats.kstest(values.numpy() / 2, "uniform").pvalue > 1e-3


def test_a_batch_is_consistent() -> None:
    n, size = 50, 64
    p = frequencies("power", n, exponent=1.0)
    for batch in batches(Sampler(torch.stack([p, p, p]), size, [0, 1, 2]), 5):
        used = batch.occupied.view(3, -1).sum(1)
        assert torch.equal(used + batch.empty, torch.full((3,), float(size)))
        slots = torch.zeros(len(batch.occupied), dtype=torch.long).index_add_(
            0, batch.slot, torch.ones_like(batch.slot)
        )
        assert torch.equal(slots > 0, batch.occupied > 0)
        assert torch.equal(batch.slot_start, slots.cumsum(0) - slots)
        code = batch.slot * 3 * n + batch.unit
        assert bool((code.diff() > 0).all())
        assert torch.equal(batch.unit // n, batch.slot // batch.rows)
        by_unit = sorted(zip(batch.unit.tolist(), batch.slot.tolist(), batch.value.tolist(), strict=True))
        assert [s for _, s, _ in by_unit] == batch.unit_slot.tolist()
        assert [v for _, _, v in by_unit] == batch.unit_value.tolist()


def test_a_replica_draws_the_same_beside_others() -> None:
    n = 30
    p = torch.stack([frequencies("power", n, exponent=a) for a in (0.0, 1.0, 2.0)])
    together = batches(Sampler(p, 128, [5, 6, 7]), 3)
    for r in range(3):
        alone = batches(Sampler(p[r : r + 1], 128, [5 + r]), 3)
        for all_, one in zip(together, alone, strict=True):
            x, y = all_.dense(n)[r], one.dense(n)[0]
            assert torch.equal(x[: len(y)], y)
            assert not x[len(y) :].any()


def test_rows_without_any_feature_make_an_empty_batch() -> None:
    p = torch.full((1, 4), 1e-9, dtype=torch.float64)
    batch = batches(Sampler(p, 16, [0]), 1)[0]
    assert len(batch.value) == 0
    assert float(batch.empty[0]) == 16


def test_certain_features_are_always_active() -> None:
    p = torch.tensor([[1.0, 0.95, 0.1]], dtype=torch.float64)
    batch = batches(Sampler(p, 512, [0]), 1)[0]
    active = batch.dense(3)[0].ne(0).double().mean(0)
    assert float(active[0]) > 0.99  # an amplitude of exactly 0 may occur
    assert abs(float(active[1]) - 0.95) < 0.05


def test_state_resumes_the_stream() -> None:
    p = frequencies("power", 20)[None]
    one = Sampler(p, 4096, [9])
    list(one.chunk())
    state = one.state()
    expected = [b.value for b in one.chunk()]
    other = Sampler(p, 4096, [1])
    other.restore(state)
    for a, b in zip(expected, other.chunk(), strict=True):
        assert torch.equal(a, b.value)
