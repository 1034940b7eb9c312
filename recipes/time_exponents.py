"""Exponents in training time: toys with mean square error, toys with softmax, real checkpoints, and what was published.

Teacher–student toys fall as 1/t, or near it, once features are superposed (arXiv:2602.01045); softmax on peaked targets
falls as τ^(−1/3), τ = ∫ rate (arXiv:2602.03685). Which of them does a language model resemble? Every curve is read by
a rule stated beforehand; where there is no power law, none is given. The checkpoints come from runs of
`train_width_ladder.py` or `checkpoint_dynamics.py`, τ from the schedule in the table of families.

    python recipes/time_exponents.py                                    toys alone, some minutes on two cores
    python recipes/time_exponents.py --runs runs/ladder-quick --toml runs/ladder-quick/ladder.toml
"""

from __future__ import annotations

import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from checkpoint_clocks import clocks, compared, held, read, tau
from time_exponents_curves import PUBLISHED, Curve, figure, table

from llmprobe import console
from llmprobe.errors import ConfigError, FitError
from llmprobe.families import find_member, load_families
from llmprobe.observations import Observation, ObservationStore
from llmprobe.report.figures import save
from llmprobe.settings import Count, Natural, Positive
from toymodels.executors import Machine
from toymodels.softmax import SoftmaxConfig, SoftmaxResult, run_missing
from toymodels.softmax.theory import aligned_curve
from toymodels.softmax.training import Task
from toymodels.teacher import run as teacher
from toymodels.teacher.config import TeacherConfig
from toymodels.teacher.result import TeacherResult

STUDY = "time_exponents"
STUDENTS = ("random", "interference", "small")
RATES = {"adam": "adam_rates", "sgd": "sgd_rates"}
INPUTS = 10_000  # for the student that stays aligned with its teacher


@dataclass(frozen=True, kw_only=True)
class Config(Machine):
    """Exponents in training time of toys and of real checkpoints, on one figure."""

    n: Count = 256
    """Features of the students."""
    a: Positive = 1.5
    """Data exponent of the students."""
    b: Positive = 1.0
    """Teacher exponent of the students."""
    temperatures: tuple[Positive, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 1.0)
    """T of the softmax toys."""
    adam_rates: tuple[Positive, ...] = (0.1,)
    """Rates of the softmax toys under Adam."""
    sgd_rates: tuple[Positive, ...] = (30.0,)
    """Rates of the softmax toys under SGD."""
    steps: Count = 2000
    """Steps of the softmax toys."""
    seeds: tuple[Natural, ...] = (0, 1, 2)
    """Seeds of all toys."""
    runs: tuple[Path, ...] = ()
    """Folders that hold losses of checkpoints (observations.jsonl, also in training/)."""
    toml: tuple[str, ...] = ()
    """Files of your own families, with the schedules of these checkpoints."""
    out: Path = Path("runs/time_exponents")
    """Where observations, the figure and the table go."""


def main(config: Config) -> None:
    """Train what is missing, read every curve, draw, and print the table."""
    store = ObservationStore(config.out / "observations.jsonl")
    curves = [*students(config, store), *softmax(config, store), *checkpoints(config)]
    text = table(curves)
    console.say(text)
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "table.txt").write_text(text + "\n", encoding="utf-8")
    save(figure(curves), str(config.out / "time_exponents.png"))
    console.say(f"\nfigure and table in {config.out.resolve()}")


def students(config: Config, store: ObservationStore) -> Iterator[Curve]:
    """Mean square error: theory without superposition, the same as a run, and the three students."""
    task = TeacherConfig(config.n, max(1, config.n // 2), config.a, config.b, "none")
    # the control of `small` is linear here: with W = 1 and a tiny start most of its ReLUs are dead
    own: list[tuple[str, str, bool, dict[str, Any]]] = [("none, theory", "none", True, {})]
    own += [("none, run", "small", False, {"relu": False, "trains": ("B",)})]
    for label, name, superposed, options in [*own, *((name, name, True, {}) for name in STUDENTS)]:
        seeds = config.seeds if name != "none" else (0,)
        made = (task.n, task.k, task.a, task.b, name, superposed)
        grid = [TeacherConfig(*made, seed, options=options) for seed in seeds]
        results = teacher.run_missing(grid, store, study=STUDY, device=config.device, progress=True)
        yield Curve.of(label, "mean square", "t", [_student(result) for result in results])


def _student(result: TeacherResult) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float, float] | str]:
    try:
        found = result.fit
    except FitError as error:
        return result.curve.t, result.curve.loss, error.read
    return result.curve.t, result.curve.loss, (found.exponent, found.stderr, found.window.lo, found.window.hi)


def softmax(config: Config, store: ObservationStore) -> Iterator[Curve]:
    """Softmax toys by optimizer, rate and temperature; under SGD the closed form's curve beside each."""
    with config.executor() as pool:
        for optimizer, name in RATES.items():
            rates: tuple[float, ...] = getattr(config, name)
            grid = [
                SoftmaxConfig(temperature=t, rate=rate, optimizer=optimizer, steps=config.steps, seed=seed)  # type: ignore[arg-type]
                for rate, t, seed in itertools.product(rates, config.temperatures, config.seeds)
            ]
            found = run_missing(grid, store, pool, study=STUDY, device=config.device)
            groups: dict[tuple[float, float], list[SoftmaxResult]] = defaultdict(list)
            for result in found:
                groups[result.config.rate, result.config.temperature].append(result)
            for (rate, t), results in groups.items():
                theory = flow(results[0]) if optimizer == "sgd" else None
                label = f"{optimizer} {rate:g}, T = {t:g}"
                yield Curve.of(label, "softmax", "τ", [_softmax(result) for result in results], theory)


def _softmax(result: SoftmaxResult) -> tuple[np.ndarray, np.ndarray, tuple[float, float, float, float] | str]:
    found = result.fit
    if found is None:
        return result.tau, result.loss, result.warnings[0]
    return result.tau, result.loss, (found.exponent, found.stderr, found.window.lo, found.window.hi)


def flow(result: SoftmaxResult) -> np.ndarray:
    """Loss of the student that stays aligned with its teacher under gradient flow, at this run's τ."""
    task = Task(result.config, [result.config.temperature], torch.device("cpu"))
    teacher_head, x = task.teacher.double().numpy(), task.inputs(INPUTS).double().numpy()
    return aligned_curve(teacher_head, x, result.tau, result.config.temperature)


def checkpoints(config: Config) -> Iterator[Curve]:
    """Losses of checkpoints, a curve per model and corpus, against τ.

    Raises
    ------
    ConfigError
        A folder holds no such losses, or no schedule of theirs is known.
    """
    families = load_families(*config.toml)
    for run in config.runs:
        models: dict[tuple[str, ...], dict[int, Observation]] = defaultdict(dict)
        taus: dict[str, float | None] = {}
        warm: dict[str, int] = {}
        for row in _losses(run):
            belongs = find_member(families, row.model)
            taus[row.model] = tau(*belongs, row.step) if belongs and row.step else None
            if belongs and row.step and taus[row.model] is not None:
                warm[row.model] = belongs[0].warmup_steps
                models[row.family, str(row.m), row.corpus, str(row.provenance.settings)][row.step] = row
        if unknown := sorted(model for model, one in taus.items() if one is None):
            console.progress(f"{run}: left out, as no schedule is known: {', '.join(unknown)}")
        if not models:
            raise ConfigError(
                f"{run} holds no losses of checkpoints whose schedule is known",
                expected="steps, and peak_rate, steps and warmup_steps in the table of families",
                fix="name the table by --toml",
            )
        for (family, m, corpus, _), by_step in sorted(models.items(), key=lambda item: int(item[0][1])):
            rows = [by_step[step] for step in sorted(by_step)]
            late = [row for row in rows if (row.step or 0) >= warm[row.model]]
            times = [taus[row.model] or 0.0 for row in late]
            kinds = {kind: value for kind, (value, _) in PUBLISHED.items()}
            beside = f"after the warm-up {held('tau', times, [row.value for row in late], kinds)}"
            yield _checkpoints(f"{family} m = {m}, {corpus}", rows, taus, beside)


def _losses(run: Path) -> Iterator[Observation]:
    for place in (run, run / "training"):
        yield from ObservationStore(place / "observations.jsonl").select(source_kind="llm", metric="loss")


def _checkpoints(name: str, rows: Sequence[Observation], taus: dict[str, float | None], beside: str) -> Curve:
    losses = [row.value for row in rows]
    by_clock = {clock: read(clock, x, losses) for clock, x in clocks(rows, taus).items()}
    reading = by_clock["tau"]
    notes = [beside, *compared(list(by_clock.values()), losses)]
    if reading.offset is not None:
        low, high = reading.offset.ci95["alpha_tau"]
        value, error = reading.offset.params["alpha_tau"], reading.offset.stderr["alpha_tau"]
        loose = [warning for warning in reading.offset.warnings if "alpha_tau" in warning or "E" in warning]
        told = f"{value:.3f} ± {error:.3f}, 95 % {low:.3f} to {high:.3f}"
        notes.insert(0, f"less an offset: {told}{'; not identified' if loose or not np.isfinite(error) else ''}")
    found = reading.stretch
    exponent: tuple[float, float, float, float] | str = reading.problems[0] if found is None else (
        found.exponent, found.stderr, found.window.lo, found.window.hi
    )  # fmt: skip
    return Curve.of(name, "language model", "τ", [(reading.x, np.array(losses), exponent)], notes=notes)


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
