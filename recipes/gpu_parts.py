"""The parts of `gpu.py`: what is checked and timed on a GPU. Each is a row of `PARTS`: its name, seconds, and work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from benchmark_losses import measured, plain_loss
from benchmark_toys import DenseToy
from tokenizers import Tokenizer
from tokenizers.models import BPE
from toy_regimes import ALPHAS, GAMMAS
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from llmprobe.loss.corpus import open_corpus
from llmprobe.loss.language_model import LanguageModel, load_model
from llmprobe.loss.windows import Window, cut_windows
from llmprobe.overlap.statistics import overlap_statistics
from toymodels.softmax.config import SoftmaxConfig
from toymodels.softmax.training import run_all as train_softmax
from toymodels.superposition.config import WIDTHS, preset
from toymodels.superposition.features import Batch
from toymodels.superposition.training import Run, schedule
from toymodels.teacher.config import TeacherConfig
from toymodels.teacher.run import run_all as train_students

Values = dict[str, float]
TOLERANCE = {"float64": 1e-9, "float32": 1e-4}  # relative, between devices: rounding, grown by some hundred steps


@dataclass(frozen=True)
class Place:
    """Where a part runs: on `device`, at full size or `tiny`, within `seconds`."""

    device: str
    tiny: bool
    seconds: float

    def time(self, work: Callable[[], object]) -> float:
        """Seconds until the device has done something."""
        wait(self.device)
        began = time.perf_counter()
        work()
        wait(self.device)
        return time.perf_counter() - began


@dataclass(frozen=True)
class Part:
    """One part: what it does, the seconds it may take, and what does it."""

    what: str
    seconds: float
    run: Callable[[Place], Values]


def wait(device: str) -> None:
    """Until the device is idle."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def apart(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray, dtype: str) -> Values:
    """The largest relative difference, and what it may be."""
    x, y = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    scale = np.maximum(np.maximum(abs(x), abs(y)), 1e-300)
    return {f"difference {dtype}": float((abs(x - y) / scale).max()), f"tolerance {dtype}": TOLERANCE[dtype]}


def agree_toy(place: Place) -> Values:
    """Losses of each step and the last parameters, on the device and on the CPU, of the same batches.

    A run draws its data where it trains, so that here the CPU's batches are sent.
    """
    configs = [preset("small", n=200, m=10, batch=256, steps=100, weight_decay=g, seed=3) for g in (-1.0, 0.3)]
    here, there = (Run(configs, torch.device(device), dtype=torch.float64) for device in ("cpu", place.device))
    while here.step < configs[0].steps:
        for batch in islice(here.sampler.chunk(), configs[0].steps - here.step):
            here.learn(batch)
            there.learn(sent(batch, place.device))
    a, b = (torch.cat([run.losses.flatten(), run.P.square().sum((1, 2))]).cpu().numpy() for run in (here, there))
    return apart(a, b, "float64")


def sent(batch: Batch, device: str) -> Batch:
    """The same batch on a device."""
    values = {entry.name: getattr(batch, entry.name) for entry in fields(batch)}
    tensors: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, torch.Tensor)}
    return replace(batch, **tensors)


def agree_teacher(place: Place) -> Values:
    """Curves of students that descend."""
    configs = [TeacherConfig(n=64, k=32, a=1.25, b=b, student="small", time=100.0) for b in (0.5, 1.0)]
    here, there = (
        np.concatenate([run.curve.loss for run in train_students(configs, device=device, dtype=torch.float64)])
        for device in ("cpu", place.device)
    )
    return apart(here, there, "float64")


def agree_softmax(place: Place) -> Values:
    """Curves of softmax toys."""
    configs = [
        SoftmaxConfig(vocabulary=32, width=8, temperature=t, rate=0.3, steps=100, batch=256, optimizer="sgd")
        for t in (0.3, 1.0)
    ]
    here, there = (
        np.concatenate([run.loss for run in train_softmax(configs, device=device)]) for device in ("cpu", place.device)
    )
    return apart(here, there, "float32")


def agree_overlaps(place: Place) -> Values:
    """Every number of the overlaps, all pairs and sampled, raw and centered."""
    found: Values = {}
    for dtype in ("float64", "float32"):
        W = 0.3 + torch.randn(3000, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        W = W.to(getattr(torch, dtype))
        here, there = (
            [number for method in ("exact", "sampled") for number in _numbers(W.to(device), method)]
            for device in ("cpu", place.device)
        )
        found |= apart(here, there, dtype)
    return found


def _numbers(W: torch.Tensor, method: str) -> Iterator[float]:
    statistics = asdict(overlap_statistics(W, method=method))  # type: ignore[arg-type]
    for value in [*statistics.values(), *statistics["centered"].values(), *statistics["norm"].values()]:
        if isinstance(value, float):
            yield value


def step_small(place: Place) -> Values:
    """n = 1000, B = 2048, m = 63: one run and 64 side by side."""
    return _steps(place, 64, {"name": "small", "m": 63}, {"n": 60, "batch": 64, "m": 5})


def step_large(place: Place) -> Values:
    """n = 10240, B = 8192, m = 64: one run and two side by side."""
    return _steps(place, 2, {"name": "large", "m": 64}, {"n": 120, "batch": 64, "m": 5})


def _steps(place: Place, together: int, full: dict[str, float | str], tiny: dict[str, float | str]) -> Values:
    """Milliseconds of a step: dense autograd, ours, and ours per run of several, past the start."""
    changes = {"weight_decay": -1.0, **full, **(tiny if place.tiny else {})}
    count = 5 if place.tiny else 100
    configs = [preset(**changes, seed=seed) for seed in range(together)]  # type: ignore[arg-type]
    dense, share = DenseToy(configs[0], place.device), schedule(configs[0])
    dense.step(share[0])
    found = {"dense ms": 1e3 * place.time(lambda: [dense.step(share[k]) for k in range(count)]) / count}
    for replicas in (1, together):
        run = Run(configs[:replicas], torch.device(place.device))
        run.advance(2 * count)
        seconds = place.time(lambda run=run: run.advance(3 * count))  # type: ignore[misc]
        found[f"ours ms, {replicas} together, each"] = 1e3 * seconds / count / replicas
    return found | {"ratio": found["dense ms"] / found[f"ours ms, {together} together, each"]}


def grid(place: Place) -> Values:
    """A tenth of the grid of Fig. 4b, 17 runs of each width side by side; the whole is ten times as many."""
    cells = [(g, a) for g in GAMMAS for a in ALPHAS][::10]
    small = {"n": 60, "batch": 64, "steps": 20} if place.tiny else {}
    widths = WIDTHS["small"][:2] if place.tiny else WIDTHS["small"]
    hours, found = 0.0, {"runs": float(len(cells) * len(widths))}
    for m in widths:
        configs = [preset("small", m=m, weight_decay=g, data_exponent=a, **small) for g, a in cells]
        run, steps = Run(configs, torch.device(place.device)), configs[0].steps
        until, seconds = time.perf_counter() + 0.9 * place.seconds / len(widths), 0.0
        while run.step < steps and time.perf_counter() < until:
            seconds += place.time(lambda run=run: run.advance(run.step + 500))  # type: ignore[misc]
        found[f"m = {m}: steps of {steps}"], found[f"m = {m}: ms"] = float(run.step), 1e3 * seconds / run.step
        hours += 10 * seconds / run.step * steps / 3600
    return found | {"whole grid, hours": hours}


def student(place: Place) -> Values:
    """The student `small` at N = 4096, K = 2048, until t = 1000."""
    n, until = (64, 20.0) if place.tiny else (4096, 1000.0)
    config = TeacherConfig(n=n, k=n // 2, a=1.25, b=0.5, student="small", time=until)
    found = []
    seconds = place.time(lambda: found.extend(train_students([config], device=place.device)))
    curve = found[0].curve
    steps = curve.t[-1] / curve.rate
    return {"steps": steps, "seconds": seconds, "ms a step": 1e3 * seconds / steps, "last loss": float(curve.loss[-1])}


def softmax(place: Place) -> Values:
    """Eight temperatures by eight rates in one tensor program."""
    shape = {"vocabulary": 16, "width": 4, "steps": 20} if place.tiny else {"vocabulary": 128, "width": 32}
    configs = [
        SoftmaxConfig(temperature=float(t), rate=float(r), **shape)  # type: ignore[arg-type]
        for t in np.geomspace(1e-3, 1, 8)
        for r in np.geomspace(0.01, 0.3, 8)
    ]
    seconds = place.time(lambda: train_softmax(configs, device=place.device))
    return {"runs": 64.0, "steps a run": float(configs[0].steps), "seconds": seconds,
            "run steps a second": sum(c.steps for c in configs) / seconds}  # fmt: skip


def loss(place: Place) -> Values:
    """Tokens per second beside a plain forward of one window after another."""
    found = {}
    for dtype in ("float32", "bfloat16"):
        model, windows = _tiny_model(place, dtype) if place.tiny else _sample(place, dtype)
        plain, plain_seconds = _scored(place, model, windows, _plain)
        ours, seconds = _scored(place, model, windows, measured)
        tokens = sum(window.scored for window in windows)
        found[f"plain tokens/s, {dtype}"], found[f"ours tokens/s, {dtype}"] = tokens / plain_seconds, tokens / seconds
        found[f"ours - plain in nats, {dtype}"] = ours - plain
    return found


def _scored(
    place: Place, model: LanguageModel, windows: list[Window], way: Callable[[LanguageModel, list[Window]], float]
) -> tuple[float, float]:
    """The loss one way, and its seconds once the device is warm."""
    way(model, windows[:2])
    value: list[float] = []
    seconds = place.time(lambda: value.append(way(model, windows)))
    return value[0], seconds


def _plain(model: LanguageModel, windows: list[Window]) -> float:
    return plain_loss(model, windows) / sum(window.scored for window in windows)


def _sample(place: Place, dtype: str) -> tuple[LanguageModel, list[Window]]:
    model = load_model("sample:smollm2-135m", dtype=dtype, device=place.device)
    return model, list(cut_windows(open_corpus("stdlib"), model.tokenizer, context=1024, max_tokens=1 << 17))


def _tiny_model(place: Place, dtype: str) -> tuple[LanguageModel, list[Window]]:
    config = LlamaConfig(
        vocab_size=97, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with _seeded(0):
        network = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)).eval().to(place.device)
    windows = [Window(0, tuple(range(k, k + 33)), 32) for k in range(8)]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()))
    return LanguageModel(network, tokenizer, "random", "", dtype, place.device, 64), windows


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def overlaps(place: Place) -> Values:
    """A matrix of the size of Gemma 3 27B's, float32, sampled and all pairs."""
    n, m = (2000, 32) if place.tiny else (262144, 5376)
    generator = torch.Generator(place.device).manual_seed(0)
    W = torch.randn(n, m, generator=generator, device=place.device)
    found = {}
    for method in ("sampled", "exact"):
        found[f"{method} seconds"] = place.time(lambda method=method: overlap_statistics(W, method=method))  # type: ignore[misc]
    products = place.time(lambda: [W[k : k + 4096].T @ W[k : k + 4096] for k in range(0, n, 4096)])
    return found | {"one full product, seconds": products}


# Seconds are those of one H100 with room to spare; their sum is below ten minutes.
PARTS = {
    "agree-toy": Part("the toy step, device against CPU", 20, agree_toy),
    "agree-teacher": Part("students, device against CPU", 20, agree_teacher),
    "agree-softmax": Part("softmax toys, device against CPU", 20, agree_softmax),
    "agree-overlaps": Part("overlaps, device against CPU", 20, agree_overlaps),
    "step-small": Part("the toy step at n = 1000 beside dense autograd", 30, step_small),
    "step-large": Part("the toy step at n = 10240 beside dense autograd", 40, step_large),
    "grid": Part("a tenth of the grid of Fig. 4b", 200, grid),
    "student": Part("the student `small` at N = 4096", 70, student),
    "softmax": Part("a sweep of softmax toys", 40, softmax),
    "loss": Part("loss of the sample model beside a plain forward", 70, loss),
    "overlaps": Part("overlaps of a 262144 × 5376 matrix", 60, overlaps),
}
