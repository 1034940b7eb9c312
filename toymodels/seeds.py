"""One seed, many uses: each draws from a stream of its own."""

from __future__ import annotations

import numpy as np


def stream(seed: int, purpose: str) -> int:
    """A seed of its own for each use of a run's seed."""
    return int(np.random.SeedSequence([seed, *purpose.encode()]).generate_state(1, np.uint64)[0]) >> 1
