"""Many runs over any `concurrent.futures.Executor`: processes here, or dask workers anywhere.

The parent alone writes the store, so workers need no shared disk; a run whose observations exist is not repeated.
Checkpoints lie beside the store (``<folder>/checkpoints``); where workers share that folder, a run whose worker
died goes on from the last one, elsewhere it starts again. Either way it ends with the same bits.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from llmprobe.errors import ConfigError, ProbeError
from llmprobe.observations import Observation, ObservationStore
from toymodels.presets import SuperpositionConfig
from toymodels.training import METRICS, SuperpositionResult, observation, train


def sweep(
    configs: Sequence[SuperpositionConfig],
    store: ObservationStore | None,
    pool: Executor | None = None,
    *,
    study: str = "toymodels",
    device: str = "auto",
    keep_arrays: bool = True,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """Train what is not in the store yet, and give the rows of all.

    Parameters
    ----------
    configs
        One run each.
    store
        Where observations, and W, b and losses beside them, are kept; None keeps nothing.
    pool
        Any executor; None trains one after another in this process.
    study
        Name that the observations carry; part of what identifies them.
    device
        As for `train`.
    keep_arrays
        Keep W, b and the loss of every step under the key of the run's loss.
    progress
        Show runs done, steps per second and time left on stderr.

    Returns
    -------
    The lines of ``toymodels superposition --json``, in the order of `configs`.

    Raises
    ------
    ConfigError
        A run cannot be trained, or its workers keep dying. Runs finished before are in the store.
    """
    rows: dict[int, dict[str, Any]] = {}
    stored = {} if store is None else {row.key: row for row in store}
    for index, config in enumerate(configs):
        found = [stored.get(observation(config, study, metric).key) for metric in METRICS]
        if all(found):
            rows[index] = _row(config, [row for row in found if row is not None])
    missing = [index for index in range(len(configs)) if index not in rows]
    total = sum(configs[index].steps for index in missing)
    with tqdm(total=total, unit="step", desc=f"{study}: {len(missing)} runs", disable=not progress or not total) as bar:
        for done, (index, result) in enumerate(_results(configs, missing, store, pool, study, device), start=1):
            if store is not None:
                new = result.observations(study)
                if keep_arrays:
                    arrays = {"W": result.W.numpy(), "b": result.b.numpy(), "losses": result.losses.numpy()}
                    store.save_arrays(new[0].key, arrays)
                store.append(*new)
                _checkpoint(store, configs[index], study).unlink(missing_ok=True)
            rows[index] = result.row()
            bar.update(configs[index].steps)
            bar.set_postfix_str(f"{done}/{len(missing)} runs, last m={configs[index].m} loss {result.loss:.4g}")
    return [rows[index] for index in range(len(configs))]


def trained_arrays(store: ObservationStore, config: SuperpositionConfig, study: str = "toymodels") -> dict[str, Any]:
    """W, b and losses kept by `sweep`; `StoreError` if there are none."""
    return store.load_arrays(observation(config, study, METRICS[0]).key)


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
        threads = max(1, (os.cpu_count() or 1) // workers)
        context = multiprocessing.get_context("spawn")  # a forked torch may hang on its own threads
        with ProcessPoolExecutor(
            workers, mp_context=context, initializer=torch.set_num_threads, initargs=(threads,)
        ) as pool:
            yield pool
    else:
        yield None


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


def _results(
    configs: Sequence[SuperpositionConfig],
    missing: Sequence[int],
    store: ObservationStore | None,
    pool: Executor | None,
    study: str,
    device: str,
) -> Iterator[tuple[int, SuperpositionResult]]:
    def arguments(index: int) -> tuple[SuperpositionConfig, str, Path | None]:
        return configs[index], device, None if store is None else _checkpoint(store, configs[index], study)

    if pool is None:
        for index in missing:
            yield index, _work(*arguments(index))
        return
    # the longest runs first: widths differ in cost, and the last to start should be a short one
    order = sorted(missing, key=lambda index: -configs[index].m * configs[index].steps)
    waiting: dict[Future[SuperpositionResult], int] = {pool.submit(_work, *arguments(i)): i for i in order}
    while waiting:
        future = next(as_completed(waiting))
        index = waiting.pop(future)
        try:
            result = future.result()
        except ProbeError:
            raise
        except BrokenProcessPool as error:
            raise ConfigError(
                "a worker process died", fix="run the same command again: finished runs are kept, this one goes on"
            ) from error
        yield index, result


def _work(config: SuperpositionConfig, device: str, checkpoint: Path | None) -> SuperpositionResult:
    return train(config, device=device, checkpoint=checkpoint)


def _checkpoint(store: ObservationStore, config: SuperpositionConfig, study: str) -> Path:
    return store.path.parent / "checkpoints" / f"{observation(config, study, METRICS[0]).key}.safetensors"


def _row(config: SuperpositionConfig, found: Sequence[Observation]) -> dict[str, Any]:
    values = {row.metric: row.value for row in found}
    names = ("n", "m", "data_exponent", "weight_decay", "activation_density", "steps", "seed")
    seconds = found[0].provenance.record.get("seconds")
    return {**{name: getattr(config, name) for name in names}, **{k: values[k] for k in METRICS}, "seconds": seconds}
