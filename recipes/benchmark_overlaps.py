"""Comparisons of the overlaps of a matrix with the way one would first write them, and with what no way can avoid."""

from __future__ import annotations

import statistics

import torch
from benchmark_clock import peak_memory, timed, worked
from torch import Tensor
from tqdm import tqdm

from llmprobe.console import say, table
from llmprobe.overlap.statistics import overlap_statistics, second_moments
from llmprobe.weights.unembedding import read_unembedding

ROWS = 1024  # of a block in the unavoidable products, and sampled rows


def float64_pass(W: Tensor, block: int = 1024) -> float:
    """Mean |cos| as one would first write it: all blocks of cosines, each turned into float64."""
    U = torch.nn.functional.normalize(W, dim=1)
    total = sum(float((left @ right.T).double().abs().sum()) for left in U.split(block) for right in U.split(block))
    return (total - len(W)) / (len(W) * (len(W) - 1))


def overlap(quick: bool) -> None:
    """The sample model's unembedding: all pairs raw and centered, and exact second moments alone."""
    W = read_unembedding("sample:smollm2-135m").W
    if quick:
        W = W[:16384]
    naive, ours, moments = [], [], []
    for _ in tqdm(range(3), desc="overlap", unit="round"):
        naive.append(timed(lambda: (float64_pass(W), float64_pass(W - W.mean(0)))))
        ours.append(timed(lambda: overlap_statistics(W, method="exact")))
        moments += [timed(lambda: second_moments(W)) for _ in range(5)]
    a, b, c = (statistics.median(times) for times in (naive, ours, moments))
    say(f"{len(W)} × {W.shape[1]}, one thread, medians of 3 (15 for the moments)")
    rows = [
        ("all pairs, blocks turned into float64, raw + centered", a, a / b),
        ("all pairs, shared symmetric tiles, and everything else", b, 1.0),
        ("exact raw second moments alone", c, b / c),
    ]
    say(table(rows, ("what", "seconds", "ratio")))
    say(f"the float64 pass (one of the two) takes {a / 2 / c:.0f} times as long as the second moments")


def unavoidable(n: int, m: int) -> None:
    """What the statistics cannot do without: two symmetric m × m products over n rows and ROWS rows against all.

    A symmetric product is half the work of a full one, so the two are one full product here, of float32 blocks that
    are there already: nothing is read, converted, normalized or added up.
    """
    block, gram, tile = torch.randn(ROWS, m), torch.empty(m, m), torch.empty(ROWS, ROWS)
    for _ in range(-(-n // ROWS)):
        torch.mm(block.T, block, out=gram)
        torch.mm(block, block.T, out=tile)


def wide(n: int, m: int, dtype: torch.dtype, rounds: int) -> None:
    """The whole statistics of a wide matrix, sampled, beside what they cannot do without."""
    generator = torch.Generator().manual_seed(0)
    W = torch.empty(n, m, dtype=dtype)
    for rows in W.split(4096):
        rows.copy_(torch.randn(rows.shape, generator=generator))
    unavoidable(2 * ROWS, m)  # the library sets itself up
    floor, ours, peaks = [], [], []
    for _ in tqdm(range(rounds), desc=f"{n} × {m}", unit="round"):
        floor.append(worked(lambda: unavoidable(n, m)))
        peaks.append(peak_memory(lambda: ours.append(worked(lambda: overlap_statistics(W, method="sampled")))))
    a, b = statistics.median(floor), statistics.median(ours)
    ratios = [y / x for x, y in zip(floor, ours, strict=True)]
    say(f"{n} × {m} {dtype}, one thread, seconds of the processor, medians of {rounds}, alternating")
    say(table([("two symmetric products and the sampled rows' one", a, 1.0),
               ("the whole statistics", b, b / a)], ("what", "seconds", "ratio")))  # fmt: skip
    matrix = W.numel() * W.element_size()
    say(f"ratios {min(ratios):.2f} to {max(ratios):.2f}; peak memory {max(peaks) / 1e6:.0f} MB beyond the matrix "
        f"of {matrix / 1e6:.0f} MB\n")  # fmt: skip


def overlap_wide(quick: bool) -> None:
    """A wide matrix in float32: 32768 × 4096."""
    wide(8192 if quick else 32768, 4096, torch.float32, 3)


def overlap_widest(quick: bool) -> None:
    """A matrix of the size of Qwen2.5-72B's in bfloat16: 152064 × 8192; a quarter of an hour on one core."""
    wide(16384 if quick else 152064, 8192, torch.bfloat16, 1)
