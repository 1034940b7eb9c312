"""Softmax and cross-entropy on peaked targets: the toy whose loss falls as τ^(−1/3) (arXiv:2602.03685)."""

from toymodels.softmax.config import SoftmaxConfig
from toymodels.softmax.result import SoftmaxResult
from toymodels.softmax.runs import run_missing
from toymodels.softmax.training import run_all

__all__ = ["SoftmaxConfig", "SoftmaxResult", "run_all", "run_missing"]
