"""A picture of a fit: the points, the law and the residuals."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmprobe.cache import atomic
from llmprobe.fitting.result import FitResult
from llmprobe.fitting.validation import residual_table
from llmprobe.names import drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def save_figure(result: FitResult, path: Path, *, x: str | None = None, y: str = "y") -> None:
    """Write the figure that `draw` makes; its format follows the file's ending."""
    figure = draw(result, x=x, y=y)
    with atomic(path) as temporary:
        figure.savefig(temporary, dpi=150)


def draw(result: FitResult, *, x: str | None = None, y: str = "y") -> Figure:
    """The points, the law and the residuals.

    A law of one x is drawn as a curve through the points, one per group; a law of several x, whose curve would need
    several dimensions, as observed against fitted. Residuals are drawn against x.

    Parameters
    ----------
    x
        Against which x; the law's first when left out.
    y
        Name of y, for the axes.
    """
    from matplotlib.figure import Figure

    x = result.law.x[0] if x is None else x
    table = residual_table(result)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    labels = table.get("group") if result.law.grouped else None
    for label in [None] if labels is None else np.unique(labels).tolist():
        rows = np.ones(result.n_points, dtype=bool) if labels is None else labels == label
        color = _curve(left, result, table, rows, label, y)
        right.plot(table[x][rows], table["residual"][rows], "o", ms=4, color=color)
    if labels is not None and len(np.unique(labels)) <= 12:
        left.legend(fontsize=8, frameon=False)
    # over less than a decade a logarithmic axis shows no more, and its labels collide
    low, high = float(result.data.y.min()), float(result.data.y.max())
    scale = "log" if low > 0 and high / low > 10 else "linear"
    left.set(xscale=scale if len(result.law.x) > 1 else "log", yscale=scale)
    right.axhline(0, color="0.6", lw=0.8)
    what = f"{y} − fitted" if result.loss == "linear" else f"log {y} − log fitted"
    right.set(xscale="log", xlabel=x, ylabel=what)
    figure.suptitle("   ".join([*_exponents(result), f"R² = {result.r2:.4f}"]), fontsize=10)
    return figure


def _curve(
    axes: Axes, result: FitResult, table: dict[str, np.ndarray], rows: np.ndarray, label: str | None, y: str
) -> Any:
    """Points and law of one group; the color used."""
    shown = None if label is None else drawn(label)
    if len(result.law.x) > 1:
        (points,) = axes.plot(
            table["fitted"][rows], table["y"][rows], "o", ms=4, label=None if label is None else drawn(label)
        )
        ends = [table["fitted"].min(), table["fitted"].max()]
        axes.plot(ends, ends, color="0.6", lw=0.8)
        axes.set(xlabel=f"fitted {y}", ylabel=f"observed {y}")
        return points.get_color()
    (name,) = result.law.x
    (points,) = axes.plot(table[name][rows], table["y"][rows], "o", ms=4, label=shown)
    grid = np.geomspace(table[name][rows].min(), table[name][rows].max(), 200)
    axes.plot(grid, result.predict(grid, None if label is None else [label] * 200), lw=1, color=points.get_color())
    axes.set(xlabel=name, ylabel=y)
    return points.get_color()


def _exponents(result: FitResult) -> list[str]:
    return [
        f"α({name}) = {result.params[key]:.3f} ± {result.stderr[key]:.3f}"
        for name in result.law.x
        if (key := f"alpha_{name}") in result.params
    ]
