"""Figures, each from observations and fits alone; as PNG or PDF for paper, as SVG with hover labels for the page.

Ink is drawn in one marker colour that the SVG turns into the page's text colour, so figures follow light and dark.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from llmprobe.cache import atomic
from llmprobe.names import drawn, printable
from llmprobe.report.exponents import QUESTIONS, Exponent, curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llmprobe.overlap.neighbours import Distribution, FrequencyBin

INK = "#1a2b3c"
COLOURS = ("#3b82c4", "#e07b39", "#3a9e5f", "#b45fb0", "#c9483f", "#8a8d3a", "#5b6bc0", "#c08a2d")
MARKERS = {"toy": "o", "llm": "s", "published": "D"}
KIND_COLOURS = {"toy": COLOURS[0], "llm": COLOURS[1], "published": "#8c8c8c"}
STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",
    "svg.hashsalt": "llmprobe",
    "savefig.transparent": True,
    "figure.constrained_layout.use": True,
}


def metric_vs_width(frame: pd.DataFrame, found: Sequence[Exponent], quantity: str, title: str, ylabel: str) -> Figure:
    """Log-log curves of one quantity against width m, with the fitted laws drawn through them."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 4.2))
        axes = figure.subplots()
        colours = cycle(COLOURS)
        fits = {exponent.name: exponent.fit for exponent in found if exponent.quantity == quantity}
        plotted: set[str] = set()
        for question in (q for q in QUESTIONS if q.quantity == quantity):
            for name, rows in curves(question, frame):
                colour, result = next(colours), fits.get(name)
                new = rows[~rows["key"].isin(plotted)]  # a point belongs to the first curve that has it
                plotted |= set(new["key"])
                marker = MARKERS[question.source_kind]
                _points(axes, new, colour, marker, f"{name} · {quantity}")
                label = drawn(name)
                if result is not None:
                    label += f": exponent {_pm(result.params['alpha_m'], result.stderr['alpha_m'])}"
                if result is not None:
                    m = np.geomspace(rows["m"].min(), rows["m"].max(), 60)
                    for group in result.data.groups or ("",):
                        y = result.predict({"m": m}, np.full(len(m), group))
                        axes.plot(m, y, color=colour, lw=1.2, alpha=0.8)
                axes.plot([], [], color=colour, marker=marker if len(new) else "", ls="-", label=label)
        if quantity == "overlap vs width":
            low, high = axes.get_xlim()
            m = np.geomspace(max(low, 1), high, 60)
            axes.plot(m, 1 / m, color=INK, lw=0.9, ls=":", label="1/m: random directions")
        axes.set(xscale="log", yscale="log", xlabel="width m", ylabel=ylabel, title=title)
        axes.legend(loc="best")
        return figure


def forest(found: Sequence[Exponent], quantity: str = "loss vs width") -> Figure:
    """Every exponent of a quantity on one axis, with its 95 % interval; toy, real and published apart by colour."""
    rows = [e for e in found if e.quantity == quantity and math.isfinite(e.value)]
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.34 * max(1, len(rows))))
        axes = figure.subplots()
        for y, row in enumerate(reversed(rows)):
            colour = KIND_COLOURS[row.kind]
            if all(math.isfinite(limit) for limit in row.ci95):
                axes.plot(row.ci95, [y, y], color=colour, lw=2, solid_capstyle="butt")
            text = f"{row.name}: {_pm(row.value, row.stderr)}"
            axes.plot([row.value], [y], color=colour, marker=MARKERS[row.kind], ms=6, gid=_label(text))
        axes.axvline(1, color=INK, lw=0.8, ls=":")
        axes.set_yticks(range(len(rows)), [drawn(row.name) for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("exponent of loss in width (dotted: 1)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return figure


def regime(frame: pd.DataFrame) -> Figure:
    """Superposition coordinate against n/m: toys and language models on the same two axes."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.4, 3.6))
        axes = figure.subplots()
        rows = frame[(frame["metric"] == "superposition") & (frame["n"] > 0) & (frame["m"] > 0)]
        for (kind, family), group in rows.groupby(["source_kind", "family"], sort=True):
            colour = {"toy-strong": COLOURS[0], "toy-weak": COLOURS[2]}.get(family, KIND_COLOURS[kind])
            name = drawn(str(family).replace("toy-", "toy ")) or "language models"
            shown = group.assign(m=group["n"] / group["m"])
            _points(axes, shown, colour, MARKERS[kind], "superposition", models=group)
            axes.plot([], [], color=colour, marker=MARKERS[kind], ls="", label=name)
        axes.axhline(0, color=INK, lw=0.6, ls=":")
        axes.axhline(1, color=INK, lw=0.6, ls=":")
        axes.set(xscale="log", xlabel="rows per dimension, n/m", ylabel="superposition", ylim=(-0.08, 1.08))
        axes.set_title("0: only m of n rows are represented · 1: all are")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return figure


def geometry(spread: Distribution, bins: Sequence[FrequencyBin], m: int) -> Figure:
    """Distribution of the cosines beside that of random directions, and overlap by token frequency."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.6, 3.8))
        left, right = figure.subplots(1, 2)
        width = spread.edges[1] - spread.edges[0]
        centres = (spread.edges[1:] + spread.edges[:-1]) / 2
        density = spread.counts / spread.counts.sum() / width
        left.fill_between(centres, density, step="mid", color=COLOURS[0], alpha=0.6, lw=0, label="measured")
        random = np.exp(-m * centres**2 / 2) * np.sqrt(m / (2 * np.pi))
        left.plot(centres, random, color=INK, lw=0.9, ls=":", label="random directions")
        reach = 1.5 * max(abs(spread.quantiles[q]) for q in (0.001, 0.999))
        left.set(xlabel="cosine", ylabel="density", xlim=(max(-1, -reach), min(1, reach)))
        left.legend()
        ranks = range(1, len(bins) + 1)
        errors = [1.96 * b.stderr for b in bins]
        right.errorbar(ranks, [b.mean_sq_cos for b in bins], yerr=errors, color=COLOURS[1], marker="o", lw=1)
        right.axhline(1 / m, color=INK, lw=0.9, ls=":")
        right.set(xlabel="frequency bin (1: most frequent)", ylabel="mean cos² with all rows", yscale="log")
        return figure


def svg(figure: Figure) -> str:
    """A figure for a web page: no XML prolog, ink in the page's text colour, each marked point with a hover label."""
    buffer = io.StringIO()
    with _drawing(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S).replace(INK, "currentColor")
    text = re.sub(r"fill: ?#000000|fill: ?black", "fill: currentColor", text)
    # Text that matplotlib leaves in the default colour takes the page's.
    text = text.replace("<svg ", '<svg fill="currentColor" role="img" ', 1)
    return re.sub(
        r'<g id="hover-([0-9a-f]+)">',
        lambda match: f'<g class="point"><title>{escape(bytes.fromhex(match[1]).decode())}</title>',
        text,
    )


def save(figure: Figure, path: str) -> None:
    """Write a figure as PNG or PDF on white, by the path's suffix."""
    with _drawing({**STYLE, "savefig.transparent": False}), atomic(Path(path)) as temporary:
        metadata = {"CreationDate": None} if path.endswith(".pdf") else None
        figure.savefig(temporary, dpi=150, facecolor="white", metadata=metadata)


@contextmanager
def _drawing(style: Any) -> Iterator[None]:
    """A style, and silence about letters of names that the font lacks."""
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _points(
    axes: Axes, rows: pd.DataFrame, colour: str, marker: str, what: str, models: pd.DataFrame | None = None
) -> None:
    source = rows if models is None else models
    for (_, row), m in zip(source.iterrows(), rows["m"], strict=True):
        error = row["stderr"]
        if error is not None and math.isfinite(error) and error > 0.01 * abs(row["value"]):
            axes.errorbar([m], [row["value"]], yerr=[1.96 * error], color=colour, lw=1)
        text = f"{row['model']}, m = {row['m']:g}: {row['value']:.4g} ({what})"
        axes.plot([m], [row["value"]], color=colour, marker=marker, ms=5, ls="", gid=_label(text))


def _label(text: str) -> str:
    """A point's hover label, as an SVG id that `svg` turns into a title."""
    return f"hover-{printable(text).encode().hex()}"


def _pm(value: float, error: float) -> str:
    return f"{value:.2f} ± {error:.2f}" if math.isfinite(error) else f"{value:.2f}"
