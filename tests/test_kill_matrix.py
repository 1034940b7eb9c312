"""{SIGINT, SIGTERM, kill −9} × {parent, worker, group}, at work: it ends quickly and quietly, and nothing changes.

`make kill` runs all of it; the suite leaves out what is marked `kill`, which is all cases but one.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kill_jobs import COMMANDS, Inputs, loss
from killing import SIGNALS, killed
from loopback_hub import LoopbackHub

MATRIX = [
    (command, name, target)
    for command, (_, targets) in COMMANDS.items()
    for name in SIGNALS
    for target in targets
]  # fmt: skip
Undisturbed = Callable[[str], dict[str, object]]
AT_WORK = """
import sys, time
from llmprobe import console
def work():
    print("ready", flush=True)
    time.sleep(30)
"""
WORKING, LEAVING = (
    "sys.exit(console.guarded(work))",
    "import atexit; atexit.register(work); sys.exit(console.guarded(lambda: 0))",
)
IN_SUITE = {("loss", "INT", "parent")}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inputs]:
    hub = LoopbackHub()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        yield Inputs.made(tmp_path_factory.mktemp("inputs"), hub)


@pytest.fixture(scope="module")
def undisturbed(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    known: dict[str, dict[str, object]] = {}

    def outcome(command: str) -> dict[str, object]:
        if command not in known:
            known[command] = COMMANDS[command][0](inputs, tmp_path_factory.mktemp(command)).finish()
        return known[command]

    return outcome


@pytest.mark.parametrize(
    ("command", "name", "target"),
    [pytest.param(*case, marks=() if case in IN_SUITE else pytest.mark.kill) for case in MATRIX],
)
def test_killed_at_work_and_run_again(
    command: str, name: str, target: str, inputs: Inputs, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    expected = undisturbed(command)
    job = COMMANDS[command][0](inputs, tmp_path)
    killed(job, name, target)
    found = job.finish()
    assert {key: found.get(key) for key in found.keys() ^ expected.keys()} == {}, "more or less than it leaves"
    assert {key: value for key, value in found.items() if value != expected[key]} == {}


@pytest.mark.parametrize("delay", [0.3, 1.0])
def test_a_signal_while_modules_are_imported(delay: float, inputs: Inputs, tmp_path: Path) -> None:
    process = loss(inputs, tmp_path).start()
    time.sleep(delay)
    began = time.monotonic()
    process.terminate()
    _, errors = process.communicate(timeout=30)
    assert "Traceback" not in errors
    assert process.returncode == 143 or (process.returncode == -15 and delay < 0.5)  # the interpreter's own start
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("ending", [WORKING, LEAVING])
@pytest.mark.parametrize("seen", [True, False])
def test_a_signal_while_the_interpreter_ends_or_nobody_listens(ending: str, seen: bool) -> None:
    command = [sys.executable, "-c", AT_WORK + ending]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        if not seen:
            process.stderr.close()
        process.terminate()
        assert process.wait(timeout=20) == 143
        assert not seen or process.stderr.read().count("\n") == 1
