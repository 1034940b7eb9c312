"""Training runs of the toy model: schedule, loop, and going on after a kill.

Runs of equal shape and schedule may share one loop as replicas; each keeps its own seed, data and weight decay, so
R replicas equal R single runs up to rounding. A run that was killed resumes from its last checkpoint and ends bit for
bit where it would have ended.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from llmprobe.device import pick_device, torch_threads
from llmprobe.errors import ConfigError, StoreError
from llmprobe.observations import Scalar
from toymodels.seeds import stream
from toymodels.superposition.checkpoint import own_checkpoint, read_checkpoint, write_checkpoint
from toymodels.superposition.config import SuperpositionConfig
from toymodels.superposition.features import CHUNK_EVENTS, Batch, Sampler
from toymodels.superposition.gradient import Gradient
from toymodels.superposition.optimizer import AdamW
from toymodels.superposition.result import SuperpositionResult

log = logging.getLogger(__name__)
CHECKPOINT_SECONDS = 30.0
OWN_TO_REPLICAS = ("weight_decay", "data_exponent", "frequency_law", "decay_length", "activation_density", "seed")


def schedule(config: SuperpositionConfig) -> list[float]:
    """Share of the peak rate at each step: linear warm-up, then a cosine down to `final_rate`."""
    warm = round(config.warmup * config.steps)
    rest = max(1, config.steps - warm)
    shares = [(step + 1) / warm for step in range(warm)]
    low = config.final_rate
    return shares + [low + (1 - low) * 0.5 * (1 + math.cos(math.pi * k / rest)) for k in range(config.steps - warm)]


def train(config: SuperpositionConfig, **options: Any) -> SuperpositionResult:
    """Train one model; options as for `train_replicas`."""
    return train_replicas([config], **options)[0]


def train_replicas(
    configs: Sequence[SuperpositionConfig],
    *,
    device: str = "auto",
    checkpoint: Path | None = None,
    keep_checkpoint: bool = False,
    block_bytes: int | None = None,
    report: Callable[[int], object] | None = None,
    threads: int = 1,
    dtype: torch.dtype = torch.float32,
    compiled: bool = False,
) -> list[SuperpositionResult]:
    """Train models of equal shape and schedule side by side.

    Parameters
    ----------
    configs
        They may differ in γ, frequencies, density and seed only.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    checkpoint
        File to keep the state in, and to resume from when it exists; removed at the end.
    keep_checkpoint
        Leave the file there with the finished run in it, for the caller to remove by `forget_checkpoint` once the
        results are stored.
    block_bytes
        Size of the largest intermediate array; changes the result by rounding only.
    threads
        Cores for the products on a CPU. One by default: the step is bound by memory, runs are better trained side
        by side, and a product split over threads rounds differently.
    compiled
        Fuse the dense passes by `torch.compile`: for long runs on a GPU.
    report
        Called now and then with the number of steps done since the last call.

    Raises
    ------
    ConfigError
        Configs that cannot share a loop, a run too large for memory, or one that diverged.
    StoreError
        The checkpoint cannot be written.
    """
    _check_shared(configs)
    place = torch.device(pick_device(device))
    _check_memory(configs, place)
    try:
        with torch_threads(threads), own_checkpoint(checkpoint) as own:
            run = Run(configs, place, block_bytes, dtype, compiled=compiled)
            if own is not None:
                run.resume(own)
            run.loop(own, report)
            if own is not None and keep_checkpoint:
                run.save_last(own)
            elif own is not None:
                own.unlink(missing_ok=True)
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise _too_large(configs) from error
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise _too_large(configs) from error
    seconds = run.seconds / len(configs)
    P, losses = run.P.cpu(), run.losses.cpu()
    return [
        SuperpositionResult(c, p[:, :-1].contiguous(), p[:, -1].contiguous(), loss, seconds, str(place))
        for c, p, loss in zip(configs, P, losses, strict=True)
    ]


class Run:
    """The state of a loop: parameters, moments, generators, losses so far."""

    def __init__(
        self,
        configs: Sequence[SuperpositionConfig],
        device: torch.device,
        block_bytes: int | None = None,
        dtype: torch.dtype = torch.float32,
        *,
        compiled: bool = False,
    ) -> None:
        self.configs, self.config = configs, configs[0]
        c = self.config
        p = torch.stack([k.frequencies() for k in configs])
        self.P = torch.stack([initial(k) for k in configs]).to(device, dtype)
        self.optimizer = AdamW(self.P, [k.weight_decay for k in configs])
        seeds = [stream(k.seed, "data") for k in configs]
        self.sampler = Sampler(p, c.batch, seeds, amplitude=c.amplitude_law, device=device, dtype=dtype)
        weights = None
        if c.importance != 1:
            weights = c.importance ** torch.arange(c.n, dtype=dtype, device=device)
        self.gradient = Gradient(weights, block_bytes, compiled=compiled)
        self.losses = torch.zeros(len(configs), c.steps, dtype=dtype, device=device)
        self.step, self.seconds = 0, 0.0
        self._share = schedule(c)
        self._batches: Iterator[Batch] = iter(())

    def advance(self, until: int) -> None:
        """Train up to step `until`. Nothing here waits for the device."""
        while self.step < min(until, self.config.steps):
            batch = next(self._batches, None)
            if batch is None:
                self._batches = self.sampler.chunk()
                continue
            self.learn(batch)

    def learn(self, batch: Batch) -> None:
        """One step on this batch."""
        c, share = self.config, self._share[self.step]
        loss, grad = self.gradient(self.P, batch)
        self.losses[:, self.step] = loss * (1 / c.batch)
        slope = 1 / (c.batch * c.n)  # the optimizer sees the loss per feature
        self.optimizer.step(grad.mul_(slope), c.peak_rate * share, c.peak_bias_rate * share)
        self.step += 1

    def loop(self, checkpoint: Path | None, report: Callable[[int], object] | None) -> None:
        """Train to the end, chunk by chunk, looking for divergence and keeping checkpoints in between."""
        began = saved = time.perf_counter()
        while self.step < self.config.steps:
            first = self.step
            self.advance(first + self.sampler.steps)
            self._check()
            if report is not None:
                report((self.step - first) * len(self.configs))
            if checkpoint is not None and time.perf_counter() - saved > CHECKPOINT_SECONDS:
                self.save(checkpoint, self.seconds + time.perf_counter() - began)
                saved = time.perf_counter()
        self.seconds += time.perf_counter() - began

    def save_last(self, checkpoint: Path) -> None:
        """Keep the finished run; where the disk is full it is still given back."""
        try:
            self.save(checkpoint, self.seconds)
        except StoreError as error:
            log.warning("%s", error)

    def _check(self) -> None:
        last = self.losses[:, self.step - 1]
        if not bool(torch.isfinite(last).all()):
            raise ConfigError(
                f"training diverged before step {self.step}: the loss is {last.tolist()}", fix="lower --rate"
            )

    def save(self, path: Path, seconds: float) -> None:
        """Write the state at the end of a chunk."""
        arrays = {
            "P": self.P,
            "mean": self.optimizer.mean,
            "square": self.optimizer.square,
            "losses": self.losses[:, : self.step].contiguous(),
            "generators": self.sampler.state(),
        }
        state = {"step": self.step, "seconds": seconds, "gradient": self.gradient.state()}
        write_checkpoint(path, self._identity(), arrays, state)

    def resume(self, path: Path) -> None:
        """Resume from a state that `save` wrote; without one, stay at the start."""
        kept = read_checkpoint(path, self._identity())
        if kept is None:
            return
        arrays, state = kept
        self.step, self.seconds = state["step"], state["seconds"]
        self.optimizer.steps = self.step
        self.P.copy_(arrays["P"])
        self.optimizer.mean.copy_(arrays["mean"])
        self.optimizer.square.copy_(arrays["square"])
        self.losses[:, : self.step] = arrays["losses"].to(self.losses)
        self.sampler.restore(arrays["generators"])
        self.gradient.restore(state["gradient"])

    def _identity(self) -> str:
        return json.dumps([asdict(c) for c in self.configs], sort_keys=True)


def initial(config: SuperpositionConfig) -> Float[Tensor, "n m1"]:
    """P = [W | b] at the start: W from N(0, 1/m), b from N(0, bias_start²); drawn on the CPU whatever the device."""
    generator = torch.Generator().manual_seed(stream(config.seed, "start"))
    P = torch.randn(config.n, config.m + 1, generator=generator)
    P[:, :-1] /= math.sqrt(config.m)
    P[:, -1] *= config.bias_start
    return P


def shared_settings(config: SuperpositionConfig) -> dict[str, Scalar]:
    """What must agree between runs that share a loop."""
    return {k: v for k, v in asdict(config).items() if k not in OWN_TO_REPLICAS}


def _check_shared(configs: Sequence[SuperpositionConfig]) -> None:
    if not configs:
        raise ConfigError("no runs to train", expected="at least one configuration")
    if any(shared_settings(c) != shared_settings(configs[0]) for c in configs):
        raise ConfigError(
            "replicas of different shape or schedule",
            expected=f"configurations that differ only in {', '.join(OWN_TO_REPLICAS)}",
            fix="train them in separate calls",
        )


def _check_memory(configs: Sequence[SuperpositionConfig], device: torch.device) -> None:
    """Refuse what cannot fit before a machine that over-promises memory is brought down by it."""
    if device.type != "cpu":
        return
    c = configs[0]
    events = max(CHUNK_EVENTS, c.batch) * sum(k.activation_density for k in configs)
    numbers = 20 * events + len(configs) * (6 * c.n * (c.m + 1) + 4 * c.batch * (c.m + 1) + c.steps)
    if 8 * numbers > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        raise _too_large(configs)


def _too_large(configs: Sequence[SuperpositionConfig]) -> ConfigError:
    c = configs[0]
    return ConfigError(
        f"n = {c.n}, m = {c.m}, batch = {c.batch}, {len(configs)} replicas do not fit in memory",
        fix="lower the batch, the activation density or the number of replicas",
    )
