"""A pool of processes on this machine that survives a worker's death and does not survive its parent's."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

from tqdm import tqdm

from llmprobe.interrupts import withheld


class Processes(Executor):
    """A process pool that starts afresh when a worker has died.

    Workers end with their parent, however it ends, and at once where the block that uses them ends by an exception.
    They do not see a terminal's Ctrl-C: the parent does.

    Attributes
    ----------
    steps
        Steps that its workers have trained.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._context = multiprocessing.get_context("spawn")  # a forked torch may hang on its own threads
        self.steps = self._context.Value("q", 0)
        self._leash, self._alive = self._context.Pipe(duplex=False)  # the second end closes when this process ends
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self.workers, self._context, _start_worker, (self.steps, self._leash))

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        with withheld():
            try:
                return self._pool.submit(fn, *args, **kwargs)
            except BrokenExecutor:
                self._pool = self._new()
                return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._alive.close()
        self.shutdown(cancel_futures=kind is not None)


_steps: Any = None  # a worker's share of `Processes.steps`


def report(steps: int) -> None:
    """Count steps trained in this worker."""
    if _steps is not None:
        with _steps.get_lock():
            _steps.value += steps


def _start_worker(steps: Any, leash: Connection) -> None:
    global _steps
    _steps = steps
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which a worker that is ended would leave behind
    threading.Thread(target=_follow, args=(leash,), daemon=True).start()


def _follow(leash: Connection) -> None:
    try:
        leash.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
