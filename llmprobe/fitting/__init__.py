"""Columns to parameters with honest errors: every law is a sum of power laws and an offset. numpy and scipy only."""

from llmprobe.fitting.alternatives import rivals
from llmprobe.fitting.bootstrap import Bootstrap, bootstrap
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.profile import Profile, profile
from llmprobe.fitting.propagation import Derived, derived
from llmprobe.fitting.result import Data, FitResult
from llmprobe.fitting.validation import judge
from llmprobe.fitting.window import WindowFit, fit_window

__all__ = [
    "Bootstrap",
    "Data",
    "Derived",
    "FitResult",
    "PowerLawSum",
    "Profile",
    "WindowFit",
    "bootstrap",
    "derived",
    "fit",
    "fit_window",
    "judge",
    "profile",
    "rivals",
]
