"""Named comparisons of speed: ours against the ordinary way, in one process, alternating, so that a busy machine
slows both alike.

    python recipes/benchmark.py toy-step        (minutes; --quick in under three)

Each prints a table of times and ratios.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from benchmark_losses import loss, loss_memory
from benchmark_overlaps import overlap, overlap_wide, overlap_widest
from benchmark_toys import toy_large, toy_losses, toy_step

from llmprobe.console import guarded
from llmprobe.errors import ConfigError

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


def main(argv: list[str] | None = None) -> int:
    """Run the comparisons named on the command line, on one thread."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    names = [argument for argument in arguments if argument != "--quick"]

    def work() -> None:
        unknown = [name for name in names if name not in COMPARISONS]
        if unknown or not names:
            raise ConfigError(
                f"comparisons {' '.join(unknown) or '(none)'}", expected=f"names among {', '.join(COMPARISONS)}"
            )
        torch.set_num_threads(1)
        for name in names:
            COMPARISONS[name](len(names) < len(arguments))

    return guarded(work)


if __name__ == "__main__":
    sys.exit(main())
