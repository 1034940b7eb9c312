"""Recipes on tiny models: whole chains, interrupted and gone on with."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import transformers
from checkpoints import make_model, make_tokenizer, save
from loopback_hub import LoopbackHub

from llmprobe.errors import ConfigError
from llmprobe.families import load_families, schedule
from llmprobe.observations import Observation, ObservationStore
from llmprobe.schedule import Schedule

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


def whole(folder: Path, **changes: object) -> Path:
    """A tiny model with its tokenizer."""
    save(make_model("llama", **changes), folder)
    make_tokenizer().save_pretrained(folder)
    return folder


def texts(path: Path, count: int = 6) -> Path:
    """A corpus of short documents that the tiny tokenizer knows."""
    rows = ({"text": f"a cat that sat on {'the mat and ' * k}sat"} for k in range(1, count + 1))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_checkpoint_dynamics_refuses_copied_weights_and_goes_on(
    tmp_path: Path, hub: LoopbackHub, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = (1, 2, 4, 8, 16, 32)
    repo = hub.add("me/trained")
    repo.revisions = {f"step{step}": f"{step:040x}" for step in steps}
    for step in steps:
        folder = whole(tmp_path / f"step{step}", seed=2 if step == 16 else step)  # step16 is a copy of step2
        repo.commits[f"{step:040x}"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    toml = tmp_path / "mine.toml"
    toml.write_text(
        '[mine]\nrevisions = "step{step}"\ntokens_per_step = 1_000\nsteps = 64\nwarmup_steps = 4\nfinal_rate = 0.1\n'
        'members = [ { id = "me/trained", m = 32, layers = 2, peak_rate = 1e-3 } ]\n'
    )
    module = recipe("checkpoint_dynamics")
    config = module.Config(
        source="me/trained",
        steps=(*steps, 64),
        toml=(str(toml),),
        corpus=str(texts(tmp_path / "text.jsonl")),
        context=16,
        device="cpu",
        out=tmp_path / "run",
    )
    assert module.main(config) == 1
    out = capsys.readouterr().out
    assert "failed: me/trained@step2: carries the same weights as me/trained@step16" in out
    assert "failed: me/trained@step16: carries the same weights as me/trained@step2" in out
    assert "failed: me/trained@step64: " in out
    assert "offset none" in out  # both clocks are known
    assert (tmp_path / "run" / "loss_in_training.png").stat().st_size > 10_000
    store = ObservationStore(tmp_path / "run" / "observations.jsonl")
    rows = store.select(metric="loss")
    assert [(r.step, r.tokens, r.revision) for r in rows] == [(s, 1000 * s, f"{s:040x}") for s in (1, 4, 8, 32)]
    assert {(r.family, r.depth, r.corpus) for r in rows} == {("mine", 2, "text.jsonl")}
    before = store.path.read_bytes()
    assert module.main(config) == 1
    assert store.path.read_bytes() == before  # nothing is measured twice
    with pytest.raises(ConfigError, match="revisions of me/other are not in the family table"):
        module.main(module.Config(source="me/other", out=tmp_path / "run"))


def test_loss_vs_width_over_families_and_corpora(
    tmp_path: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = {"one": (16, 32, 64), "two": (32, 48)}
    toml, text = tmp_path / "mine.toml", ""
    for family, widths in sizes.items():
        ids = [f'{{ id = "{whole(tmp_path / f"{family}{m}", hidden_size=m)}", m = {m} }}' for m in widths]
        ids += ['{ id = "me/gone", m = 128 }'] if family == "two" else []
        text += f"[{family}]\nmembers = [{', '.join(ids)}]\n"
    toml.write_text(text)
    corpora = tuple(str(texts(tmp_path / f"{name}.jsonl", count)) for name, count in (("a", 4), ("b", 6)))
    module = recipe("llm_loss_vs_width")
    config = module.Config(
        families=("one", "two"), corpora=corpora, toml=(str(toml),), context=16, device="cpu", out=tmp_path / "run"
    )
    assert module.main(config) == 1
    out = capsys.readouterr().out
    assert "failed: me/gone: me/gone does not load" in out
    assert "published" in out
    store = ObservationStore(tmp_path / "run" / "observations.jsonl")
    assert len(store.select(metric="loss")) == 10
    found = json.loads((tmp_path / "run" / "fit.json").read_text())
    assert {"E[one/a.jsonl]", "E[one/b.jsonl]", "E[two/a.jsonl]", "E[two/b.jsonl]"} < set(found["params"])
    assert (tmp_path / "run" / "loss_vs_width.png").stat().st_size > 10_000
    before = store.path.read_bytes()
    module.main(config)
    assert store.path.read_bytes() == before
    with pytest.raises(ConfigError, match="unknown family 'three'"):
        module.main(module.Config(families=("three",), out=tmp_path / "run"))


def test_loss_vs_width_recovers_a_law_with_published_offsets(tmp_path: Path) -> None:
    module = recipe("llm_loss_vs_width")
    paper = module.published()
    assert paper["E[gpt2/pile]"] == 1.9413
    rows = [
        Observation(
            study=module.STUDY,
            source_kind="llm",
            metric="loss",
            family=family,
            corpus=corpus,
            m=m,
            value=paper[f"E[{family}/{corpus}]"] + paper["A_m"] * m ** -paper["alpha_m"],
        )
        for family in ("opt", "pythia")
        for corpus in ("c4", "pile")
        for m in (512, 1024, 2048, 4096)
    ]
    result = module.fit_widths(rows)
    assert result.params["alpha_m"] == pytest.approx(0.91, abs=1e-3)
    assert result.params["E[opt/c4]"] == pytest.approx(2.2745, abs=1e-3)


def test_clocks_are_told_apart() -> None:
    module = recipe("checkpoint_clocks")
    plan = Schedule(peak=1.0, steps=4000, warmup=400, final=0.02)
    steps = np.unique(np.geomspace(4, 4000, 25).astype(int))
    x = {"tokens": 100.0 * steps, "tau": plan.tau(steps)}
    noise = np.exp(0.003 * np.random.default_rng(0).standard_normal(len(steps)))
    for truth in x:
        y = 1.0 + 4 * x[truth] ** -0.4 * noise
        readings = [module.read(clock, column.tolist(), y.tolist()) for clock, column in x.items()]
        lines = module.compared(readings, y.tolist())
        assert any(line.startswith(f"{truth} fits better, offset shared") for line in lines), lines
    flat = dict.fromkeys(x, 1.0 * steps)
    same = [module.read(clock, column.tolist(), y.tolist()) for clock, column in flat.items()]
    assert all(line.startswith("neither clock") for line in module.compared(same, y.tolist()))


def test_width_ladder_trains_measures_and_is_not_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["cat", "mat", "sat", "that", "theory", "fits", "last"]
    draw = np.random.default_rng(0)
    rows = ({"text": " ".join(draw.choice(words, 60))} for _ in range(40))
    corpus = tmp_path / "words.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    module = recipe("train_width_ladder")
    config = module.Config(
        widths=(16, 32, 48),
        layers=1,
        vocabulary=300,
        corpus=str(corpus),
        heldout_share=0.2,
        context=16,
        batch=2,
        steps=5,
        threads=torch.get_num_threads(),
        out=tmp_path / "ladder",
    )
    module.main(config)
    out = capsys.readouterr().out
    assert "y = E + A_m m^(-alpha_m)" in out
    families = load_families(tmp_path / "ladder" / "ladder.toml")
    assert [member.m for member in families["ladder"].members] == [16, 32, 48]
    steps = families["ladder-m16"].members
    assert [member.tokens for member in steps] == [32, 64, 128, 160]
    plan = schedule(families["ladder-m16"], steps[-1])
    assert plan is not None
    assert (plan.peak, plan.steps, plan.warmup, plan.final) == (pytest.approx(8e-3), 5, 1, 1.0)
    model = transformers.AutoModelForCausalLM.from_pretrained(steps[-1].id)
    assert sum(p.numel() for p in model.parameters()) == steps[-1].params
    assert model.config.tie_word_embeddings is False
    heldout = {json.loads(line)["name"] for line in (tmp_path / "ladder" / "heldout.jsonl").read_text().splitlines()}
    assert 2 <= len(heldout) < 20
    store = ObservationStore(tmp_path / "ladder" / "observations.jsonl")
    assert sorted(row.m for row in store.select(metric="loss")) == [16, 32, 48]
    assert {row.n for row in store.select(metric="mean_sq_cos")} == {300}
    monkeypatch.setattr(module, "train", lambda *_: pytest.fail("trained again"))
    before = store.path.read_bytes()
    module.main(config)
    assert store.path.read_bytes() == before
    with pytest.raises(ConfigError, match="another layers"):
        module.main(replace(config, layers=2))
    with pytest.raises(ConfigError, match="multiples of 16"):
        module.main(replace(config, widths=(20,)))
