"""The toy model of superposition (arXiv:2505.10465): features, gradients in closed form, training, runs."""

from toymodels.superposition.config import SuperpositionConfig, preset
from toymodels.superposition.result import SuperpositionResult

__all__ = ["SuperpositionConfig", "SuperpositionResult", "preset"]
