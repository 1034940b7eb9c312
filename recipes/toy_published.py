"""Ours against published, point by point: losses, exponents and represented fractions of the toy model.

The paper trained each cell once and set no seed, as we do, so two runs of one cell differ by the scatter between
seeds. That scatter is taken from our own cells of several seeds (pooled over even and uneven frequencies and over the
two signs of γ, as it differs a hundredfold between them) and is the error of the comparison. Where no cell has two
seeds it is not known, and no χ² is given.

    python recipes/toy_published.py            the runs on record (toy_runs.tsv), in seconds
    python recipes/toy_regimes.py --published  trains the cells of `CELLS` and compares those
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from scipy.special import fdtrc

from llmprobe import console
from llmprobe.cache import atomic
from llmprobe.report.figures import COLOURS, INK, STYLE, save
from llmprobe.report.published import figure
from llmprobe.settings import Settings
from toymodels.superposition.config import WIDTHS

RECORD = Path(__file__).with_name("toy_runs.tsv")
GAMMA = dict(enumerate(float(g) for g in np.linspace(-1, 1, 10)))
CELLS = (
    *((GAMMA[i], 0.0) for i in (0, 5, 9, 3, 6, 1, 4, 7, 2, 8)),
    *((GAMMA[i], a) for i, a in ((2, 1.0), (6, 1.5), (5, 2.0), (1, 2.0), (9, 1.0), (0, 1.5), (6, 2.0), (3, 1.5))),
    *((GAMMA[i], a) for i, a in ((7, 1.625), (4, 1.0), (8, 2.0), (0, 2.0), (5, 1.5), (2, 0.5), (9, 1.75), (1, 1.0))),
)
"""(γ, α) over the whole map, even frequencies first: their losses are published one by one."""
KEY = ["weight_decay", "data_exponent", "activation_density", "m"]
RENAMED = {
    "weight_decay_gamma": "weight_decay",
    "data_exponent_alpha": "data_exponent",
    "activation_density_E": "activation_density",
}
FAR = 3.0
"""Standard deviations from which a point is named."""


@dataclass(frozen=True)
class Config(Settings):
    """Which runs, and where the comparison goes."""

    runs: Path = RECORD
    """Table of runs: γ, α, E, m, seed, loss, phi_half (may be empty)."""
    out: Path = Path("runs/toy_published")
    """Folder of the figure and the tables."""


def main(config: Config) -> pd.DataFrame:
    """Compare the runs of a table."""
    return report(pd.read_csv(config.runs, sep="\t", comment="#"), config.out)


def report(runs: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Tables and figure of the comparison; returns the points (see `compare`)."""
    points = compare(runs)
    out.mkdir(parents=True, exist_ok=True)
    with atomic(out / "points.tsv") as path:
        points.to_csv(path, sep="\t", index=False, float_format="%.6g")
    summary = verdicts(points)
    console.say(console.table(list(summary.itertuples(index=False)), tuple(summary.columns)))
    named = points[points["z"].abs() > FAR]
    console.say(f"\n{len(named)} of {len(points)} points further than {FAR:g} standard deviations:")
    for row in named.itertuples():
        console.say(f"  {row.panel}: {_called(row)}: {row.ours:.4g}, published {row.published:.4g} ({row.z:+.1f})")
    save(draw(points), str(out / "ours_against_published.png"))
    return points


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """Every published point of which there is a run, beside it.

    Parameters
    ----------
    runs
        A row each, columns `KEY`, seed, loss and phi_half.

    Returns
    -------
    Columns panel, `KEY` (m is NaN for an exponent), ours (mean over seeds; of the logarithm, for losses), published,
    seeds, sigma (standard deviation expected of the difference, NaN where no cell alike has two seeds; of the
    logarithm, for losses), dof (of that), z (difference over sigma).
    """
    runs = _keyed(runs)
    found = [_points(runs, quantity, panel, table) for panel, quantity, table in published_points()]
    return pd.concat([*found, _exponents(runs)], ignore_index=True)


def published_points() -> list[tuple[str, str, pd.DataFrame]]:
    """Panel, quantity and points (`KEY`, published, reading error) of each figure that has our quantities."""
    even = figure("fig5a_alpha0")
    tables = {
        ("Fig. 5a", "loss"): even.assign(published=even["loss"], reading=2e-5),
        ("Fig. 7a", "loss"): figure("fig7a_losses").assign(data_exponent_alpha=1.0, reading=5e-5),
        ("Fig. 7b", "loss"): figure("fig7b_losses").assign(data_exponent_alpha=1.0, reading=5e-5),
        ("Fig. 5a, represented", "phi_half"): even.assign(published=1 - even["k"] / 1000, reading=1e-3),
        ("Fig. 3a, represented", "phi_half"): figure("fig3a_phi_half").assign(reading=5e-4),
        ("Fig. 3b, represented", "phi_half"): figure("fig3b_phi_half_map").assign(m=39, reading=2e-3),
    }
    found = []
    for (panel, quantity), table in tables.items():
        table = table.rename(columns=RENAMED)
        if "published" not in table:
            table["published"] = table["loss" if quantity == "loss" else table.filter(like="phi_half").columns[0]]
        if "activation_density" not in table:
            table["activation_density"] = 1.0
        table = table[[*KEY, "published", "reading"]]
        found.append((panel, quantity, _keyed(table)))
    return found


def _keyed(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose `KEY` is rounded alike, so that ours and published meet."""
    return rows.astype(dict.fromkeys(KEY, float)).round(
        {"weight_decay": 3, "data_exponent": 3, "activation_density": 2}
    )


def _kind(rows: pd.DataFrame) -> pd.Series:
    """Cells whose scatter is taken to be alike: even or uneven frequencies, growth or decay."""
    even = np.where(rows["data_exponent"] == 0, "even", "uneven")
    return pd.Series(np.char.add(even, np.where(rows["weight_decay"] < 0, " growth", " decay")), index=rows.index)


def scatter(runs: pd.DataFrame, quantity: str) -> dict[str, tuple[float, int]]:
    """Standard deviation between seeds of one cell and width, and its degrees of freedom, by kind of cell."""
    rows = runs[[*KEY, quantity]].dropna()
    value = np.log(rows[quantity]) if quantity == "loss" else rows[quantity]
    grouped = value.groupby([rows[name] for name in KEY])
    squares, dof = (value - grouped.transform("mean")) ** 2, 1 - 1 / grouped.transform("size")
    kind = _kind(rows)
    total, free = squares.groupby(kind).sum(), dof.groupby(kind).sum().round().astype(int)
    return {name: (float(np.sqrt(total[name] / n)), int(n)) for name, n in free.items() if n}


def _points(runs: pd.DataFrame, quantity: str, panel: str, table: pd.DataFrame) -> pd.DataFrame:
    rows = runs.dropna(subset=[quantity])
    value = np.log(rows[quantity]) if quantity == "loss" else rows[quantity]
    ours = value.groupby([rows[name] for name in KEY]).agg(["mean", "size"]).reset_index()
    both = table.merge(ours, on=KEY)
    logarithm = quantity == "loss"
    difference = both["mean"] - (np.log(both["published"]) if logarithm else both["published"])
    both["reading"] = both["reading"] / both["published"] if logarithm else both["reading"]
    both["ours"] = np.exp(both["mean"]) if logarithm else both["mean"]
    return _judged(panel, both, difference, scatter(runs, quantity), np.ones(len(both)))


def _exponents(runs: pd.DataFrame) -> pd.DataFrame:
    """Exponents over the six widths of a cell against Figure 4b, their error from the scatter of the losses."""
    x = np.log(WIDTHS["small"])
    weight = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    cells = runs[runs["activation_density"] == 1].assign(log=lambda rows: np.log(rows["loss"]))
    ours = cells.pivot_table(index=KEY[:2], columns="m", values="log").reindex(columns=list(WIDTHS["small"])).dropna()
    seeds = cells.groupby([*KEY[:2], "m"]).size().unstack().min(axis=1)
    table = figure("fig4b_exponents").rename(columns=RENAMED).round({"weight_decay": 3, "data_exponent": 3})
    both = table.merge((-(ours @ weight)).rename("ours").reset_index(), on=KEY[:2])
    both["size"] = [seeds[tuple(cell)] for cell in both[KEY[:2]].to_numpy()]
    both["published"] = both["alpha_m_exact"].fillna(both["alpha_m_mid"])
    both["reading"] = np.where(both["alpha_m_exact"].isna(), (both["bin_hi"] - both["bin_lo"]) / np.sqrt(12), 1e-4)
    both["activation_density"], both["m"] = 1.0, np.nan
    size = np.full(len(both), np.sqrt((weight**2).sum()))
    return _judged("Fig. 4b, exponent", both, both["ours"] - both["published"], scatter(runs, "loss"), size)


def _judged(
    panel: str, both: pd.DataFrame, difference: pd.Series, spread: dict[str, tuple[float, int]], size: np.ndarray
) -> pd.DataFrame:
    """Sigma and z: one run of theirs against the mean of ours, `size` times the scatter of a loss."""
    kinds = [spread.get(kind, (np.nan, 0)) for kind in _kind(both)]
    deviation = np.array([s for s, _ in kinds]) * size
    both = both.assign(panel=panel, seeds=both["size"], dof=[n for _, n in kinds])
    both["sigma"] = np.sqrt(deviation**2 * (1 + 1 / both["seeds"]) + both["reading"] ** 2)
    both["z"] = difference / both["sigma"]
    return both[["panel", *KEY, "ours", "published", "seeds", "sigma", "dof", "z"]]


def verdicts(points: pd.DataFrame) -> pd.DataFrame:
    """χ² of each panel; its probability is that of an F ratio, as sigma is itself an estimate."""
    rows = []
    for panel, all_points in points.groupby("panel", sort=False):
        known = all_points.dropna(subset=["z"])
        chi2, n, dof = float((known["z"] ** 2).sum()), len(known), int(known["dof"].drop_duplicates().sum())
        odds = float(fdtrc(n, dof, chi2 / n)) if n and dof else np.nan
        ratio = (all_points["ours"] / all_points["published"]).replace([np.inf], np.nan)
        far = ratio.loc[(ratio - 1).abs().idxmax()]
        cells = len(all_points[KEY[:2]].drop_duplicates())
        rows.append((panel, cells, len(all_points), n, chi2, odds, f"{far - 1:+.1%}"))
    header = ["panel", "cells", "points", "with known scatter", "chi2", "probability", "largest deviation"]
    return pd.DataFrame(rows, columns=header)


def draw(points: pd.DataFrame) -> Figure:
    """Ours against published on the diagonal: losses, exponents, represented fractions."""
    panels = {
        "loss": points[points["panel"].isin(["Fig. 5a", "Fig. 7a", "Fig. 7b"])],
        "exponent α_m": points[points["panel"].str.contains("exponent")],
        "represented fraction": points[points["panel"].str.contains("represented")],
    }
    with mpl.rc_context(STYLE):
        whole = Figure(figsize=(11.5, 3.9))
        for axes, (name, rows) in zip(whole.subplots(1, 3), panels.items(), strict=True):
            _panel(axes, name, rows)
        return whole


def _panel(axes: Any, name: str, rows: pd.DataFrame) -> None:
    axes.set(xlabel=f"published {name}", ylabel=f"ours, {len(rows)} points")
    if rows.empty:
        return
    if name == "loss":
        axes.set(xscale="log", yscale="log")
    for colour, title, one in (
        (COLOURS[0], "growth, γ < 0", rows[rows["weight_decay"] < 0]),
        (COLOURS[1], "decay, γ > 0", rows[rows["weight_decay"] > 0]),
    ):
        error = one["sigma"] * (one["ours"] if name == "loss" else 1)
        axes.errorbar(one["published"], one["ours"], yerr=error, fmt="o", ms=4, lw=1, color=colour, label=title)
    ends = [rows[["ours", "published"]].min().min(), rows[["ours", "published"]].max().max()]
    axes.plot(ends, ends, color=INK, lw=0.8)
    for row in rows[rows["z"].abs() > FAR].itertuples():
        axes.annotate(_called(row), (row.published, row.ours), fontsize=6, xytext=(4, -6), textcoords="offset points")
    axes.legend()


def _called(row: Any) -> str:
    width = "" if np.isnan(row.m) else f", m = {row.m:g}"
    density = "" if row.activation_density == 1 else f", E = {row.activation_density:g}"
    return f"γ = {row.weight_decay:.2g}, α = {row.data_exponent:g}{density}{width}"


def runs_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table of runs that `compare` takes, from lines of ``toymodels superposition --json``."""
    return pd.DataFrame(rows)[[*KEY, "seed", "loss", "phi_half"]]


if __name__ == "__main__":
    sys.exit(console.guarded(lambda: main(tyro.cli(Config, description=__doc__))))
