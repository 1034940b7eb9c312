"""Files appear whole or not at all; what is one process's is not another's; what a killed one left is taken over."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llmprobe.cache import atomic, claimed, forget, places
from llmprobe.conversions import build_once, is_whole
from llmprobe.errors import StoreError

HOLDER = """
import sys, time
from pathlib import Path
from llmprobe.cache import atomic, claimed
folder = Path(sys.argv[1])
with claimed(folder, "kept", ".jsonl") as own, atomic(folder / "whole") as temporary:
    own.write_text("theirs")
    temporary.write_text("half")
    print("ready", flush=True)
    time.sleep(60)
"""


def held(folder: Path) -> subprocess.Popen[str]:
    """Another process that holds a place and is writing a file."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_living_are_left_alone_and_the_dead_are_inherited(tmp_path: Path) -> None:
    process = held(tmp_path)
    try:
        with claimed(tmp_path, "kept", ".jsonl") as own:
            assert own.name == "kept-1.jsonl"
            own.write_text("ours")
        with atomic(tmp_path / "whole") as temporary:
            temporary.write_text("ours")
        assert sum(path.name.endswith(".tmp") for path in tmp_path.iterdir()) == 1
        forget(tmp_path, "kept", ".jsonl")
        assert [path.name for path in places(tmp_path, "kept", ".jsonl")] == ["kept.jsonl"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert (tmp_path / "whole").read_text() == "ours"
    with claimed(tmp_path, "kept", ".jsonl") as own:
        assert (own.name, own.read_text()) == ("kept.jsonl", "theirs")
    with atomic(tmp_path / "other") as temporary:
        temporary.write_text("")
    forget(tmp_path, "kept", ".jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "whole"]


def test_a_name_is_not_taken_for_a_longer_one(tmp_path: Path) -> None:
    for name in ("ab", "ab-1", "abc", "ab-x"):
        (tmp_path / f"{name}.jsonl").write_text("")
    forget(tmp_path, "ab", ".jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ab-x.jsonl", "abc.jsonl"]


def test_what_fails_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("before")

    def fails(error: BaseException) -> None:
        with atomic(tmp_path / "f") as temporary:
            temporary.write_text("half")
            raise error

    for error in (KeyboardInterrupt, ValueError):
        with pytest.raises(error):
            fails(error())
    with pytest.raises(StoreError, match="cannot write"), atomic(tmp_path / "f" / "g"):
        pass
    with pytest.raises(StoreError, match="No space left"):
        fails(OSError(28, "No space left on device"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("f", "before")]


def test_a_built_folder_that_was_damaged_is_built_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    built = []

    def build(folder: Path) -> None:
        built.append(folder)
        (folder / "weights").write_bytes(b"12345678")

    target = tmp_path / "folder"
    assert build_once(target, build) == build_once(target, build) == target
    assert len(built) == 1
    for harm in (b"12345679", b"1234", None):
        (target / "weights").unlink()
        if harm is not None:
            (target / "weights").write_bytes(harm)
        assert not is_whole(target)
        build_once(target, build)
        assert (target / "weights").read_bytes() == b"12345678"
    assert "damaged and made anew" in caplog.text
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_build_that_fails_is_removed(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("")
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="cannot write the cache"):
        build_once(tmp_path / "folder", build)
    assert not list(tmp_path.iterdir())


def test_a_worker_ends_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, sys, time\nfrom toymodels.processes import Processes\n"
        "if __name__ == '__main__':\n    pool = Processes(1)\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n    pool.submit(time.sleep, 60)\n    time.sleep(60)\n"
    )
    (tmp_path / "go.py").write_text(script)
    parent = subprocess.Popen([sys.executable, str(tmp_path / "go.py")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
