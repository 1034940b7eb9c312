"""README's Python and commands, typed as they stand; models at the Hub are tiny ones served on this machine."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_model, make_tokenizer, save
from loopback_hub import LoopbackHub

from llmprobe import cli as llmprobe_cli
from llmprobe.observations import Observation, ObservationStore
from toymodels import cli as toymodels_cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = ["--steps", "20", "--batch", "64"]  # so that the toy ends soon


def blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", README, re.S)


def test_its_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = blocks("python")
    assert len([line for line in code.splitlines() if line.strip()]) <= 8
    exec(compile(code, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "rows win their own contest in 576 dimensions" in out
    assert "125/m raw" in out or "124/m raw" in out


def test_its_commands_run(tmp_path: Path, hub: LoopbackHub, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, width in (("EleutherAI/pythia-70m", 32), ("EleutherAI/pythia-160m", 64)):
        folder = save(make_model("gpt_neox", hidden_size=width), tmp_path / name.rpartition("/")[2])
        make_tokenizer().save_pretrained(folder)
        hub.add(name, folder)
    rng = np.random.default_rng(0)
    ObservationStore("runs/llm_overlaps/observations.jsonl").append(
        *(
            Observation(study="s", source_kind=kind, metric="centered_mean_sq_cos", m=m, model=f"{kind}{m}",
                        value=float(5 / m * np.exp(0.05 * rng.normal())))
            for kind in ("llm", "published") for m in (64, 128, 256, 512)
        )
    )  # fmt: skip
    (text,) = blocks("sh")
    lines = [shlex.split(line, comments=True) for line in text.splitlines()]
    assert len(lines) == 5
    for tool, *arguments in lines:
        main = {"llmprobe": llmprobe_cli.main, "toymodels": toymodels_cli.main}[tool]
        assert main(arguments + (SHORT if tool == "toymodels" else [])) == 0, arguments


def test_every_recipe_it_names_is_there_and_every_recipe_is_named() -> None:
    named = set(re.findall(r"recipes/(\w+\.(?:py|ipynb))", README))
    there = {path.name for path in (ROOT / "recipes").iterdir() if path.suffix in (".py", ".ipynb")}
    beside = {name for name in there if any(name != one and name.startswith(one.removesuffix(".py")) for one in there)}
    assert named <= there
    assert there - named - beside == {"quickstart.py", "ladder_training.py", "checkpoint_clocks.py"}  # make demo; parts
    assert len(README.splitlines()) <= 110
