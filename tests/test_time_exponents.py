"""Exponents in training time side by side: real checkpoints are read against τ like toys."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_recipes import recipe

from llmprobe.errors import ConfigError
from llmprobe.families import load_families, schedule
from llmprobe.observations import Identity, ObservationStore

STEPS = (64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 143000)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Path:
    """Invented losses of Pythia's checkpoints: 1.5 + 0.8 τ^(−1/3), scattered by half a per cent."""
    pythia = load_families()["pythia"]
    member = next(member for member in pythia.members if member.id.endswith("70m"))
    plan = schedule(pythia, member)
    assert plan is not None
    noise = np.exp(0.005 * np.random.default_rng(0).standard_normal(len(STEPS)))
    losses = (1.5 + 0.8 * plan.tau(np.array(STEPS)) ** (-1 / 3)) * noise
    store = ObservationStore(tmp_path / "pythia" / "observations.jsonl")
    for step, value in zip(STEPS, losses.tolist(), strict=True):
        asked = Identity(study="s", source_kind="llm", metric="loss", model=f"{member.id}@step{step}", corpus="c")
        store.append(asked.observe(value, m=512, step=step, tokens=step * 2_097_152, family="pythia"))
    return tmp_path / "pythia"


def test_one_table_and_figure(
    checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipe("time_exponents")
    monkeypatch.setattr(module, "INPUTS", 300)
    monkeypatch.setattr(module, "STUDENTS", ("interference",))
    settings = {"n": 32, "temperatures": (1e-3, 1.0), "steps": 150, "seeds": (0,), "workers": 1, "device": "cpu"}
    config = module.Config(**settings, runs=(checkpoints,), out=tmp_path / "run")
    module.main(config)
    out = capsys.readouterr().out
    assert (tmp_path / "run" / "time_exponents.png").stat().st_size > 10_000
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    (offset,) = (line for line in out.splitlines() if "less an offset" in line)
    assert "not identified" not in offset
    value, error = (float(word.strip(",")) for word in offset.partition("offset: ")[2].split()[:3:2])
    assert abs(value - 1 / 3) < 3 * error < 0.1
    assert any(line.startswith("pythia m = 512, c: tau fits better, offset shared") for line in out.splitlines())
    assert "after the warm-up the exponent of softmax fits better" in out
    assert "adam 0.1, T = 1" in out
    assert "published" in lines
    before = (tmp_path / "run" / "observations.jsonl").read_bytes()
    module.main(config)
    assert capsys.readouterr().out == out
    assert (tmp_path / "run" / "observations.jsonl").read_bytes() == before  # nothing is trained twice


def test_a_run_without_schedule_is_named(tmp_path: Path) -> None:
    module = recipe("time_exponents")
    with pytest.raises(ConfigError, match="whose schedule is known"):
        list(module.checkpoints(module.Config(runs=(tmp_path,))))
