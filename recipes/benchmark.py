"""Named comparisons of speed: ours against the ordinary way, in one process, alternating, so that a busy machine
slows both alike. Each prints a table of times and ratios.

    python recipes/benchmark.py toy-step        (minutes; --quick in under three)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import tyro
from benchmark_losses import loss, loss_memory
from benchmark_overlaps import overlap, overlap_wide, overlap_widest
from benchmark_toys import toy_large, toy_losses, toy_step

from llmprobe import console
from llmprobe.settings import Settings, one_of

COMPARISONS: dict[str, Callable[[bool], None]] = {
    "toy-step": toy_step,
    "toy-losses": toy_losses,
    "toy-large": toy_large,
    "overlap": overlap,
    "overlap-wide": overlap_wide,
    "overlap-widest": overlap_widest,
    "loss": loss,
    "loss-memory": loss_memory,
}


@dataclass(frozen=True, kw_only=True)
class Config(Settings):
    """Which comparisons."""

    names: Annotated[
        tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME...", help=f"Of {', '.join(COMPARISONS)}.")
    ]
    quick: bool = False
    """Smaller, in under three minutes."""


def main(config: Config) -> None:
    """Run the comparisons one after another, on one thread."""
    chosen = [COMPARISONS[one_of("comparison", name, COMPARISONS)] for name in config.names or ("",)]
    torch.set_num_threads(1)
    for comparison in chosen:
        comparison(config.quick)


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
