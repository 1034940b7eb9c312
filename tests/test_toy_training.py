"""Runs: schedule, learning, reproducibility, replicas, resume after a kill, and what a run reports."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from llmprobe.errors import ConfigError, StoreError
from llmprobe.measurements import OVERLAP_METRICS
from llmprobe.overlap.statistics import overlap_statistics
from toymodels.seeds import stream
from toymodels.superposition import training
from toymodels.superposition.config import PRESETS, WIDTHS, SuperpositionConfig, preset
from toymodels.superposition.features import Sampler, frequencies
from toymodels.superposition.gradient import forward
from toymodels.superposition.result import identities
from toymodels.superposition.training import initial, schedule, train, train_replicas

TINY = SuperpositionConfig(n=60, m=5, batch=128, steps=300, seed=3, average=50)


def test_schedule_warms_up_and_ends_at_five_percent() -> None:
    shares = schedule(SuperpositionConfig(steps=1000))
    assert len(shares) == 1000
    assert shares[0] == pytest.approx(0.01)
    assert shares[99] == shares[100] == 1
    assert shares[550] == pytest.approx(0.525)
    assert shares[-1] == pytest.approx(0.05, abs=1e-4)
    assert schedule(SuperpositionConfig(steps=1)) == [1.0]


def test_equals_a_dense_reference_run() -> None:
    """The same data through autograd and torch's AdamW, every row kept: the same losses."""
    c = dataclasses.replace(TINY, weight_decay=0.3, steps=60)
    P = initial(c).double()
    W, b = P[:, :-1].clone().requires_grad_(), P[:, -1].clone().requires_grad_()
    optimizer = torch.optim.AdamW([{"params": [W], "weight_decay": 0.3}, {"params": [b], "weight_decay": 0.0}])
    p = frequencies("power", c.n, exponent=1.0)
    sampler = Sampler(p[None], c.batch, [stream(c.seed, "data")], dtype=torch.float64)
    losses = []
    for share, batch in zip(schedule(c), sampler.chunk(), strict=False):
        x = torch.zeros(c.batch, c.n, dtype=torch.float64)
        dense = batch.dense(c.n)[0]
        x[: len(dense)] = dense
        optimizer.zero_grad()
        y = torch.relu(x @ W @ W.T + b)
        loss = (y - x).square().sum(1).mean()
        (loss / c.n).backward()
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * share
        optimizer.step()
        losses.append(float(loss.detach()))
    result = train(c, device="cpu", dtype=torch.float64)
    assert torch.allclose(result.losses, torch.tensor(losses, dtype=torch.float64), rtol=1e-9)
    assert torch.allclose(result.W, W.detach(), atol=1e-9)
    P = torch.cat([result.W, result.b[:, None]], 1)[None]
    assert bool(torch.isfinite(forward(P, x[None])).all())


@pytest.mark.parametrize("decay", [-1.0, 0.2])
def test_a_run_learns(decay: float) -> None:
    result = train(dataclasses.replace(TINY, weight_decay=decay, steps=1500), device="cpu")
    zero = 4 / 3  # the loss of the zero function: ⟨v²⟩ E
    assert result.loss < 0.6 * zero
    row = result.row()
    if decay < 0:
        assert row["phi_half"] == 1.0
    else:
        assert row["phi_half"] < 0.5


def test_the_same_seed_gives_the_same_bits() -> None:
    one, two = train(TINY, device="cpu"), train(TINY, device="cpu")
    assert torch.equal(one.W, two.W)
    assert torch.equal(one.losses, two.losses)
    other = train(dataclasses.replace(TINY, seed=4), device="cpu")
    assert not torch.equal(one.W, other.W)


def test_the_block_size_changes_rounding_only() -> None:
    one = train(TINY, device="cpu", dtype=torch.float64)
    two = train(TINY, device="cpu", dtype=torch.float64, block_bytes=8 * 60 * 11)
    assert torch.allclose(one.losses, two.losses, rtol=1e-9)
    assert torch.allclose(one.W, two.W, atol=1e-9)


def test_replicas_equal_single_runs() -> None:
    changes = [
        {"weight_decay": -1.0, "seed": 0},
        {"weight_decay": 0.5, "seed": 1, "data_exponent": 0.0},
        {"weight_decay": 0.0, "seed": 2, "activation_density": 2.0, "frequency_law": "linear"},
    ]
    configs = [dataclasses.replace(TINY, **change) for change in changes]
    together = train_replicas(configs, device="cpu", dtype=torch.float64)
    for config, result in zip(configs, together, strict=True):
        alone = train(config, device="cpu", dtype=torch.float64)
        assert torch.allclose(result.losses, alone.losses, rtol=1e-9)
        assert torch.allclose(result.W, alone.W, atol=1e-9)
        assert result.config == config


def test_replicas_of_unequal_shape_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ only in"):
        train_replicas([TINY, dataclasses.replace(TINY, m=6)], device="cpu")


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path, monkeypatch) -> None:
    config = dataclasses.replace(TINY, batch=1024, steps=320)  # chunks of 64 steps
    whole = train(config, device="cpu")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    path = tmp_path / "deep" / "run.safetensors"
    check, calls = training.Run._check, []

    def interrupted(run: training.Run) -> None:
        check(run)
        calls.append(run.step)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training.Run, "_check", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(config, device="cpu", checkpoint=path)
    assert path.exists()
    resumed = train(config, device="cpu", checkpoint=path)
    assert calls == [64, 128, 192, 192, 256, 320]
    assert torch.equal(whole.W, resumed.W)
    assert torch.equal(whole.losses, resumed.losses)
    assert not path.exists()


def test_a_foreign_or_damaged_checkpoint_is_refused(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    run = training.Run([TINY], torch.device("cpu"), None, torch.float32)
    run.save(path, 0.0)
    with pytest.raises(StoreError, match="another run"):
        train(dataclasses.replace(TINY, seed=9), device="cpu", checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(StoreError, match="cannot be read"):
        train(TINY, device="cpu", checkpoint=path)


def test_a_checkpoint_that_cannot_be_written_is_one_clear_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot write checkpoint .* another folder"):
        train(dataclasses.replace(TINY, steps=600), device="cpu", checkpoint=tmp_path / "file" / "run.safetensors")


def test_a_run_that_diverges_says_so() -> None:
    with pytest.raises(ConfigError, match="diverged"):
        train(dataclasses.replace(TINY, rate=1e30, weight_decay=0.0), device="cpu")


@pytest.mark.parametrize(
    "change",
    [
        {"m": 61},
        {"n": 0},
        {"steps": 0},
        {"warmup": 1.0},
        {"rate": 0.0},
        {"weight_decay": 200.0},
        {"bias_start": -1.0},
    ],
)
def test_bad_settings_are_refused(change: dict) -> None:
    with pytest.raises(ConfigError):
        dataclasses.replace(TINY, **change)


def test_presets_follow_the_paper() -> None:
    large = preset("large", m=128)
    assert (large.n, large.batch, large.steps) == (10240, 8192, 40000)
    assert large.peak_rate == pytest.approx(0.02 * (8 / 128) ** 0.25)
    assert large.peak_bias_rate == pytest.approx(2 / 128)
    assert preset("small").peak_rate == preset("small", m=100).peak_bias_rate == 0.01
    assert set(WIDTHS) == set(PRESETS)
    with pytest.raises(ConfigError, match="preset 'tiny'"):
        preset("tiny")


def test_observations_carry_what_identifies_a_run() -> None:
    result = train(TINY, device="cpu")
    rows = {row.metric: row for row in result.observations("test")}
    assert set(rows) == {"loss", "loss_std", "phi_half", "phi_one", *OVERLAP_METRICS}
    assert rows["superposition"].value == overlap_statistics(result.W).superposition
    loss = rows["loss"]
    assert (loss.unit, loss.source_kind, loss.family, loss.m, loss.n, loss.step) == (
        "1",
        "toy",
        "toy-strong",
        5,
        60,
        300,
    )
    assert loss.stderr == pytest.approx(result.loss_std / 50**0.5)
    assert loss.key == identities(TINY, "test")[0].key
    for change in ({"seed": 4}, {"weight_decay": -0.5}, {"steps": 301}, {"batch": 64}, {"data_exponent": 0.5}):
        assert identities(dataclasses.replace(TINY, **change), "test")[0].key != loss.key


def test_biases_may_start_at_zero() -> None:
    ordinary, level = initial(TINY), initial(dataclasses.replace(TINY, bias_start=0.0))
    assert torch.equal(ordinary[:, :-1], level[:, :-1])
    assert float(ordinary[:, -1].std()) == pytest.approx(1, rel=0.3)
    assert not level[:, -1].any()
    zero = dataclasses.replace(TINY, bias_start=0.0)
    assert identities(zero, "t")[0].key != identities(TINY, "t")[0].key
    # with decay, an output that starts below −|W_i|² max(v) never fires: at zero none does
    weak = dataclasses.replace(TINY, n=200, m=10, weight_decay=0.1, steps=1500)
    norms = train(dataclasses.replace(weak, bias_start=0.0), device="cpu").W[:10].norm(dim=1)
    assert float(norms.min()) > 0.5


def test_a_file_of_weights_counts_by_its_content(tmp_path) -> None:
    one, two = tmp_path / "a.txt", tmp_path / "b.txt"
    one.write_text("\n".join(["1"] * 60))
    two.write_text("\n".join(["1"] * 60))
    configs = [dataclasses.replace(TINY, frequency_law=str(path), steps=20) for path in (one, two)]
    assert identities(configs[0], "t")[0].key == identities(configs[1], "t")[0].key
    two.write_text("\n".join(["1"] * 59 + ["2"]))
    assert identities(configs[0], "t")[0].key != identities(configs[1], "t")[0].key
    assert train(configs[0], device="cpu").loss > 0


def test_unknown_device() -> None:
    with pytest.raises(ConfigError, match="not available"):
        train(TINY, device="quantum")
