"""Many runs over any `concurrent.futures.Executor`: processes here, or dask workers anywhere.

The parent alone writes the store, so workers need no shared disk; a run whose observations exist is not repeated.
Checkpoints lie beside the store (``<folder>/checkpoints``); where workers share that folder, a run whose worker
died resumes from the last one, elsewhere it starts again. Either way it ends with the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from llmprobe.device import pick_device
from llmprobe.errors import StoreError
from llmprobe.names import printable
from llmprobe.observations import Observation, ObservationStore
from llmprobe.study import handed_out
from toymodels.processes import Processes, report
from toymodels.superposition.checkpoint import forget_checkpoint
from toymodels.superposition.config import SuperpositionConfig
from toymodels.superposition.result import METRICS, SuperpositionResult, identities
from toymodels.superposition.training import shared_settings, train_replicas


def sweep(
    configs: Sequence[SuperpositionConfig],
    store: ObservationStore | None,
    pool: Executor | None = None,
    *,
    study: str = "toymodels",
    device: str = "auto",
    threads: int = 1,
    replicas: int | None = None,
    compiled: bool = False,
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
    device, threads, compiled
        As for `train`; `threads` is per run, so workers times threads should not exceed the cores.
    replicas
        Runs of equal shape and schedule trained in one batched loop; left out, 1 on a CPU, where rarely firing
        outputs are worth more, and 128 elsewhere. Results agree to rounding.
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
    folder = None if store is None else store.path.parent / "checkpoints"
    for index, config in enumerate(configs):
        found = [stored.get(one.key) for one in identities(config, study)]
        if all(found):
            rows[index] = _row(config, [row for row in found if row is not None])
            forget_checkpoint(_checkpoint(folder, [config], study))  # of a run killed after it was stored
    missing = [index for index in range(len(configs)) if index not in rows]
    total = sum(configs[index].steps for index in missing)
    with tqdm(total=total, unit="step", desc=printable(study), smoothing=0.1, disable=not progress or not total) as bar:
        together = replicas or (1 if pick_device(device) == "cpu" else 128)
        units = _units(configs, missing, together)
        work = _Work(configs, units, folder, study, {"device": device, "threads": threads, "compiled": compiled}, bar)
        for done, (index, result) in enumerate(work.results(pool), start=1):
            rows[index] = result.row()
            if store is not None:
                try:
                    _keep(store, study, result, arrays=keep_arrays)
                except StoreError as error:
                    error.measured = [rows[i] for i in missing if i in rows]
                    raise
                work.forget(index)
            bar.set_postfix_str(f"{done}/{len(missing)} runs, last m={configs[index].m} loss {result.loss:.4g}")
    return [rows[index] for index in range(len(configs))]


def _keep(store: ObservationStore, study: str, result: SuperpositionResult, *, arrays: bool) -> None:
    """Arrays first: a run counts as done once its rows are there."""
    new = result.observations(study)
    if arrays:
        whole = {"W": result.W.numpy(), "b": result.b.numpy(), "losses": result.losses.numpy()}
        store.save_arrays(new[0].key, whole)
    store.append(*new)


def trained_arrays(store: ObservationStore, config: SuperpositionConfig, study: str = "toymodels") -> dict[str, Any]:
    """W, b and losses kept by `sweep`; `StoreError` if there are none."""
    return store.load_arrays(_key(config, study))


def _units(configs: Sequence[SuperpositionConfig], missing: Sequence[int], size: int) -> list[tuple[int, ...]]:
    """Runs that may share a loop, `size` at most in each."""
    alike: dict[str, list[int]] = {}
    for i in missing:
        alike.setdefault(repr(shared_settings(configs[i])), []).append(i)
    return [tuple(group[k : k + size]) for group in alike.values() for k in range(0, len(group), size)]


class _Work:
    """The runs to train: handed out, handed out again when their worker dies, and counted."""

    def __init__(
        self,
        configs: Sequence[SuperpositionConfig],
        units: Sequence[tuple[int, ...]],
        folder: Path | None,
        study: str,
        place: dict[str, Any],
        bar: Any,
    ) -> None:
        self.bar = bar
        self.units = {unit: [configs[i] for i in unit] for unit in units}
        self._unstored = {unit: set(unit) for unit in units}
        self.options = {
            unit: {**place, "keep_checkpoint": True, "checkpoint": _checkpoint(folder, runs, study)}
            for unit, runs in self.units.items()
        }

    def forget(self, index: int) -> None:
        """A run is stored; its checkpoint goes when all that share it are."""
        for unit, left in self._unstored.items():
            if index in left:
                left.remove(index)
                if not left:
                    forget_checkpoint(self.options[unit]["checkpoint"])

    def results(self, pool: Executor | None) -> Iterator[tuple[int, SuperpositionResult]]:
        if pool is None:
            for unit, runs in self.units.items():
                yield from zip(unit, train_replicas(runs, report=self.bar.update, **self.options[unit]), strict=True)
            return
        # the longest first: widths differ in cost, and the last to start should be a short one
        order = sorted(self.units, key=lambda unit: -sum(c.m * c.steps for c in self.units[unit]))
        calls = {unit: partial(_work, self.units[unit], **self.options[unit]) for unit in order}
        for unit, result in handed_out(pool, calls, tick=lambda: self._count(pool, 0)):
            yield from zip(unit, result(), strict=True)
            self._count(pool, sum(c.steps for c in self.units[unit]))

    def _count(self, pool: Executor, steps: int) -> None:
        if isinstance(pool, Processes):
            self.bar.n = min(pool.steps.value, self.bar.total)
            self.bar.refresh()
        else:
            self.bar.update(steps)


def _work(runs: Sequence[SuperpositionConfig], **options: Any) -> list[SuperpositionResult]:
    return train_replicas(runs, report=report, **options)


def _checkpoint(folder: Path | None, runs: Sequence[SuperpositionConfig], study: str) -> Path | None:
    if folder is None:
        return None
    names = "".join(_key(config, study) for config in runs)
    return folder / f"{names if len(runs) == 1 else hashlib.sha256(names.encode()).hexdigest()[:16]}.safetensors"


def _key(config: SuperpositionConfig, study: str) -> str:
    return identities(config, study)[0].key


def _row(config: SuperpositionConfig, found: Sequence[Observation]) -> dict[str, Any]:
    values = {row.metric: row.value for row in found}
    names = ("n", "m", "data_exponent", "weight_decay", "activation_density", "steps", "seed")
    seconds = found[0].provenance.record.get("seconds")
    return {**{name: getattr(config, name) for name in names}, **{k: values[k] for k in METRICS}, "seconds": seconds}
