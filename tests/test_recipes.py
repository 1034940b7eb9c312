"""Recipes on tiny models: whole chains, interrupted and gone on with."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from checkpoints import make_model, save
from loopback_hub import LoopbackHub

from llmprobe.observations import ObservationStore

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def recipe(name: str) -> ModuleType:
    """A recipe as a module."""
    spec = importlib.util.spec_from_file_location(f"recipes_{name}", RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_llm_overlaps_goes_on_and_names_failures(
    tmp_path: Path, hub: LoopbackHub, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = []
    for m in (16, 32, 64, 128):
        folder = save(make_model("llama", hidden_size=m), tmp_path / f"m{m}")
        hub.add(f"me/m{m}", folder)
        members.append(f'{{ id = "me/m{m}", m = {m} }}')
    members.append('{ id = "me/gone", m = 256 }')
    toml = tmp_path / "mine.toml"
    toml.write_text(f"[mine]\nmembers = [{', '.join(members)}]\n")
    module = recipe("llm_overlaps")
    config = module.Config(families=("mine",), toml=(str(toml),), out=tmp_path / "run")
    assert module.main(config) == 1
    out = capsys.readouterr().out
    assert "failed: me/gone: there is no model me/gone" in out
    assert "language models, measured here" in out
    store = ObservationStore(tmp_path / "run" / "observations.jsonl")
    assert sorted(r.m for r in store.select(source_kind="llm", metric="mean_sq_cos")) == [16, 32, 64, 128]
    assert {r.family for r in store.select(source_kind="llm")} == {"mine"}
    before = len(store.keys())
    hub.add("me/gone", save(make_model("llama", hidden_size=256), tmp_path / "m256"))
    assert module.main(config) == 0
    assert all("me/gone" in path for path in hub.paths)  # only the one that failed is asked for
    assert len(store.keys()) - before == 9  # a width above n has no superposition coordinate
    assert (tmp_path / "run" / "report.html").stat().st_size < 3 << 20
