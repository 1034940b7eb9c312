"""From a matrix to numbers: how its rows overlap, which are neighbours, and which regime that is."""

from llmprobe.overlap.regime import fraction_longer, superposition
from llmprobe.overlap.statistics import OverlapStatistics, overlap_statistics, second_moments, welch_mean_sq

__all__ = [
    "OverlapStatistics",
    "fraction_longer",
    "overlap_statistics",
    "second_moments",
    "superposition",
    "welch_mean_sq",
]
