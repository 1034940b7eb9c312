"""Named comparisons of speed: ours against the ordinary way, in one process, alternating, so that a busy machine
slows both alike.

    python recipes/benchmark.py toy-step        (minutes; --quick in under three)

Each comparison is a function registered by its name; it prints a table of times and ratios.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from llmprobe.console import guarded, say, table
from llmprobe.errors import ConfigError
from toymodels.features import frequencies
from toymodels.presets import SuperpositionConfig, preset
from toymodels.training import Run, schedule

COMPARISONS: dict[str, Callable[[Options], None]] = {}


@dataclass(frozen=True)
class Options:
    """What to compare, and how thoroughly."""

    quick: bool = False
    threads: int = 1


def comparison(name: str) -> Callable[[Callable[[Options], None]], Callable[[Options], None]]:
    """Register a comparison under the name it has on the command line."""

    def register(function: Callable[[Options], None]) -> Callable[[Options], None]:
        COMPARISONS[name] = function
        return function

    return register


class DenseToy:
    """The toy model as one would first write it: dense batches, autograd, `torch.optim.AdamW`."""

    def __init__(self, config: SuperpositionConfig) -> None:
        c = self.config = config
        self.p = frequencies(
            c.frequency_law, c.n, density=c.activation_density, exponent=c.data_exponent, length=c.decay_length
        ).float()
        self.generator = torch.Generator().manual_seed(c.seed)
        self.W = (torch.randn(c.n, c.m, generator=self.generator) / math.sqrt(c.m)).requires_grad_()
        self.b = torch.randn(c.n, generator=self.generator).requires_grad_()
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [self.W], "weight_decay": max(0.0, c.weight_decay)},
                {"params": [self.b], "weight_decay": 0.0},
            ]
        )

    def step(self, share: float) -> Tensor:
        """One step at this share of the peak rate; the loss."""
        c, size = self.config, (self.config.batch, self.config.n)
        active = torch.rand(size, generator=self.generator) < self.p
        x = active * 2 * torch.rand(size, generator=self.generator)
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
    """
    run, dense = Run([config], torch.device("cpu")), DenseToy(config)
    share = schedule(config)
    dense.step(share[0])
    ours, theirs = 0.0, []
    for step in tqdm(range(0, last, every), desc=f"m={config.m}", unit=f"{every} steps", leave=False):
        began = time.perf_counter()
        run.advance(min(step + every, last))
        if step >= first:
            ours += time.perf_counter() - began
            for _ in range(dense_steps):
                began = time.perf_counter()
                dense.step(share[step])
                theirs.append(time.perf_counter() - began)
    return 1e3 * statistics.mean(theirs), 1e3 * ours / (last - first)


@comparison("toy-step")
def toy_step(options: Options) -> None:
    """The small protocol, whole schedule, n = 1000 and B = 2048: ours against the dense step."""
    steps = 4000 if options.quick else 20000
    cases = [("strong, α = 1", {"weight_decay": -1.0, "data_exponent": 1.0})]
    if not options.quick:
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
        say(f"{name}: {steps} steps at n = 1000, B = 2048, {options.threads} thread")
        say(table(rows, ["m", "dense ms/step", "ours ms/step", "ratio"]))
        say(f"geometric mean of the ratios: {mean:.1f}\n")


@comparison("toy-large")
def toy_large(options: Options) -> None:
    """n = 10240, B = 8192, m = 64: a stretch after warm-up."""
    config = preset("large", m=64, weight_decay=-1.0)
    first = 2000
    last = first + (40 if options.quick else 400)
    dense, ours = race(config, first, last, every=20 if options.quick else 40, dense_steps=1)
    say(f"n = 10240, B = 8192, steps {first} to {last} of {config.steps}, {options.threads} thread")
    say(table([(64, dense, ours, dense / ours)], ["m", "dense ms/step", "ours ms/step", "ratio"]))


def main(argv: list[str] | None = None) -> int:
    """Run the comparisons named on the command line."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    options = Options(quick="--quick" in arguments)
    names = [argument for argument in arguments if argument != "--quick"]

    def work() -> None:
        unknown = [name for name in names if name not in COMPARISONS]
        if unknown or not names:
            raise ConfigError(
                f"comparisons {' '.join(unknown) or '(none)'}", expected=f"names among {', '.join(COMPARISONS)}"
            )
        torch.set_num_threads(options.threads)
        for name in names:
            COMPARISONS[name](options)

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
