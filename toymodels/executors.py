"""Where the runs of a study are made: processes on this machine, or the workers of a dask scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from llmprobe.errors import ConfigError
from llmprobe.settings import Count, Device, Settings
from toymodels.processes import Processes


@contextmanager
def executor(workers: int = 1, cluster: str | None = None) -> Iterator[Executor | None]:
    """Processes on this machine, or the workers of a dask scheduler; None for a single worker.

    Raises
    ------
    ConfigError
        No scheduler answers, or `distributed` is not installed.
    """
    if cluster is not None:
        with _dask(cluster) as pool:
            yield pool
    elif workers > 1:
        with Processes(workers) as pool:
            yield pool
    else:
        yield None


@dataclass(frozen=True, kw_only=True)
class Workers(Settings):
    """Who does the work of a study: part of a recipe's settings."""

    workers: Count = 1
    """Models or runs at a time on this machine, each in a process of its own."""
    cluster: str | None = None
    """Address of a dask scheduler to send them to instead."""

    def executor(self) -> AbstractContextManager[Executor | None]:
        """See `executor`."""
        return executor(self.workers, self.cluster)


@dataclass(frozen=True, kw_only=True)
class Machine(Workers):
    """Where the runs of a study of toys are trained: the base of a recipe's settings."""

    workers: Count = 2
    """Runs at a time on this machine."""
    device: Device = "auto"
    """auto, cpu, cuda or mps."""


@contextmanager
def _dask(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigError("--cluster needs dask", fix="pip install 'llmprobe[cluster]'") from error
    try:
        client = Client(address, timeout=10)
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"no dask scheduler answers at {address}", fix="start one with `dask scheduler`, and `dask worker ADDRESS`"
        ) from error
    with client:
        yield client.get_executor()
