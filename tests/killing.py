"""Commands that are killed at every stage, and what they give when they are run again.

Each case starts a command, waits until it is in the middle of its work, sends a signal to the parent, to a worker or to
the whole group, checks how it ended, and runs the same command to its end.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

SIGNALS = {"INT": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}
LLMPROBE = (sys.executable, "-c", "import sys; from llmprobe.cli import main; sys.exit(main())")
TOYMODELS = (sys.executable, str(Path(__file__).with_name("eager_toymodels.py")))
SOON = 15.0  # seconds within which an ended command's processes must be gone; on a busy machine


@dataclass(frozen=True)
class Job:
    """A command, and how to tell that it is at work.

    Attributes
    ----------
    command, arguments
        What is run.
    busy
        Whether it is in the middle of its work.
    outcome
        What it left behind that must not depend on interruptions.
    """

    command: tuple[str, ...]
    arguments: list[str]
    busy: Callable[[], bool]
    outcome: Callable[[], object]

    def start(self, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *self.arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, preexec_fn=_heeding,
        )  # fmt: skip

    def finish(self, **environment: str) -> object:
        """Run to the end; what is left behind."""
        process = self.start(**environment)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        return self.outcome()


def _heeding() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it


def killed(job: Job, name: str, target: str, **environment: str) -> None:
    """Start the job, send the signal in the middle of its work, and see that it ends as it should."""
    process = job.start(**environment)
    family = wait_until_busy(job, process)
    number = SIGNALS[name]
    if target == "group":
        os.killpg(process.pid, number)
    elif target == "worker":
        worker = max(family, key=lambda child: sum(child.cpu_times()[:2]))
        worker.send_signal(number)
    else:
        process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors, errors
    if target == "worker":  # the parent hands its run to another
        assert process.returncode == 0, errors
    elif number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number, errors
        assert errors.splitlines()[-1].endswith("run the same command to resume")
    _, alive = psutil.wait_procs(family, timeout=SOON)
    assert not alive, alive


def wait_until_busy(job: Job, process: subprocess.Popen[str]) -> list[psutil.Process]:
    """The command's children at the moment it is at work."""
    deadline = time.monotonic() + 60
    while not job.busy() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, process.communicate()
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "resource_tracker" not in " ".join(child.cmdline())]


def files(folder: Path, pattern: str = "*") -> list[str]:
    """Names of what lies in a folder, sorted; none where it is not there."""
    return sorted(path.name for path in folder.glob(pattern)) if folder.is_dir() else []
