"""Does the loss of language models fall with width as L = A/m^alpha + B(family, corpus), with alpha about 1?

Measures each model of the families named on each corpus, fits one A and one alpha to all and an offset to every
family and corpus, and sets the published values (arXiv:2505.10465, Figure 8b) beside them. Every model sees the same
documents. m is the width of the layers (OPT-350m: 1024). What is measured is kept: after an interruption run the same
command to resume. A model that fails does not stop the others; it is named at the end, and the exit status is 1.

    python recipes/llm_loss_vs_width.py --families gpt2 pythia --largest 1024
    python recipes/llm_loss_vs_width.py --toml mine.toml --families mine --corpora stdlib my.jsonl
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from llmprobe import console
from llmprobe.errors import FitError
from llmprobe.families import Member, load_families, members
from llmprobe.fitting import FitResult, PowerLawSum, fit
from llmprobe.loss.corpus import open_corpus
from llmprobe.measurements import LossSettings, loss_work
from llmprobe.observations import Observation, ObservationStore
from llmprobe.plan import Planned, tell_plan
from llmprobe.report import figures
from llmprobe.report.published import published_table
from llmprobe.settings import Count
from llmprobe.study import run, stored
from toymodels.executors import Workers

STUDY = "llm_loss_vs_width"
LAW = PowerLawSum(("m",), offset="group")


@dataclass(frozen=True, kw_only=True)
class Config(Workers, Planned, LossSettings):
    """Loss of whole families of models against width, on several corpora."""

    families: tuple[str, ...] = ("gpt2", "pythia")
    """Names as `llmprobe families` lists them."""
    corpora: tuple[str, ...] = ("wikitext", "c4", "pile")
    """As for `llmprobe loss`."""
    corpora_toml: tuple[str, ...] = ()
    """Files of your own corpora."""
    toml: tuple[str, ...] = ()
    """Files of your own families."""
    largest: Count | None = None
    """Leave out models wider than this."""
    max_documents: Count | None = 100
    """Documents of each corpus, from the front."""
    out: Path = Path("runs/llm_loss_vs_width")
    """Where observations, the fit and the figure go."""


def main(config: Config) -> int:
    """Measure what is not measured yet, fit, and draw; returns the exit status."""
    models = members(load_families(*config.toml), config.families, config.largest)
    corpora = [open_corpus(name, *config.corpora_toml) for name in config.corpora]
    store = ObservationStore(config.out / "observations.jsonl")
    work = [
        loss_work(STUDY, member.id, corpora, config, toml=config.toml, size=member.params or member.m, m=width(member))
        for _, member in models
    ]
    if config.plan:
        tell_plan(store, work, config, config.toml, workers=config.workers)
        return 0
    with config.executor() as pool:
        failed = run(work, store, pool, progress=console.progress)
    show(config, stored(store, work, "loss"))
    for name, why in failed.items():
        console.say(f"failed: {name}: {why}")
    return 1 if failed else 0


def width(member: Member) -> int:
    """Width of the layers, which the law is in."""
    return member.d_model or member.m


def fit_widths(rows: Iterable[Observation]) -> FitResult:
    """The width law with an offset for each family and corpus."""
    found = list(rows)
    m, y = [float(row.m or 0) for row in found], [row.value for row in found]
    return fit(LAW, m, y, group=[group(row) for row in found])


def group(row: Observation) -> str:
    """What has an offset of its own."""
    return f"{row.family}/{row.corpus}"


def show(config: Config, rows: list[Observation]) -> None:
    """Fitted parameters beside the published ones, and the figure."""
    table = [(row.family, row.corpus, row.m, row.value, row.stderr, row.model) for row in rows]
    console.say(console.table(table, ("family", "corpus", "m", "loss", "±", "model")))
    try:
        result = fit_widths(rows)
    except FitError as error:
        console.say(f"no fit: {error}")
        return
    paper = published()
    fitted = [
        (name, value, result.stderr[name], *result.ci95[name], paper.get(name)) for name, value in result.params.items()
    ]
    console.say("\n" + console.table(fitted, ("parameter", "fitted", "±", "95 % from", "to", "published")))
    for warning in result.warnings:
        console.say(f"note: {warning}")
    (config.out / "fit.json").write_text(json.dumps(result.to_dict(), indent=1), encoding="utf-8")
    figures.save(figure(rows, result), str(config.out / "loss_vs_width.png"))
    figures.save(figure(rows, result), str(config.out / "loss_vs_width.pdf"))


def published() -> dict[str, float]:
    """The published parameters under the names that the fit gives them."""
    law = published_table()["width_law"]
    offsets = {
        f"E[{family}/{corpus}]": value
        for family, values in law["B"].items()
        for corpus, value in zip(law["corpora"], values, strict=True)
    }
    return {"A_m": law["A"], "alpha_m": law["alpha"], **offsets}


def figure(rows: list[Observation], result: FitResult) -> Figure:
    """Loss minus its fitted offset against width: markers are families, colors corpora, the line the common law."""
    law = published_table()["width_law"]
    markers = dict(zip(sorted({row.family for row in rows}), cycle("osD^vP*X"), strict=False))
    colors = dict(zip(sorted({row.corpus for row in rows}), cycle(figures.COLORS), strict=False))
    with figures.canvas(6.4, 4.4) as drawn:
        axes = drawn.subplots()
        for row in rows:
            above = row.value - result.params[f"E[{group(row)}]"]
            axes.plot([row.m or 0], [above], color=colors[row.corpus], marker=markers[row.family], ms=5, ls="")
        for name, marker in markers.items():
            axes.plot([], [], color=figures.INK, marker=marker, ls="", label=name)
        for name, color in colors.items():
            axes.plot([], [], color=color, marker="s", ls="", label=name)
        widths = [row.m or 0 for row in rows]
        m = np.geomspace(min(widths), max(widths), 60)
        alpha, error = result.params["alpha_m"], result.stderr["alpha_m"]
        fitted = result.params["A_m"] * m**-alpha
        axes.plot(m, fitted, color=figures.INK, lw=1, label=f"fitted: {alpha:.2f} ± {error:.2f}")
        label = f"published: {law['alpha']} ± {law['alpha_stderr']}"
        axes.plot(m, law["A"] * m ** -law["alpha"], color=figures.INK, lw=0.9, ls=":", label=label)
        axes.set(xscale="log", yscale="log", xlabel="width m", ylabel="loss − B (nats per token)")
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        return drawn


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
