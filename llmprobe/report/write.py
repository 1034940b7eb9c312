"""The page that answers the question: does this model behave as superposition predicts?

It reads observations and fits only; no model is run. Beside ``report.html`` it leaves the figures (PNG, PDF) and the
exponents (CSV, JSON, LaTeX) for a paper.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from llmprobe.errors import StoreError
from llmprobe.names import printable
from llmprobe.observations import ObservationStore
from llmprobe.report import figures
from llmprobe.report.exponents import Exponent, exponents
from llmprobe.report.measured import Matrix, matrices
from llmprobe.report.numbers import write, write_numbers
from llmprobe.report.page import page


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html``, figures and tables into a run's folder.

    Parameters
    ----------
    run_dir
        Folder with ``observations.jsonl``.

    Returns
    -------
    Path of ``report.html``.

    Raises
    ------
    StoreError
        There are no observations, or the folder cannot be written.

    Examples
    --------
    >>> write_report("runs/quickstart")  # doctest: +SKIP
    PosixPath('runs/quickstart/report.html')
    """
    folder = Path(run_dir)
    store = ObservationStore(folder / "observations.jsonl")
    frame = store.frame()
    if frame.empty:
        raise StoreError(
            f"{store.path} holds no observations", expected="a finished or begun run", fix="run a recipe first"
        )
    frame = shown(frame)
    found, measured = exponents(frame), matrices(frame)
    drawn = _figures(frame, found, measured)
    for name, figure in drawn.items():
        for suffix in ("png", "pdf"):
            figures.save(figure, str(folder / f"{name}.{suffix}"))
    write_numbers(folder, found)
    target = folder / "report.html"
    write(target, page(frame, found, measured, drawn))
    return target


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The observations with every name fit to be shown; see `llmprobe.names`."""
    texts = [c for c in frame.columns if c != "key" and not pd.api.types.is_numeric_dtype(frame[c])]
    clean = {c: [printable(v) if isinstance(v, str) else v for v in frame[c]] for c in texts}
    return frame.assign(**{c: pd.Series(values, frame.index, dtype=object) for c, values in clean.items()})


def _figures(frame: pd.DataFrame, found: Sequence[Exponent], measured: Sequence[Matrix]) -> dict[str, figures.Figure]:
    """The figures that the observations fill."""
    have = set(frame["metric"])
    drawn = {"exponents": figures.forest(found)}
    if any(math.isfinite(matrix.value("superposition")) for matrix in measured):
        drawn["regime"] = figures.dial(measured)
    if "loss" in have:
        title, label = "Loss against width", "loss"
        drawn["loss_vs_width"] = figures.metric_vs_width(frame, found, "loss vs width", title, label)
    if "mean_sq_cos" in have:
        title, label = "Mean square overlap against width", "mean cos²"
        drawn["overlap_vs_width"] = figures.metric_vs_width(frame, found, "overlap vs width", title, label)
    return drawn
