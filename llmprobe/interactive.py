"""The library as people type it in a notebook: a model's name where a matrix would do, a run as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from llmprobe.observations import ObservationStore
from llmprobe.overlap.statistics import Method
from llmprobe.overlap.statistics import overlap_statistics as _of_matrix

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from llmprobe.overlap.statistics import OverlapStatistics


def overlap_statistics(
    W: Tensor | str,
    *,
    method: Method = "auto",
    rows: int = 1024,
    seed: int = 0,
    drop_zero_rows: bool = False,
    progress: bool = False,
) -> OverlapStatistics:
    """Measure how the rows of an unembedding overlap, raw and centered, and how many are represented.

    Parameters
    ----------
    W
        A matrix of shape [n, m], or a source to read one from: ``org/name``, a folder, a file.
    method
        ``exact`` visits all pairs, ``sampled`` visits `rows` random rows against all rows, ``auto`` chooses by cost.
    rows
        Size of the sample; without effect on ``exact``.
    seed
        Seed of the sample.
    drop_zero_rows
        Leave out rows of norm zero instead of refusing them.
    progress
        Show a progress bar on stderr.

    Returns
    -------
    Mean |cos|, mean cos² and the share of represented rows, with standard errors where they were sampled; cosines have
    no unit.

    Raises
    ------
    TensorError
        Fewer than two rows, a value that is not finite, or a zero row.
    SourceError
        The source cannot be read.

    Notes
    -----
    arXiv:2505.10465, section 4 and Figure 8a.

    Examples
    --------
    >>> import torch
    >>> found = overlap_statistics(torch.eye(4).repeat(2, 1) + torch.arange(8.0)[:, None] / 100)
    >>> found.n, found.m, found.method
    (8, 4, 'exact')
    >>> overlap_statistics("tiny", method="sampled", rows=2).m
    32
    """
    if isinstance(W, str):
        from llmprobe.weights.unembedding import read_unembedding

        W = read_unembedding(W).W
    return _of_matrix(W, method=method, rows=rows, seed=seed, drop_zero_rows=drop_zero_rows, progress=progress)


def compare(run_dir: str | Path) -> pd.DataFrame:
    """Every exponent of a run, toy, real and published side by side, as a table.

    Parameters
    ----------
    run_dir
        Folder with ``observations.jsonl``.

    Returns
    -------
    A row per exponent: what was measured, its value, standard error and 95 % interval, and the published value.

    Raises
    ------
    StoreError
        The observations cannot be read.

    Examples
    --------
    >>> from llmprobe import Observation, ObservationStore
    >>> store = ObservationStore("runs/line/observations.jsonl")
    >>> for m in (64, 128, 256, 512):
    ...     store.append(Observation(study="line", source_kind="toy", metric="loss", value=4 / m, model=f"w{m}", m=m))
    >>> table = compare("runs/line")
    >>> round(float(table["exponent"].iloc[0]), 3)
    1.0
    """
    import pandas as pd

    from llmprobe.report.exponents import exponents
    from llmprobe.report.numbers import COLUMNS, row

    found = exponents(ObservationStore(Path(run_dir) / "observations.jsonl").frame())
    return pd.DataFrame([row(e) for e in found], columns=list(COLUMNS))
