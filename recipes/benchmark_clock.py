"""Time and memory of a piece of work, for comparisons."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path


def timed(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def worked(work: Callable[[], object]) -> float:
    """Seconds of the processor: on one thread the clock's, less what other programs took."""
    began = time.process_time()
    work()
    return time.process_time() - began


def peak_memory(work: Callable[[], object]) -> int:
    """Bytes that this process held at most while it worked, beyond those it held before (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    work()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
