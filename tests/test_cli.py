"""The commands as a user types them: keys, exit status, one-line errors, and what an import brings along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_model, make_tokenizer, save
from safetensors.torch import save_file

from llmprobe.cli import main
from llmprobe.observations import Observation, ObservationStore

OVERLAP_KEYS = """source revision tensor n m dtype tied method rows_sampled mean_abs_cos mean_abs_cos_stderr
    mean_sq_cos mean_cos max_abs_cos centered welch_mean_sq random_mean_sq participation_ratio norm
    represented_fraction represented_stderr ties superposition bytes_read seconds"""
LOSS_KEYS = """source revision corpus n_documents n_tokens n_bytes nll_sum loss loss_stderr bits_per_byte context
    prefix dtype device tokens_per_second peak_memory_bytes"""
FIT_KEYS = "law n_points params stderr ci95 r2 rmse objective converged warnings"


def run_json(capsys: pytest.CaptureFixture[str], *argv: str) -> list[dict[str, Any]]:
    assert main([*argv, "--json"]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def model_folder(tmp_path: Path) -> str:
    folder = save(make_model("llama"), tmp_path / "model")
    make_tokenizer().save_pretrained(folder)
    return str(folder)


def test_overlap_keys(capsys: pytest.CaptureFixture[str], model_folder: str, tmp_path: Path) -> None:
    store = str(tmp_path / "o.jsonl")
    (row,) = run_json(capsys, "overlap", model_folder, "--method", "exact", "--store", store)
    assert set(row) == set(OVERLAP_KEYS.split())
    assert set(row["centered"]) == {"mean_abs_cos", "mean_sq_cos", "mean_cos"}
    assert set(row["norm"]) == {"mean", "std", "min", "max"}
    assert (row["n"], row["m"], row["method"]) == (96, 32, "exact")
    stored = {r.metric: r.value for r in ObservationStore(store)}
    assert stored["mean_abs_cos"] == row["mean_abs_cos"]
    two = run_json(capsys, "overlap", model_folder, model_folder, "--vocabulary", "40")
    assert [r["n"] for r in two] == [40, 40]


def test_overlap_of_a_users_family(capsys: pytest.CaptureFixture[str], model_folder: str, tmp_path: Path) -> None:
    toml = tmp_path / "mine.toml"
    toml.write_text(f'[mine]\nvocabulary = 90\nmembers = [{{ id = "{model_folder}", m = 32, layers = 2 }}]\n')
    store = str(tmp_path / "o.jsonl")
    (row,) = run_json(capsys, "overlap", model_folder, "--toml", str(toml), "--tokenizer-vocab", "--store", store)
    assert row["n"] == 90
    assert {(r.family, r.depth) for r in ObservationStore(store)} == {("mine", 2)}
    assert main(["overlap", model_folder, "--tokenizer-vocab"]) == 2
    assert "in no family table" in capsys.readouterr().err


def test_loss_keys(capsys: pytest.CaptureFixture[str], model_folder: str, tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_text("the cat sat on the mat. " * 20)
    store = str(tmp_path / "o.jsonl")
    argv = ["loss", model_folder, "--corpus", str(text), "--context", "16", "--device", "cpu", "--store", store]
    (row,) = run_json(capsys, *argv)
    assert set(row) == set(LOSS_KEYS.split())
    assert row["loss_stderr"] is None  # one document has no spread
    assert {r.metric for r in ObservationStore(store)} == {"loss", "bits_per_byte"}


def test_geometry(capsys: pytest.CaptureFixture[str], model_folder: str, tmp_path: Path) -> None:
    figure = tmp_path / "g.png"
    (row,) = run_json(
        capsys, "geometry", model_folder, "--pairs", "3", "--max-tokens", "2000", "--center", "--figure", str(figure)
    )
    assert len(row["pairs"]) == 3
    assert row["pairs"][0]["cos"] >= row["pairs"][1]["cos"]
    assert 2000 <= sum(b["occurrences"] for b in row["frequency"]) < 2100  # the first of a window is not scored
    assert sum(b["tokens"] for b in row["frequency"]) == 96
    assert figure.stat().st_size > 1000


def test_fit_keys(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    store.append(
        *(
            Observation(study="s", source_kind="toy", metric="loss", m=m, value=5 * m**-0.9 * (1 + 0.01 * (-1) ** i))
            for i, m in enumerate((8, 16, 32, 64, 128, 256))
        )
    )
    (row,) = run_json(capsys, "fit", str(store.path), "--x", "m", "--y", "loss")
    assert set(row) == set(FIT_KEYS.split())
    assert row["params"]["alpha_m"] == pytest.approx(0.9, abs=0.02)


def test_text_output_is_for_people(capsys: pytest.CaptureFixture[str], model_folder: str) -> None:
    assert main(["overlap", model_folder]) == 0
    out = capsys.readouterr().out
    assert "Welch bound" in out
    assert "superposition" in out
    assert main(["families"]) == 0
    assert "EleutherAI/pythia-70m" in capsys.readouterr().out


def _nan(folder: Path) -> None:
    W = torch.randn(10, 4)
    W[2, 1] = float("nan")
    save_file({"lm_head.weight": W}, folder / "model.safetensors")


def _zero(folder: Path) -> None:
    save_file({"lm_head.weight": torch.zeros(10, 4)}, folder / "model.safetensors")


def _truncated(folder: Path) -> None:
    save_file({"lm_head.weight": torch.randn(10, 4)}, folder / "model.safetensors")
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def _corrupt_gguf(folder: Path) -> None:
    (folder / "m.gguf").write_bytes(b"GGUF" + b"\xff" * 200)


BAD = {"nan": _nan, "zero": _zero, "truncated": _truncated, "gguf": _corrupt_gguf, "empty": lambda folder: None}


@pytest.mark.parametrize("kind", BAD)
def test_bad_weights_are_one_line_and_status_two(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    BAD[kind](tmp_path)
    assert main(["overlap", str(tmp_path), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.strip() and "%|" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")


@pytest.mark.parametrize(
    "argv",
    [
        ["overlap", "no/such/thing/at/all"],
        ["overlap", "sample:unknown"],
        ["overlap"],
        ["loss", "sample:smollm2-135m", "--corpus", "missing.txt"],
        ["loss", "sample:smollm2-135m", "--context", "0"],
        ["fit", "missing.jsonl"],
        ["report", "missing"],
        ["families", "--toml", "missing.toml"],
    ],
)
def test_bad_arguments_are_one_line_and_status_two(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1, err
    assert err.startswith("error: ")


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    assert main(["overlap", "sample:unknown", "--debug"]) == 2
    assert "Traceback" in caplog.text


def test_unwritable_store_loses_nothing(tmp_path: Path, model_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    assert main(["overlap", model_folder, "--store", str(blocked / "o.jsonl")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert blocked.read_text() == "a file where a folder should be"


def _modules(code: str) -> set[str]:
    code += "; import sys; print(' '.join(sys.modules))"
    env = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import llmprobe",
        "import llmprobe.cli",
        "import llmprobe.fitting.estimator, llmprobe.fitting.law",
        "from llmprobe.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\nimport os",
    ],
)
def test_light_imports_bring_neither_torch_nor_transformers(code: str) -> None:
    assert not {"torch", "transformers", "pandas", "matplotlib"} & _modules(code)


def test_public_names_resolve() -> None:
    import llmprobe

    for name in llmprobe.__all__:
        assert getattr(llmprobe, name).__doc__, name
    with pytest.raises(AttributeError):
        llmprobe.no_such_name  # noqa: B018
