"""Figures, each from observations and fits alone; as PNG or PDF for paper, as SVG with hover labels for the page.

Ink is drawn in one marker color that the SVG turns into the page's text color, so figures follow light and dark.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from llmprobe.cache import atomic
from llmprobe.names import drawn, printable
from llmprobe.overlap.regime import STRONG, WEAK
from llmprobe.report.exponents import QUESTIONS, Exponent, curves
from llmprobe.report.measured import Matrix
from llmprobe.report.numbers import told

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llmprobe.overlap.neighbours import Distribution, FrequencyBin

INK = "#1a2b3c"
COLORS = ("#3b82c4", "#e07b39", "#3a9e5f", "#b45fb0", "#c9483f", "#8a8d3a", "#5b6bc0", "#c08a2d")
MARKERS = {"toy": "o", "llm": "s", "published": "D"}
MOST_DRAWN = 40  # curves of a figure
LINES = 12  # of the dial or the forest, where there could be any number
HOVERED = 200  # points of a curve that have a label of their own
KIND_COLORS = {"toy": COLORS[0], "llm": COLORS[1], "published": "#8c8c8c"}
DIAL = {"llm": (KIND_COLORS["llm"], "s"), "control": ("#8c8c8c", "x"), "toy": (KIND_COLORS["toy"], "o")}
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
    with canvas(6.4, 4.2) as figure:
        axes = figure.subplots()
        colors = cycle(COLORS)
        fitted = {exponent.name: exponent for exponent in found if exponent.quantity == quantity}
        plotted: set[str] = set()
        for question in (q for q in QUESTIONS if q.quantity == quantity):
            for name, rows in islice(curves(question, frame), MOST_DRAWN):
                color, exponent = next(colors), fitted.get(name)
                result = exponent.fit if exponent else None
                new = rows[~rows["key"].isin(plotted)]  # a point belongs to the first curve that has it
                plotted |= set(new["key"])
                marker = MARKERS[question.source_kind]
                _points(axes, new, color, marker, f"{name} · {quantity}")
                label = drawn(name)
                if exponent is not None and result is not None:
                    label += f": exponent {told(exponent)}"
                if exponent is not None and result is not None and math.isfinite(exponent.value):
                    m = np.geomspace(rows["m"].min(), rows["m"].max(), 60)
                    for group in result.data.groups or ("",):
                        y = result.predict({"m": m}, np.full(len(m), group))
                        axes.plot(m, y, color=color, lw=1.2, alpha=0.8)
                axes.plot([], [], color=color, marker=marker if len(new) else "", ls="-", label=label)
        if quantity == "overlap vs width":
            low, high = axes.get_xlim()
            m = np.geomspace(max(low, 1), high, 60)
            axes.plot(m, 1 / m, color=INK, lw=0.9, ls=":", label="1/m: random directions")
        axes.set(xscale="log", yscale="log", xlabel="width m", ylabel=ylabel, title=title)
        axes.legend(loc="best")
        return figure


def forest(found: Sequence[Exponent], quantity: str = "loss vs width") -> Figure:
    """Every exponent of a quantity on one axis, with its 95 % interval; toy, real and published apart by color."""
    rows = [e for e in found if e.quantity == quantity and math.isfinite(e.value)][-MOST_DRAWN:]
    with canvas(7.2, 0.9 + 0.34 * max(1, len(rows))) as figure:
        axes = figure.subplots()
        for y, row in enumerate(reversed(rows)):
            color = KIND_COLORS[row.kind]
            if all(math.isfinite(limit) for limit in row.ci95):
                axes.plot(row.ci95, [y, y], color=color, lw=2, solid_capstyle="butt")
            text = f"{row.name}: {told(row)}"
            axes.plot([row.value], [y], color=color, marker=MARKERS[row.kind], ms=6, gid=_label(text))
        axes.axvline(1, color=INK, lw=0.8, ls=":")
        sure = [limit for row in rows if row.identified for limit in (*row.ci95, row.value) if math.isfinite(limit)]
        if len(sure) and not all(row.identified for row in rows):  # those that are not run out of the picture
            axes.set_xlim(min(0, *sure) - 0.3, max(1, *sure) + 0.3)
        axes.set_yticks(range(len(rows)), [drawn(row.name) for row in reversed(rows)])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel("exponent of loss in width (dotted: 1)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return figure


def dial(matrices: Sequence[Matrix]) -> Figure:
    """Superposition coordinate on one axis: each model, and beside them controls and toys."""
    rows = _dial_rows([m for m in matrices if math.isfinite(m.value("superposition"))])
    with canvas(6.4, 0.9 + 0.34 * max(3, len(rows))) as figure:
        axes = figure.subplots()
        axes.axvspan(-0.04, WEAK, color=COLORS[2], alpha=0.12, lw=0)
        axes.axvspan(STRONG, 1.04, color=COLORS[0], alpha=0.12, lw=0)
        for y, (_, group) in enumerate(reversed(rows)):
            color, marker = DIAL[group[0].kind]
            for matrix in group:
                value, error = matrix.value("superposition"), matrix.errors.get("superposition", 0.0)
                axes.plot([value - 2 * error, value + 2 * error], [y, y], color=color, lw=2, solid_capstyle="butt")
                text = f"{matrix.name}: {value:.3f} (n = {matrix.n}, m = {matrix.m})"
                axes.plot([value], [y], color=color, marker=marker, ms=6, alpha=0.8, gid=_label(text))
        axes.set_yticks(range(len(rows)), [drawn(name) for name, _ in reversed(rows)])
        axes.set(xlim=(-0.04, 1.04), ylim=(-0.6, len(rows) - 0.4), xlabel="superposition (shaded: weak, strong)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        return figure


def _dial_rows(known: Sequence[Matrix]) -> list[tuple[str, list[Matrix]]]:
    """Lines of the dial: one a model where these are few, then random rows, then toys by family."""
    models = [m for m in known if m.kind == "llm"]
    rows = [(m.name, [m]) for m in models] if len(models) <= LINES else [("language models", models[:HOVERED])]
    controls = [m for m in known if m.kind == "control"]
    rows += [("random rows", controls[:HOVERED])] if controls else []
    toys = [m for m in known if m.kind == "toy"]
    for family in sorted({m.family for m in toys})[:LINES]:
        rows.append((family.replace("toy-", "toy, "), [m for m in toys if m.family == family][:HOVERED]))
    return rows


def geometry(spread: Distribution, bins: Sequence[FrequencyBin], m: int) -> Figure:
    """Distribution of the cosines beside that of random directions, and overlap by token frequency."""
    with canvas(9.6, 3.8) as figure:
        left, right = figure.subplots(1, 2)
        width = spread.edges[1] - spread.edges[0]
        centers = (spread.edges[1:] + spread.edges[:-1]) / 2
        density = spread.counts / spread.counts.sum() / width
        left.fill_between(centers, density, step="mid", color=COLORS[0], alpha=0.6, lw=0, label="measured")
        random = np.exp(-m * centers**2 / 2) * np.sqrt(m / (2 * np.pi))
        left.plot(centers, random, color=INK, lw=0.9, ls=":", label="random directions")
        reach = 1.5 * max(abs(spread.quantiles[q]) for q in (0.001, 0.999))
        left.set(xlabel="cosine", ylabel="density", xlim=(max(-1, -reach), min(1, reach)))
        left.legend()
        ranks = range(1, len(bins) + 1)
        errors = [1.96 * b.stderr for b in bins]
        right.errorbar(ranks, [b.mean_sq_cos for b in bins], yerr=errors, color=COLORS[1], marker="o", lw=1)
        right.axhline(1 / m, color=INK, lw=0.9, ls=":")
        right.set(xlabel="frequency bin (1: most frequent)", ylabel="mean cos² with all rows", yscale="log")
        return figure


def svg(figure: Figure) -> str:
    """A figure for a web page: no XML prolog, ink in the page's text color, each marked point with a hover label."""
    buffer = io.StringIO()
    with _drawing(STYLE):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S).replace(INK, "currentColor")
    text = re.sub(r"fill: ?#000000|fill: ?black", "fill: currentColor", text)
    # Text that matplotlib leaves in the default color takes the page's.
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
def canvas(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of this size in inches, and the project's style while it is drawn."""
    with _drawing(STYLE):
        yield Figure(figsize=(width, height))


@contextmanager
def _drawing(style: Any) -> Iterator[None]:
    """A style, and silence about letters of names that the font lacks."""
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def _points(axes: Axes, rows: pd.DataFrame, color: str, marker: str, what: str) -> None:
    if len(rows) > HOVERED:
        axes.plot(rows["m"], rows["value"], color=color, marker=marker, ms=3, ls="", alpha=0.5, rasterized=True)
        return
    for row in rows.itertuples():
        if row.stderr is not None and math.isfinite(row.stderr) and row.stderr > 0.01 * abs(row.value):
            axes.errorbar([row.m], [row.value], yerr=[1.96 * row.stderr], color=color, lw=1)
        text = f"{row.model}, m = {row.m:g}: {row.value:.4g} ({what})"
        axes.plot([row.m], [row.value], color=color, marker=marker, ms=5, ls="", gid=_label(text))


def _label(text: str) -> str:
    """A point's hover label, as an SVG id that `svg` turns into a title."""
    return f"hover-{printable(text).encode().hex()}"
