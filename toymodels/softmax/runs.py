"""Many runs of the softmax toy over a store and any executor: what is stored is not trained again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from functools import partial

from llmprobe import study as studies
from llmprobe.device import pick_device
from llmprobe.errors import ConfigError
from llmprobe.observations import Identity, Observation, ObservationStore
from toymodels.softmax.config import SoftmaxConfig
from toymodels.softmax.result import SoftmaxResult, identity
from toymodels.softmax.training import programs, run_all


def run_missing(
    configs: Sequence[SoftmaxConfig],
    store: ObservationStore,
    pool: Executor | None = None,
    *,
    study: str = "softmax",
    device: str = "auto",
    threads: int = 1,
) -> list[SoftmaxResult]:
    """Results of all runs; those not in the store yet are trained, and kept program by program.

    Parameters
    ----------
    pool
        Any executor; None trains in this process.
    device, threads
        As for `run_all`.

    Raises
    ------
    ConfigError
        A run diverged; what was finished before is in the store.
    """
    parts = [[configs[index] for index in part] for part in programs(configs, pick_device(device))]
    work = [_work(part, study, device, threads) for part in parts]
    for name, why in studies.run(work, store, pool, unit="program").items():
        raise ConfigError(f"{name}: {why}")
    rows = {row.key: row for row in store}
    return [_stored(config, store, rows[identity(config, study, "final_loss").key]) for config in configs]


def _work(part: Sequence[SoftmaxConfig], study: str, device: str, threads: int) -> studies.Work:
    identities = tuple(identity(config, study, "final_loss") for config in part)
    measure = partial(_measure, tuple(part), study, device, threads)
    c = part[0]
    name = f"softmax, {c.optimizer}, seed {c.seed}, {len(part)} runs"
    return studies.Work(name, identities, measure, size=c.steps * len(part))


def _measure(
    part: Sequence[SoftmaxConfig], study: str, device: str, threads: int, wanted: tuple[Identity, ...]
) -> Iterator[studies.Result]:
    keys = {one.key for one in wanted}
    missing = [config for config in part if identity(config, study, "final_loss").key in keys]
    for result in run_all(missing, device=device, threads=threads):
        yield studies.Result(result.observations(study), result.arrays())


def _stored(config: SoftmaxConfig, store: ObservationStore, row: Observation) -> SoftmaxResult:
    arrays, record = store.load_arrays(row.key), row.provenance.record
    return SoftmaxResult(
        config, arrays["steps"], arrays["loss"], record["first_loss"], record["seconds"], record["device"]
    )
