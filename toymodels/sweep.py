"""Name of `toymodels.superposition.runs` and `toymodels.executors` in version 0.1, for scripts of that time."""

from toymodels.executors import executor
from toymodels.superposition.runs import sweep

__all__ = ["executor", "sweep"]
