"""{SIGINT, SIGTERM, kill −9} × {parent, worker, group}, at work: it ends quickly and quietly, and nothing changes.

Marked `kill`: `make kill` runs all of it; the suite runs one case of each command.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from checkpoints import make_model, make_tokenizer, save
from killing import LLMPROBE, TOYMODELS, Job, files, killed
from loopback_hub import LoopbackHub
from safetensors.numpy import save_file

from llmprobe.observations import Observation, ObservationStore

WORDS = "the cat sat on the mat. a theory that fits at last. "


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, as a folder and as a GGUF file, and a text that takes a second or two to score."""
    folder = tmp_path_factory.mktemp("inputs")
    save(make_model("llama"), folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    (folder / "text.jsonl").write_text("".join(f'{{"text": "{WORDS * (9 + i % 5)}"}}\n' for i in range(120)))
    return folder


def sweep(inputs: Path, out: Path) -> Job:
    store = ObservationStore(out / "o.jsonl")
    options = "--preset quick --n 200 --widths 5 9 --batch 512 --steps 900 --workers 2"
    return Job(
        TOYMODELS, ["superposition", *options.split(" "), "--store", str(store.path)],
        busy=lambda: bool(files(out / "checkpoints", "*.safetensors")),
        outcome=lambda: (
            {row.key: row.value for row in store}, files(out / "checkpoints"),
            {name: (out / "arrays" / name).read_bytes() for name in files(out / "arrays")},
        ),
    )  # fmt: skip


def loss(inputs: Path, out: Path) -> Job:
    store = ObservationStore(out / "o.jsonl")
    arguments = [str(inputs / "model"), "--corpus", str(inputs / "text.jsonl"), "--context", "32"]
    kept = out / "cache" / "loss"
    return Job(
        LLMPROBE, ["loss", *arguments, "--batch-tokens", "64", "--store", str(store.path)],
        busy=lambda: sum(path.stat().st_size for path in kept.glob("*.jsonl")) > 4000 if kept.is_dir() else False,
        outcome=lambda: ({row.key: row.value for row in store}, files(kept)),
    )  # fmt: skip


def report(inputs: Path, out: Path) -> Job:
    store = ObservationStore(out / "observations.jsonl")
    if not store.path.exists():
        store.append(
            *(
                Observation(
                    study="s", source_kind="llm", metric="loss", value=1 + 5 / 2**i, unit="nats", family=family,
                    model=f"{family}{i}", corpus="c", m=2 ** (4 + i), n_samples=10, stderr=0.01,
                )
                for i, family in itertools.product(range(6), ("a", "b"))
            )
        )  # fmt: skip
    return Job(
        LLMPROBE, ["report", str(out)], busy=lambda: len(files(out, "*.png")) > 0,
        outcome=lambda: {name: (out / name).read_bytes() for name in files(out, "[!.]*") if not name.endswith("pdf")},
    )  # fmt: skip


def conversion(inputs: Path, out: Path) -> Job:
    kept = out / "cache" / "gguf"
    return Job(
        LLMPROBE, ["loss", "sample:smollm2-135m", "--max-tokens", "32", "--context", "32", "--json"],
        busy=lambda: any(path.is_dir() for path in kept.glob(".unfinished-*")) if kept.is_dir() else False,
        outcome=lambda: [files(folder) for folder in kept.iterdir()],
    )  # fmt: skip


COMMANDS: dict[str, tuple[Callable[[Path, Path], Job], tuple[str, ...]]] = {
    "sweep": (sweep, ("parent", "worker", "group")),
    "loss": (loss, ("parent", "group")),
    "report": (report, ("parent", "group")),
    "conversion": (conversion, ("parent",)),
}
MATRIX = [
    (command, name, target)
    for command, (_, targets) in COMMANDS.items()
    for name in ("INT", "TERM", "KILL")
    for target in targets
]
IN_SUITE = {("sweep", "TERM", "parent"), ("loss", "INT", "group")}


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], object]:
    known: dict[str, object] = {}

    def outcome(command: str) -> object:
        if command not in known:
            out = tmp_path_factory.mktemp(command)
            known[command] = COMMANDS[command][0](inputs, out).finish(LLMPROBE_CACHE=str(out / "cache"))
        return known[command]

    return outcome


@pytest.mark.parametrize(
    ("command", "name", "target"),
    [pytest.param(*case, marks=() if case in IN_SUITE else pytest.mark.kill) for case in MATRIX],
)
def test_killed_at_work_and_run_again(
    command: str, name: str, target: str, inputs: Path, undisturbed: Callable[[str], object], tmp_path: Path
) -> None:
    job, environment = COMMANDS[command][0](inputs, tmp_path), {"LLMPROBE_CACHE": str(tmp_path / "cache")}
    killed(job, name, target, **environment)
    assert job.finish(**environment) == undisturbed(command)


@pytest.mark.kill
@pytest.mark.parametrize("name", ["INT", "TERM", "KILL"])
def test_a_transfer_resumes(name: str, tmp_path: Path, hub: LoopbackHub) -> None:
    W = np.random.default_rng(0).normal(size=(48 << 10, 256)).astype(np.float32)  # 48 MiB: six pieces
    save_file({"lm_head.weight": W}, tmp_path / "model.safetensors")
    hub.add("me/slow", tmp_path)
    pieces = tmp_path / "cache" / "partial"
    answer = hub.answer

    def slow(request, *, body: bool) -> None:
        if body and "Range" in request.headers:
            time.sleep(0.3)
        answer(request, body=body)

    hub.answer = slow  # type: ignore[method-assign]
    try:
        store = ObservationStore(tmp_path / "o.jsonl")
        options = ["--method", "sampled", "--rows", "64", "--store", str(store.path)]
        job = Job(
            LLMPROBE, ["overlap", "me/slow", *options],
            busy=lambda: any(pieces.glob("*/0*")),
            outcome=lambda: ({row.metric: row.value for row in store}, files(pieces)),
        )  # fmt: skip
        killed(job, name, "parent", LLMPROBE_CACHE=str(tmp_path / "cache"))
        before = hub.sent
        values, left = job.finish(LLMPROBE_CACHE=str(tmp_path / "cache"))
    finally:
        hub.answer = answer  # type: ignore[method-assign]
    assert not left
    assert hub.sent - before < W.nbytes, "what had arrived was fetched again"
    assert values["mean_sq_cos"] == pytest.approx(1 / 256, rel=0.01)


@pytest.mark.parametrize("delay", [0.3, 1.0])
def test_a_signal_while_modules_are_imported(delay: float, inputs: Path, tmp_path: Path) -> None:
    job = loss(inputs, tmp_path)
    process = job.start(LLMPROBE_CACHE=str(tmp_path / "cache"))
    time.sleep(delay)
    began = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    assert process.returncode == 143 or (process.returncode == -15 and delay < 0.5)  # the interpreter's own start
    assert time.monotonic() - began < 10
