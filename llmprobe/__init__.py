"""Test on any language model whether superposition explains how its loss falls with width and training time.

Names are imported when first used: ``import llmprobe`` loads neither torch nor transformers.
"""

from __future__ import annotations

import importlib

_HOME = {
    "Corpus": "llmprobe.corpus",
    "FitResult": "llmprobe.fit",
    "LossResult": "llmprobe.loss",
    "Observation": "llmprobe.observations",
    "ObservationStore": "llmprobe.observations",
    "OverlapStatistics": "llmprobe.overlap",
    "PowerLawSum": "llmprobe.laws",
    "ProbeError": "llmprobe.errors",
    "Unembedding": "llmprobe.unembedding",
    "evaluate_loss": "llmprobe.loss",
    "fit_window": "llmprobe.fitting.window",
    "load_families": "llmprobe.families",
    "load_model": "llmprobe.models",
    "open_corpus": "llmprobe.corpus",
    "overlap_statistics": "llmprobe.overlap",
    "paired_difference": "llmprobe.loss",
    "read_unembedding": "llmprobe.unembedding",
    "second_moments": "llmprobe.overlap",
    "write_report": "llmprobe.report",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
