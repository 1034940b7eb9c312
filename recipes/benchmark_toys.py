"""Comparisons of the toy model's training with the way one would first write it."""

from __future__ import annotations

import math
import statistics
import time

import torch
from torch import Tensor
from tqdm import tqdm

from llmprobe.console import say, table
from toymodels.superposition.config import SuperpositionConfig, preset
from toymodels.superposition.training import Run, schedule, train


class DenseToy:
    """The toy model as one would first write it: dense batches, autograd, `torch.optim.AdamW`."""

    def __init__(self, config: SuperpositionConfig, device: str = "cpu") -> None:
        c = self.config = config
        self.p = c.frequencies().float().to(device)
        self.generator = torch.Generator(device).manual_seed(c.seed)
        self.W = (torch.randn(c.n, c.m, generator=self.generator, device=device) / math.sqrt(c.m)).requires_grad_()
        self.b = torch.randn(c.n, generator=self.generator, device=device).requires_grad_()
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [self.W], "weight_decay": max(0.0, c.weight_decay)},
                {"params": [self.b], "weight_decay": 0.0},
            ]
        )

    def step(self, share: float) -> Tensor:
        """One step at this share of the peak rate; the loss."""
        c, size = self.config, (self.config.batch, self.config.n)
        active = torch.rand(size, generator=self.generator, device=self.p.device) < self.p
        x = active * 2 * torch.rand(size, generator=self.generator, device=self.p.device)
        self.optimizer.zero_grad()
        y = torch.relu(x @ self.W @ self.W.T + self.b)
        loss = (y - x).square().sum(1).mean()
        (loss / c.n).backward()
        for group, rate in zip(self.optimizer.param_groups, (c.peak_rate, c.peak_bias_rate), strict=True):
            group["lr"] = rate * share
        if c.weight_decay < 0:
            with torch.no_grad():
                norm = self.W.norm(dim=1, keepdim=True)
                self.W += c.peak_rate * share * c.weight_decay * (1 - 1 / norm) * self.W
        self.optimizer.step()
        return loss.detach()


def race(config: SuperpositionConfig, first: int, last: int, every: int, dense_steps: int) -> tuple[float, float]:
    """Milliseconds per step, dense and ours, from step `first` to `last` of our run.

    Every `every` steps of ours, `dense_steps` of the dense model are timed; its cost does not depend on the step.
    Time is the processor's, which on one thread is the clock's less what other programs took.
    """
    run, dense = Run([config], torch.device("cpu")), DenseToy(config)
    share = schedule(config)
    dense.step(share[0])
    ours, theirs = 0.0, []
    for step in tqdm(range(0, last, every), desc=f"m={config.m}", unit=f"{every} steps", leave=False):
        began = time.process_time()
        run.advance(min(step + every, last))
        if step >= first:
            ours += time.process_time() - began
            for _ in range(dense_steps):
                began = time.process_time()
                dense.step(share[step])
                theirs.append(time.process_time() - began)
    return 1e3 * statistics.mean(theirs), 1e3 * ours / (last - first)


def toy_step(quick: bool) -> None:
    """The small protocol, whole schedule, n = 1000 and B = 2048: ours against the dense step."""
    steps = 4000 if quick else 20000
    cases = [("strong, α = 1", {"weight_decay": -1.0, "data_exponent": 1.0})]
    if not quick:
        cases += [
            ("strong, α = 0", {"weight_decay": -1.0, "data_exponent": 0.0}),
            ("weak, α = 1.5", {"weight_decay": 0.3, "data_exponent": 1.5}),
        ]
    for name, changes in cases:
        rows = []
        for m in (10, 25, 63, 100):
            config = preset("small", m=m, steps=steps, **changes)
            dense, ours = race(config, 0, steps, every=steps // 40, dense_steps=2)
            rows.append((m, dense, ours, dense / ours))
        mean = math.exp(statistics.mean(math.log(row[3]) for row in rows))
        say(f"{name}: {steps} steps at n = 1000, B = 2048, one thread")
        say(table(rows, ["m", "dense ms/step", "ours ms/step", "ratio"]))
        say(f"geometric mean of the ratios: {mean:.1f}\n")


def toy_losses(quick: bool) -> None:
    """Final losses of four seeds each, dense and ours: the speed must not have cost anything."""
    rows = []
    for m in (25,) if quick else (10, 25, 63, 100):
        found: dict[str, list[float]] = {"dense": [], "ours": []}
        for seed in tqdm(range(4), desc=f"m={m}", unit="seed", leave=False):
            config = preset("quick", m=m, seed=seed)
            dense = DenseToy(config)
            losses = [float(dense.step(share)) for share in schedule(config)]
            found["dense"].append(statistics.mean(losses[-config.average :]))
            found["ours"].append(train(config, device="cpu").loss)
        means = {name: statistics.mean(values) for name, values in found.items()}
        spreads = {name: statistics.stdev(values) for name, values in found.items()}
        error = math.hypot(*spreads.values()) / 2  # of a difference of means over four seeds
        rows.append(
            (m, means["dense"], spreads["dense"], means["ours"], spreads["ours"],
             (means["ours"] - means["dense"]) / error)
        )  # fmt: skip
    say("strong superposition, preset quick, seeds 0 to 3 (their starts and data differ between the two)")
    say(table(rows, ["m", "dense loss", "spread", "ours", "spread", "difference / its error"]))


def toy_large(quick: bool) -> None:
    """n = 10240, B = 8192, m = 64: a stretch after warm-up."""
    config = preset("large", m=64, weight_decay=-1.0)
    first = 2000
    last = first + (40 if quick else 400)
    dense, ours = race(config, first, last, every=20 if quick else 40, dense_steps=1)
    say(f"n = 10240, B = 8192, steps {first} to {last} of {config.steps}, one thread")
    say(table([(64, dense, ours, dense / ours)], ["m", "dense ms/step", "ours ms/step", "ratio"]))
