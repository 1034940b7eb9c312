"""Which published statements of arXiv:2505.10465 its own figures carry: all in one picture.

Each statement is a number; each is found again from the paper's figures read point by point, by this project's fits.
What is drawn is found over stated, as a bar from the least to the most (or a 95 % interval). A statement *holds* where
the whole bar lies within a fifth of 1, *does not* where the bar leaves out 1 or reaches beyond a factor of two, and
holds *in part* in between.

    python recipes/published_statements.py      seconds; needs no network and no model
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import toy_published
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from llmprobe import console
from llmprobe.fitting import PowerLawSum, fit
from llmprobe.report.figures import COLORS, INK, canvas, save
from llmprobe.report.published import figure, fit_losses, published_losses, published_table, width_fit
from llmprobe.settings import Settings

CLOSE, FACTOR = 0.2, 2.0
VERDICTS = {"holds": COLORS[2], "in part": COLORS[1], "does not": COLORS[4]}


@dataclass(frozen=True)
class Config(Settings):
    """Where the picture goes."""

    out: Path = Path("runs/published_statements")
    """Folder of the picture."""


@dataclass(frozen=True)
class Statement:
    """What is stated, what is found (in words), and found over stated from the least to the most."""

    stated: str
    found: str
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """``holds``, ``in part`` or ``does not``."""
        if self.low >= 1 - CLOSE and self.high <= 1 + CLOSE:
            return "holds"
        contains = self.low <= 1 <= self.high
        return "in part" if contains and self.low >= 1 / FACTOR and self.high <= FACTOR else "does not"


def main(config: Config) -> list[Statement]:
    """Find every statement again, print and draw."""
    found = [*language_models(), *large_toy(), *small_toy(), *features(), *densities(), *ours()]
    rows = [(s.stated, s.found, f"{s.low:.2f} to {s.high:.2f}", s.verdict) for s in found]
    console.say(console.table(rows, ("stated", "found", "found / stated", "")))
    save(draw(found), str(config.out / "published_statements.png"))
    return found


def statement(stated: str, ratio: ArrayLike, found: str) -> Statement:
    """From values of found over stated."""
    values = np.asarray(ratio, dtype=float)
    return Statement(stated, found, float(values.min()), float(values.max()))


def language_models() -> list[Statement]:
    """Figure 8: losses and overlaps of open models."""
    printed, whole = published_table()["width_law"], width_fit()
    alpha, error, interval = whole.params["alpha_m"], whole.stderr["alpha_m"], whole.ci95["alpha_m"]
    families = {name: fit_losses(rows).params["alpha_m"] for name, rows in published_losses().groupby("family")}
    overlaps = figure("fig8a_overlaps")
    line = fit(PowerLawSum(), overlaps["m_read"], overlaps["mean_square_overlap"])
    slope, sides = line.params["alpha_m"], line.ci95["alpha_m"]
    size = overlaps["overlap_times_m"]
    return [
        statement("27 models: α = 0.91", alpha / printed["alpha"], f"{alpha:.4f}"),
        statement("27 models: α to ± 0.04", error / printed["alpha_stderr"], f"± {error:.2f}, clustered by model"),
        statement("27 models: α = 1", interval, f"95 % {interval[0]:.2f} to {interval[1]:.2f}"),
        statement(
            "every family alike: α = 0.91",
            np.array(list(families.values())) / printed["alpha"],
            ", ".join(f"{name} {value:.2f}" for name, value in families.items()),
        ),
        statement("25 models: overlaps fall as 1/m", sides, f"exponent {slope:.2f}, {sides[0]:.2f} to {sides[1]:.2f}"),
        statement("25 models: overlaps are 1/m", size, f"{size.min():.0f} to {size.max():.0f} times that"),
    ]


def large_toy() -> list[Statement]:
    """Figures 1 and 4a: exponents and straightness over all widths of the large toy."""
    curves = dict(list(figure("fig1_toy_losses").groupby(["regime", "distribution"])))
    fits = {key: fit(PowerLawSum(), rows["m"], rows["loss"]) for key, rows in curves.items()}
    stated = {"exponential": 1.01, "power": 0.98, "linear": 0.89}
    values = {name: fits["strong", name].params["alpha_m"] for name in stated}
    bars = figure("fig4a_r2").set_index(["regime", "distribution"])
    straight = fits["weak", "power"].r2
    return [
        statement(
            "large toy, growth: α_m = 1.01, 0.98, 0.89",
            [values[name] / stated[name] for name in stated],
            ", ".join(f"{value:.2f}" for value in values.values()) + " over all widths",
        ),
        statement(
            "large toy, decay, power law: R² = 0.99",
            straight / bars.loc[("weak", "power"), "R2_bar_read"],
            f"{straight:.2f} over all widths, 0.99 from m = 64",
        ),
    ]


def small_toy() -> list[Statement]:
    """Figure 4b: 170 exponents over γ and α."""
    cells = figure("fig4b_exponents").rename(columns=toy_published.RENAMED)
    g, a, value = (cells[name] for name in ("weight_decay", "data_exponent", "alpha_m_mid"))
    third = np.isclose(g, 1 / 3, atol=1e-3)
    weak, steep = (g > 0) & (a >= 1.25), (g < 0) & (a >= 1.5)
    flat = value[(g < 0) & (a <= 1)]
    near, far = (value / (a - 1))[weak & third], (value / (a - 1))[weak & ~third]
    rise = (value / (2 * (a - 1)))[steep]
    return [
        statement("growth, α ≤ 1: α_m = 1", flat, f"{flat.min():.2f} to {flat.max():.2f}, mean {flat.mean():.2f}"),
        statement("growth, α ≥ 1.5: α_m = 2(α − 1)", rise, f"{rise.min():.2f} to {rise.max():.2f} times that"),
        statement("decay γ = 1/3: α_m = α − 1", near, f"{near.min():.2f} to {near.max():.2f} times that"),
        statement("decay, other γ: α_m = α − 1", far, f"{far.min():.2f} to {far.max():.2f} times that"),
    ]


def features() -> list[Statement]:
    """Figures 3a and 6d: represented features and overlaps."""
    rows = figure("fig3a_phi_half")
    g, phi = rows["weight_decay_gamma"], rows["phi_half"]
    share = (phi * 1000 / rows["m"])[g > 0]
    envelope = figure("fig6d_overlap_envelope")
    ratio = pd.concat([envelope[name] / envelope["theory_welch"] for name in ("min_over_alpha", "max_over_alpha")])
    return [
        statement("growth γ ≤ −0.56: φ = 1", phi[g < -0.5], f"{phi[g < -0.5].min():.3f} at least"),
        statement("growth, every γ: φ = 1", phi[g < 0], f"{phi[g < 0].min():.3f} at γ = −0.11"),
        statement("decay: φ = m/n", share, f"{share.min():.2f} to {share.max():.2f} times that"),
        statement("growth: overlaps on Welch's bound", ratio, f"{ratio.min():.2f} to {ratio.max():.2f} times that"),
    ]


def densities() -> list[Statement]:
    """Figure 7b: exponents over activation density."""
    rows = figure("fig7b_exponents")
    value, weight = rows["fit_all_m"], rows["se"] ** -2
    mean = float(np.average(value, weights=weight))
    chi2 = float((weight * (value - mean) ** 2).sum())
    span = f"{value.iloc[0]:.2f} at E = 1 to {value.iloc[-1]:.2f} at 7.5"
    return [
        statement("density leaves α_m alone", value / mean, f"{span}, χ² = {chi2:.1f} of {len(value) - 1}"),
        statement("density: α_m = 1.1, as labeled", value / 1.1, f"{span} over all widths"),
    ]


def ours() -> list[Statement]:
    """Our own runs on record against their cells of Figure 4b."""
    points = toy_published.compare(pd.read_csv(toy_published.RECORD, sep="\t", comment="#"))
    summary = toy_published.verdicts(points).set_index("panel")
    found = []
    for panel, name in (("Fig. 4b, exponent", "exponents"), ("Fig. 5a", "losses at α = 0")):
        rows, row = points[points["panel"] == panel], summary.loc[panel]
        known = f"χ² = {row['chi2']:.1f} of {row['with known scatter']}, P = {row['probability']:.2f}"
        found.append(statement(f"our toys on their {name}", rows["ours"] / rows["published"], f"{len(rows)}: {known}"))
    return found


def draw(found: list[Statement]) -> Figure:
    """Found over stated, a row each, colored by the verdict."""
    with canvas(11.0, 0.8 + 0.32 * len(found)) as whole:
        axes = whole.subplots()
        axes.axvspan(1 - CLOSE, 1 + CLOSE, color=INK, alpha=0.08, lw=0)
        axes.axvline(1, color=INK, lw=0.8, ls=":")
        for y, one in enumerate(reversed(found)):
            low, high = (float(np.clip(value, 0.1, 10)) for value in (one.low, one.high))
            color = VERDICTS[one.verdict]
            axes.plot([low, high], [y, y], "o-", color=color, lw=3, ms=5)
            axes.text(12, y, f"{one.verdict}: {one.found}", color=color, va="center", fontsize=9)
        axes.set_yticks(range(len(found)), [one.stated for one in reversed(found)])
        ticks = (0.1, 0.2, 0.5, 1, 2, 5, 10)
        axes.set(
            xscale="log", xlim=(0.09, 11), ylim=(-0.6, len(found) - 0.4), xlabel="found over stated (cut at 0.1, 10)"
        )
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        return whole


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
