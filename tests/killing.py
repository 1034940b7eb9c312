"""Commands that are killed at every stage, and what they give when they are run again.

Each case starts a command, waits until it is in the middle of its work, sends a signal to the parent, to a worker or to
the whole group, checks how it ended, and runs the same command to its end.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from llmprobe.observations import ObservationStore

SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}
RESUME = "run the same command to resume"
SOON = 15.0  # seconds within which an ended command's processes must be gone; on a busy machine
MADE = re.compile(rb"(created|git)&quot;: &quot;[^&]*")  # of what a page says of a row: when, and by which code


@dataclass(frozen=True)
class Job:
    """A command, and how to tell that it is at work.

    Attributes
    ----------
    command
        What is run, with its arguments.
    out
        Where it writes; its cache lies there too.
    busy
        Whether it is in the middle of its work.
    workers
        Whether it has processes that work for it.
    told
        What else must not depend on interruptions.
    """

    command: tuple[str, ...]
    out: Path
    busy: Callable[[], bool]
    workers: bool = False
    told: Callable[[], object] = lambda: None

    def start(self) -> subprocess.Popen[str]:
        own = {
            "OMP_NUM_THREADS": "1",
            "LLMPROBE_CACHE": str(self.out / "cache"),
            "HF_HOME": str(self.out / "huggingface"),
        }
        return subprocess.Popen(
            self.command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            env={**os.environ, **own}, preexec_fn=_heeding,
        )  # fmt: skip

    def finish(self) -> dict[str, object]:
        """Run to the end; what is left behind, and what is told."""
        process = self.start()
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
        return {**left(self.out), "told": self.told()}


def _heeding() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it


def killed(job: Job, name: str, target: str) -> None:
    """Start the job, send the signal in the middle of its work, and see that it ends as it should."""
    process = job.start()
    family = wait_until_busy(job, process)
    workers = [child for child in family if "resource_tracker" not in " ".join(child.cmdline())]
    assert bool(workers) == job.workers
    number = SIGNALS[name]
    if target == "group":
        os.killpg(process.pid, number)
    elif target == "worker":
        worker = max(workers, key=lambda child: sum(child.cpu_times()[:2]))
        worker.send_signal(number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=240 if target == "worker" else 60)
    assert "Traceback" not in errors, errors
    if target == "worker":  # the parent hands its work to another
        assert process.returncode == 0, errors
    elif number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, errors
        assert errors.splitlines()[-1].endswith(RESUME), errors
        assert errors.count(RESUME) == 1, errors
    _, alive = psutil.wait_procs(family, timeout=SOON)
    assert not alive, alive


def wait_until_busy(job: Job, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that the command has started, at the moment it is at work."""
    deadline = time.monotonic() + 120
    while not job.busy() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    assert job.busy(), "never at work"
    return psutil.Process(process.pid).children(recursive=True)


def left(out: Path) -> dict[str, object]:
    """All that lies below a folder, without what says when: rows of a store, text of a page, hashes of other files."""
    return {str(path.relative_to(out)): _content(path) for path in sorted(out.rglob("*"))}


def _content(path: Path) -> object:
    if path.is_dir() or path.suffix == ".pdf":  # which says when it was made
        return None
    if path.name == "observations.jsonl":
        return {row.key: {**asdict(row), "provenance": row.provenance.settings} for row in ObservationStore(path)}
    if path.suffix == ".html":
        return MADE.sub(b"", path.read_bytes())
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(folder: Path, pattern: str) -> int:
    """Bytes of the files in a folder that have such names; 0 where there are none."""
    return sum(path.stat().st_size for path in folder.glob(pattern)) if folder.is_dir() else 0
