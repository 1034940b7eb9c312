"""Sweeps: skipping what is stored, any executor, workers that die."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import pytest
import torch

from llmprobe.errors import ConfigError
from llmprobe.observations import ObservationStore
from toymodels.executors import executor
from toymodels.processes import Processes
from toymodels.superposition.config import SuperpositionConfig
from toymodels.superposition.runs import sweep, trained_arrays

TINY = SuperpositionConfig(n=60, m=5, batch=128, steps=200, seed=3)
GRID = [dataclasses.replace(TINY, m=m, weight_decay=g) for g in (-1.0, 0.3) for m in (4, 8)]


def values(store: ObservationStore) -> dict[str, float]:
    return {row.key: row.value for row in store}


def without_time(rows: list[dict]) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def serial(tmp_path_factory: pytest.TempPathFactory) -> ObservationStore:
    store = ObservationStore(tmp_path_factory.mktemp("serial") / "o.jsonl")
    sweep(GRID, store, progress=False)
    return store


def test_a_second_sweep_trains_nothing(serial, tmp_path, monkeypatch) -> None:
    first = sweep(GRID, serial, progress=False)
    monkeypatch.setattr("toymodels.superposition.runs.train_replicas", None)
    assert sweep(GRID, serial, progress=False) == first
    assert without_time(first)[0]["m"] == 4
    assert len(values(serial)) == 14 * len(GRID)  # four of its own, ten overlaps


def test_only_what_is_missing_is_trained(serial, tmp_path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    sweep(GRID[:2], store, progress=False)
    sweep(GRID, store, progress=False)
    assert values(store) == values(serial)


def test_arrays_are_kept(serial) -> None:
    arrays = trained_arrays(serial, GRID[0])
    assert arrays["W"].shape == (60, 4)
    assert arrays["b"].shape == (60,)
    assert arrays["losses"].shape == (200,)
    assert not list((serial.path.parent / "checkpoints").glob("*"))


def test_processes_give_the_same_bits(serial, tmp_path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    with executor(2) as pool:
        rows = sweep(GRID, store, pool, progress=False)
    assert values(store) == values(serial)
    assert [(row["m"], row["weight_decay"]) for row in rows] == [(c.m, c.weight_decay) for c in GRID]
    assert (trained_arrays(store, GRID[3])["W"] == trained_arrays(serial, GRID[3])["W"]).all()


def test_runs_of_equal_shape_in_one_loop_agree_to_rounding(serial, tmp_path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    rows = sweep(GRID, store, replicas=8, progress=False)
    expected = sweep(GRID, serial, progress=False)
    assert [row["m"] for row in rows] == [4, 8, 4, 8]
    assert values(store).keys() == values(serial).keys()
    for row, other in zip(rows, expected, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-3)


def test_a_killed_process_loses_nothing(serial, tmp_path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    with Processes(2) as pool:
        victim = pool.submit(os.getpid).result()
        killer = threading.Thread(target=kill_when_busy, args=(victim, pool))
        killer.start()
        sweep(GRID, store, pool, progress=False)
        killer.join()
        assert pool.submit(os.getpid).result() != victim
    assert values(store) == values(serial)


def kill_when_busy(victim: int, pool: Processes) -> None:
    while pool.steps.value == 0:
        time.sleep(0.01)
    os.kill(victim, signal.SIGKILL)


def test_workers_that_keep_dying_are_an_error(tmp_path) -> None:
    class Broken(Executor):
        def submit(self, fn, /, *args, **kwargs):
            future: Future = Future()
            future.set_exception(BrokenProcessPool("gone"))
            return future

    with pytest.raises(ConfigError, match="died 3 times"):
        sweep(GRID[:1], None, Broken(), progress=False)


def test_a_dask_worker_killed_in_the_middle_loses_nothing(serial, tmp_path) -> None:
    """A scheduler and two workers on loopback, one killed with -9 while it trains: the same observations."""
    store = ObservationStore(tmp_path / "o.jsonl")
    with dask_cluster(tmp_path, workers=2) as (address, processes), executor(cluster=address) as pool:
        killer = threading.Thread(target=kill_after_a_first_result, args=(processes[0], store))
        killer.start()
        sweep(GRID, store, pool, progress=False)
        killer.join()
        assert processes[0].wait() == -signal.SIGKILL
    assert values(store) == values(serial)


def kill_after_a_first_result(victim: subprocess.Popen, store: ObservationStore) -> None:
    while not store.path.exists():
        time.sleep(0.01)
    victim.kill()


@contextmanager
def dask_cluster(folder, workers: int):
    """The address of a scheduler, and its worker processes, started as a user would by hand."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "DASK_DISTRIBUTED__WORKER__DAEMON": "False"}
    options = {"cwd": folder, "env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    dask = [sys.executable, "-m", "dask"]
    file = folder / "scheduler.json"
    scheduler = subprocess.Popen(
        [*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        **options,
    )
    arguments = ["--scheduler-file", str(file), "--nthreads", "1", "--no-nanny", "--no-dashboard"]
    found = []
    try:
        deadline = time.monotonic() + 30
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        address = json.loads(file.read_text())["address"]
        found = [subprocess.Popen([*dask, "worker", *arguments], **options) for _ in range(workers)]
        yield address, found
    finally:
        for process in [*found, scheduler]:
            process.kill()
            process.wait()


def test_no_scheduler_at_the_address() -> None:
    with pytest.raises(ConfigError, match="no dask scheduler"), executor(cluster="not an address"):
        pass


KEYS = "n m data_exponent weight_decay activation_density steps seed loss loss_std mean_sq_cos phi_half phi_one seconds"


def test_the_command_prints_a_json_line_per_width(tmp_path) -> None:
    options = ["--n", "60", "--widths", "4", "8", "--batch", "128", "--steps", "200", "--seed", "3", "--json"]
    command = [
        sys.executable,
        "-c",
        "import sys; from toymodels.cli import main; sys.exit(main())",
        "superposition",
    ]
    command += [*options, "--weight-decay", "-1", "--store", str(tmp_path / "o.jsonl")]
    first, again = (subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(2))
    lines = [json.loads(line) for line in first.stdout.splitlines()]
    assert [list(line) for line in lines] == [KEYS.split()] * 2
    assert [line["m"] for line in lines] == [4, 8]
    for line, other in zip(lines, map(json.loads, again.stdout.splitlines()), strict=True):
        assert other.pop("seconds") == pytest.approx(line.pop("seconds"), abs=1e-3)
        assert other == line


BAD = {
    "width m = 70": ["--widths", "70"],
    "frequency law 'zipf'": ["--frequency-law", "zipf"],
    "activation density 50": ["--activation-density", "50"],
    "do not fit in memory": ["--batch", "100000000000"],
    "unknown preset 'huge'": ["--preset", "huge"],
    "--device quantum": ["--device", "quantum"],
    "no dask scheduler": ["--cluster", "nowhere"],
}


def test_bad_input_is_one_line_and_status_two() -> None:
    base = ["superposition", "--n", "60", "--widths", "4", "--steps", "5", "--batch", "16"]
    script = f"from toymodels.cli import main; print([main({base} + more) for more in {list(BAD.values())}])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [2] * len(BAD)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == len(BAD)
    for message, error in zip(BAD, errors, strict=True):
        assert message in error
    assert "Traceback" not in done.stderr


def test_one_thread_or_two_share_their_seed(serial) -> None:
    """What a process does besides must not reach the numbers: the global generator is left alone."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    rows = sweep(GRID[:1], None, progress=False)
    assert torch.equal(before, torch.get_rng_state())
    assert rows[0]["loss"] == sweep(GRID[:1], serial, progress=False)[0]["loss"]
