"""Columns to parameters with honest errors: every law is a sum of power laws and an offset. numpy and scipy only."""

from llmprobe.fitting.alternatives import compare_curves
from llmprobe.fitting.bootstrap import Bootstrap, bootstrap
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.profile import Profile, profile
from llmprobe.fitting.propagation import Propagated, propagate
from llmprobe.fitting.result import Data, FitResult
from llmprobe.fitting.validation import validate
from llmprobe.fitting.window import WindowFit, fit_window

__all__ = [
    "Bootstrap",
    "Data",
    "FitResult",
    "PowerLawSum",
    "Profile",
    "Propagated",
    "WindowFit",
    "bootstrap",
    "compare_curves",
    "fit",
    "fit_window",
    "profile",
    "propagate",
    "validate",
]
