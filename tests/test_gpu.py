"""Every path of a GPU, run tiny on the CPU; what is out of time or disagrees is said."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import gpu
import gpu_parts
import pytest
import torch
from gpu_parts import PARTS, Part, Place, Values

from llmprobe.errors import ConfigError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("gpu")
    assert gpu.main(gpu.Config(device="cpu", tiny=True, out=out)) == 0
    return out


def test_all_parts_run_tiny_and_only_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((folder / "gpu.json").read_text())
    assert list(found["parts"]) == list(PARTS)
    assert all(part["values"] for part in found["parts"].values())
    assert found["card"].startswith("cpu: ")
    monkeypatch.setattr(gpu, "attempt", lambda *_: pytest.fail("run again"))
    assert gpu.main(gpu.Config(device="cpu", tiny=True, out=folder)) == 0
    assert "step-large" in capsys.readouterr().out


def test_the_time_of_all_parts_is_ten_minutes() -> None:
    assert sum(part.seconds for part in PARTS.values()) <= 600


def slow(place: Place) -> Values:
    time.sleep(20)
    return {}


def full(place: Place) -> Values:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_what_could_not_be_done_is_said_and_tried_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = json.loads((folder / "gpu.json").read_text())
    for name in ("grid", "student"):
        del found["parts"][name]
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    config = gpu.Config(device="cpu", tiny=True, out=tmp_path)
    whole = {name: PARTS[name] for name in ("grid", "student")}
    monkeypatch.setitem(PARTS, "grid", Part("too slow", 0.1, slow))
    monkeypatch.setitem(PARTS, "student", Part("too large", 5, full))
    assert gpu.main(config) == 1
    out = capsys.readouterr().out
    assert "could not: too slow: not done in 0.1 s" in out
    assert "could not: too large: CUDA out of memory" in out
    for name, part in whole.items():
        monkeypatch.setitem(PARTS, name, part)
    assert gpu.main(config) == 0


def test_a_device_that_computes_otherwise_is_seen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second device here has amplitudes wrong in the eighth digit."""

    place = Place("cpu", True, 10)
    assert gpu.disagreements(gpu_parts.agree_toy(place)) == []
    monkeypatch.setattr(gpu_parts, "sent", lambda batch, device: replace(batch, value=batch.value * (1 + 1e-8)))
    values = gpu_parts.agree_toy(place)
    assert gpu.disagreements(values) == ["difference float64"]
    assert gpu.disagreements({**values, "difference float64": float("nan")}) == ["difference float64"]
    found = json.loads((folder / "gpu.json").read_text())
    found["parts"]["agree-toy"]["values"] = values
    (tmp_path / "gpu.json").write_text(json.dumps(found))
    assert gpu.main(gpu.Config(device="cpu", tiny=True, out=tmp_path)) == 1
    assert "agree-toy: difference float64 is above its tolerance" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_claimed_of_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device 'cuda' is not available"):
        gpu.main(gpu.Config(out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()
