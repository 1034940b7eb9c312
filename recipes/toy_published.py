"""Ours against published, point by point: losses, exponents and represented fractions of the toy model.

The paper trained each cell once and set no seed, so two runs of one cell differ by the scatter between seeds. That of
a loss is taken from our own cells of several seeds, pooled over cells of one width, one sign of γ, and even or uneven
frequencies, as it differs a hundredfold between these; an exponent's follows from it. Where no such cell has two seeds
it is not known, and the point has no part in χ². A represented fraction would scatter binomially if each feature
decided for itself; how many times that variance our own seeds show is found in the same pools, and is taken where it
is above 1.

    python recipes/toy_published.py            the runs on record (toy_runs.tsv), in seconds
    python recipes/toy_regimes.py --published  trains the cells of `CELLS` and compares those
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.cache import atomic
from llmprobe.report.figures import COLORS, INK, canvas, save
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
FEATURES = 1000
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
    logarithm, for losses), pool and dof (whose scatter that is, and its degrees of freedom), z (difference over sigma).
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


def _pool(rows: pd.DataFrame) -> pd.Series:
    """Cells whose scatter is taken to be alike: even or uneven frequencies, growth or decay."""
    even = np.where(rows["data_exponent"] == 0, "even", "uneven")
    return pd.Series(np.char.add(even, np.where(rows["weight_decay"] < 0, " growth", " decay")), index=rows.index)


def scatter(runs: pd.DataFrame) -> pd.DataFrame:
    """Variance of log loss between seeds of one cell and its degrees of freedom, by pool and m."""
    return _pooled(runs, np.log(runs["loss"]), lambda mean: 1.0).rename(columns={"ratio": "variance"})


def dispersion(runs: pd.DataFrame) -> pd.DataFrame:
    """How many times the binomial variance a represented fraction has between seeds of one cell, at least 1."""
    found = _pooled(runs, runs["phi_half"], _binomial)
    return found.assign(times=found["ratio"].clip(lower=1)).drop(columns="ratio")


def _binomial(share: pd.Series) -> pd.Series:
    """Variance of a share of the features, of one feature at the least."""
    return (share * (1 - share)).clip(lower=1 / FEATURES) / FEATURES


def _pooled(runs: pd.DataFrame, value: pd.Series, unit: Callable[[pd.Series], pd.Series | float]) -> pd.DataFrame:
    """Variance between seeds of one cell over `unit` of their mean, and its degrees of freedom, by pool and m."""
    grouped = value.groupby([runs[name] for name in KEY])
    mean = grouped.transform("mean")
    parts = pd.DataFrame({"pool": _pool(runs), "m": runs["m"], "ratio": (value - mean) ** 2 / unit(mean)})
    parts["dof"] = 1 - 1 / grouped.transform("size")
    found = parts.groupby(["pool", "m"], as_index=False).sum()
    found = found[found["dof"] > 0.25]
    return found.assign(ratio=found["ratio"] / found["dof"])


def _points(runs: pd.DataFrame, quantity: str, panel: str, table: pd.DataFrame) -> pd.DataFrame:
    rows = runs.dropna(subset=[quantity])
    loss = quantity == "loss"
    value = np.log(rows[quantity]) if loss else rows[quantity]
    ours = value.groupby([rows[name] for name in KEY]).agg(["mean", "size"]).reset_index()
    both = table.merge(ours, on=KEY)
    both["ours"] = np.exp(both["mean"]) if loss else both["mean"]
    both = both.assign(pool=_pool(both)).merge(
        scatter(rows) if loss else dispersion(rows), on=["pool", "m"], how="left"
    )
    both["pool"] = [f"{pool}, m = {m:g}" for pool, m in zip(both["pool"], both["m"], strict=True)]
    if loss:
        return _judged(panel, both, both["mean"] - np.log(both["published"]), both["reading"] / both["published"])
    both["variance"] = both["times"] * _binomial((both["ours"] + both["published"]) / 2)
    return _judged(panel, both, both["ours"] - both["published"], both["reading"])


def _exponents(runs: pd.DataFrame) -> pd.DataFrame:
    """Exponents over the six widths of a cell against Figure 4b, their error from the scatter of the losses."""
    widths = [float(m) for m in WIDTHS["small"]]
    x = np.log(widths)
    weight = pd.Series((x - x.mean()) / ((x - x.mean()) ** 2).sum(), index=widths)
    cells = runs[runs["activation_density"] == 1].assign(log=lambda rows: np.log(rows["loss"]))
    table = cells.groupby([*KEY[:2], "m"])["log"].agg(["mean", "size"]).unstack()
    table = table.reindex(columns=pd.MultiIndex.from_product([["mean", "size"], widths])).dropna()
    ours = pd.DataFrame({"ours": -(table["mean"] @ weight), "size": table["size"].min(axis=1)}).reset_index()
    theirs = figure("fig4b_exponents").rename(columns=RENAMED).round({"weight_decay": 3, "data_exponent": 3})
    both = theirs.merge(ours, on=KEY[:2])
    both["published"] = both["alpha_m_exact"].fillna(both["alpha_m_mid"])
    reading = pd.Series(np.where(both["alpha_m_exact"].isna(), (both["bin_hi"] - both["bin_lo"]) / np.sqrt(12), 1e-4))
    both = both.assign(pool=_pool(both), activation_density=1.0, m=np.nan)
    both = both.merge(_summed(scatter(cells), weight), left_on="pool", right_index=True, how="left")
    return _judged("Fig. 4b, exponent", both, both["ours"] - both["published"], reading)


def _summed(known: pd.DataFrame, weight: pd.Series) -> pd.DataFrame:
    """Variance of an exponent by pool, where the scatter is known at every width; dof by Satterthwaite's rule."""
    parts = known["variance"] * known["m"].map(weight) ** 2
    sums = pd.DataFrame({"variance": parts, "square": parts**2 / known["dof"], "widths": 1})
    sums = sums.groupby(known["pool"]).sum()
    sums = sums[sums["widths"] == len(weight)]
    return pd.DataFrame({"variance": sums["variance"], "dof": sums["variance"] ** 2 / sums["square"]})


def _judged(panel: str, both: pd.DataFrame, difference: pd.Series, reading: pd.Series) -> pd.DataFrame:
    """Sigma and z: one run of theirs against the mean of ours."""
    both = both.assign(panel=panel, seeds=both["size"])
    both["sigma"] = np.sqrt(both["variance"] * (1 + 1 / both["seeds"]) + reading**2)
    both["z"] = difference / both["sigma"]
    return both[["panel", *KEY, "ours", "published", "seeds", "sigma", "pool", "dof", "z"]]


def verdicts(points: pd.DataFrame) -> pd.DataFrame:
    """χ² of each panel and its probability, and the largest deviation."""
    rows = []
    for panel, every in points.groupby("panel", sort=False):
        known = every.dropna(subset=["z"])
        chi2 = float((known["z"] ** 2).sum())
        ratio = (every["ours"] / every["published"]).replace([np.inf], np.nan)
        far = ratio.loc[(ratio - 1).abs().idxmax()]
        cells = len(every[KEY[:2]].drop_duplicates())
        rows.append((panel, cells, len(every), len(known), chi2, probability(known, chi2), f"{far - 1:+.1%}"))
    header = ["panel", "cells", "points", "with known scatter", "chi2", "probability", "largest deviation"]
    return pd.DataFrame(rows, columns=header)


def probability(known: pd.DataFrame, chi2: float, draws: int = 20_000) -> float:
    """Chance of a χ² as large where ours and theirs are alike; NaN without points.

    Points of one pool share one estimate of their variance, itself a χ² of its degrees of freedom over these, which
    is drawn as well: with one degree of freedom even a large χ² is no surprise.
    """
    if known.empty:
        return float("nan")
    rng, total = np.random.default_rng(0), np.zeros(draws)
    for _, rows in known.groupby("pool"):
        dof = rows["dof"].iloc[0]
        estimate = rng.chisquare(dof, draws) / dof if np.isfinite(dof) else 1.0
        total += rng.chisquare(len(rows), draws) / estimate
    return float((total >= chi2).mean())


def draw(points: pd.DataFrame) -> Figure:
    """Ours against published on the diagonal: losses, exponents, represented fractions."""
    panels = {
        "loss": points[points["panel"].isin(["Fig. 5a", "Fig. 7a", "Fig. 7b"])],
        "exponent α_m": points[points["panel"].str.contains("exponent")],
        "represented fraction": points[points["panel"].str.contains("represented")],
    }
    with canvas(11.5, 3.9) as whole:
        for axes, (name, rows) in zip(whole.subplots(1, 3), panels.items(), strict=True):
            _panel(axes, name, rows)
        return whole


def _panel(axes: Any, name: str, rows: pd.DataFrame) -> None:
    axes.set(xlabel=f"published {name}", ylabel=f"ours, {len(rows)} points")
    if rows.empty:
        return
    if name == "loss":
        axes.set(xscale="log", yscale="log")
    for color, title, one in (
        (COLORS[0], "growth, γ < 0", rows[rows["weight_decay"] < 0]),
        (COLORS[1], "decay, γ > 0", rows[rows["weight_decay"] > 0]),
    ):
        error = one["sigma"] * (one["ours"] if name == "loss" else 1)
        axes.errorbar(one["published"], one["ours"], yerr=error, fmt="o", ms=4, lw=1, color=color, label=title)
    ends = [rows[["ours", "published"]].min().min(), rows[["ours", "published"]].max().max()]
    axes.plot(ends, ends, color=INK, lw=0.8)
    for row in rows[rows["z"].abs() > FAR].itertuples():
        place = {"xytext": (-6, 2), "textcoords": "offset points", "ha": "right"}
        axes.annotate(_called(row), (row.published, row.ours), fontsize=6, **place)
    axes.legend()


def _called(row: Any) -> str:
    width = "" if np.isnan(row.m) else f", m = {row.m:g}"
    density = "" if row.activation_density == 1 else f", E = {row.activation_density:g}"
    return f"γ = {row.weight_decay:.2g}, α = {row.data_exponent:g}{density}{width}"


def runs_of(rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The table of runs that `compare` takes, from lines of ``toymodels superposition --json``."""
    return pd.DataFrame(rows)[[*KEY, "seed", "loss", "phi_half"]]


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
