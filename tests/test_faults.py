"""The whole chain, from measuring to the page, while processes are killed, the disk fills and files are damaged."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import make_model, make_tokenizer, save

from llmprobe.observations import ObservationStore

QUICKSTART = Path(__file__).resolve().parents[1] / "recipes" / "quickstart.py"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    save(make_model("llama"), folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    text = "the cat sat on the mat. a theory that fits at last. " * 30
    (folder / "text.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for _ in range(5)))
    return folder


def start(inputs: Path, out: Path, limit: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    """The demo on a tiny model and short toys, in a process of its own."""
    options = {
        "--source": inputs / "model", "--corpus": inputs / "text.jsonl", "--context": 32, "--max-tokens": 600,
        "--steps": 150, "--workers": 1, "--out": out,
    }  # fmt: skip
    words = [str(word) for pair in options.items() for word in pair]
    command = [sys.executable, str(QUICKSTART), *words, "--widths", "4", "8", "16"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit)


def values(out: Path) -> dict[str, float]:
    return {row.key: row.value for row in ObservationStore(out / "observations.jsonl")}


def lines(out: Path) -> int:
    path = out / "observations.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.kill
def test_nothing_measured_is_lost_and_nothing_wrong_is_reported(inputs: Path, tmp_path: Path) -> None:
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    process = start(inputs, calm)
    assert process.communicate()[1] is not None
    assert process.returncode == 0
    expected = values(calm)

    for stored in (5, 15):  # killed in the middle, twice
        process = start(inputs, rough)
        while lines(rough) < stored and process.poll() is None:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        found = values(rough)
        assert found.items() <= expected.items()
        assert len(found) >= stored

    store = rough / "observations.jsonl"
    whole = store.read_bytes().splitlines(keepends=True)
    whole[2] = whole[2].replace(b'"value":', b'"value":1')  # a number changed on disk
    store.write_bytes(b"".join(whole) + b'{"study":"quick')  # and a line torn off
    full = start(inputs, rough, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (len(b"".join(whole)) + 200,) * 2))
    errors = full.communicate()[1]
    assert full.returncode == 2
    assert "line 3 is damaged and left out: checksum does not match" in errors
    assert "error: cannot write" in errors
    assert "Traceback" not in errors
    assert values(rough).items() <= expected.items()

    process = start(inputs, rough)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    assert values(rough) == expected
    again, before = (json.loads((out / "exponents.json").read_text()) for out in (rough, calm))
    assert {row["name"]: row["exponent"] for row in again} == pytest.approx(
        {row["name"]: row["exponent"] for row in before}, rel=1e-9
    )  # rows were written in another order, so sums may round otherwise
