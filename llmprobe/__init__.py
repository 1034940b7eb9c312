"""Test on any language model whether superposition explains how its loss falls with width and training time.

Names are imported when first used: ``import llmprobe`` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib

_HOME = {
    "Observation": "llmprobe.observations",
    "ObservationStore": "llmprobe.observations",
    "OverlapStatistics": "llmprobe.overlap",
    "ProbeError": "llmprobe.errors",
    "overlap_statistics": "llmprobe.overlap",
    "second_moments": "llmprobe.overlap",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
