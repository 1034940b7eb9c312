"""Studies of families: the plan before them, and a cluster whose worker dies."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
from checkpoints import make_model, save
from test_recipes import recipe
from test_sweep import dask_cluster, kill_after_a_first_result

from llmprobe.loss.corpus import open_corpus
from llmprobe.measurements import OVERLAP_METRICS, LossSettings, OverlapSettings, control_work, loss_work, overlap_work
from llmprobe.observations import ObservationStore
from llmprobe.plan import Planned, steps
from llmprobe.study import run
from toymodels.executors import executor

ARCHITECTURES = ("llama", "gpt2", "opt", "gpt_neox")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three widths of each of four architectures."""
    folder = tmp_path_factory.mktemp("families")
    width = {"gpt2": "n_embd", "opt": "hidden_size"}
    return [
        save(make_model(name, seed=m, **{width.get(name, "hidden_size"): m}), folder / f"{name}-{m}")
        for name in ARCHITECTURES
        for m in (16, 32, 64)
        if name != "opt" or m == 32
    ]


def rows(store: ObservationStore) -> dict[str, tuple[object, ...]]:
    """Every column that does not say when or where, by key."""
    return {
        r.key: (r.model, r.metric, r.m, r.n, r.value, r.stderr, r.n_samples, r.provenance.record["sha256"])
        for r in store
    }


def test_a_dask_worker_killed_among_families_loses_no_row(families: list[Path], tmp_path: Path) -> None:
    work = [overlap_work("families", str(folder), OverlapSettings(), size=i) for i, folder in enumerate(families)]
    serial, store = (ObservationStore(tmp_path / name / "o.jsonl") for name in ("serial", "cluster"))
    assert run(work, serial) == {}
    with dask_cluster(tmp_path, workers=2) as (address, processes), executor(cluster=address) as pool:
        killer = threading.Thread(target=kill_after_a_first_result, args=(processes[0], store))
        killer.start()
        assert run(work, store, pool) == {}
        killer.join()
        assert processes[0].wait() == -signal.SIGKILL
    assert rows(store) == rows(serial)
    assert len({row.model for row in store}) == len(families)


def test_the_plan_counts_by_hand_and_only_what_is_missing(tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text('[mine]\nmembers = [{ id = "me/a", m = 100, rows = 1000, params = 5_000_000 }]\n')
    store = ObservationStore(tmp_path / "o.jsonl")
    settings, losses = OverlapSettings(toml=(str(toml),)), LossSettings(max_documents=3)
    overlaps = overlap_work("s", "me/a", settings)
    work = [
        overlaps,
        control_work("s", "me/a", settings),
        overlap_work("s", "me/unknown", settings),
        loss_work("s", "me/a", [open_corpus("stdlib"), open_corpus("stdlib-sources")], losses),
    ]
    config = Planned(read_rate=0.1, compute_rate=0.01, document_tokens=500)
    first, control, unknown, loss = steps(store, work, config, (str(toml),))
    seconds = 2 * 1000 * 100 / 1e5 + (2 * 1000 * 100**2 + 2 * 1024 * 1000 * 100) / 1e7
    assert (first.metrics, first.read, first.tokens) == (len(OVERLAP_METRICS), 200_000, 0)
    assert first.seconds == control.seconds == pytest.approx(seconds)
    assert (unknown.read, unknown.seconds) == (None, None)
    assert (loss.read, loss.tokens) == (10_000_000, 2 * 3 * 500)
    assert loss.seconds == pytest.approx(10_000_000 / 1e5 + 2 * 5e6 * 3000 / 1e7)
    store.append(*(one.observe(0.5) for one in overlaps.identities))
    assert [step.name for step in steps(store, work, config)] == [piece.name for piece in work[1:]]


PLANS = {
    "llm_overlaps": {"families": ("qwen2.5",)},
    "llm_loss_vs_width": {"families": ("opt",), "corpora": ("stdlib",)},
    "checkpoint_dynamics": {"steps": (1, 1000)},
    "real_models": {"sources": ("openai-community/gpt2", "Qwen/Qwen2.5-72B")},
}


@pytest.mark.parametrize("name", PLANS)
def test_a_recipe_plans_and_stops(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = recipe(name)
    monkeypatch.setattr(module, "run", lambda *_, **__: pytest.fail("measured"))
    assert module.main(module.Config(plan=True, out=tmp_path / "run", **PLANS[name])) == 0
    assert "nothing was measured" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
