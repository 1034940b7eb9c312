"""Are language models in strong superposition, and do their centered overlaps go as 1/m across families?

Measures any list of models, GGUF files or names at the Hub: overlaps raw and centered, which rows are represented
(beside Gaussian rows of the same n, m and norms), and the loss on several texts. One table, one page, and the power law
of centered overlap in width. What is measured is kept: after an interruption run the same command to resume. A model
that fails does not stop the others; it is named at the end, and the exit status is 1.

    python recipes/real_models.py sample:smollm2-135m gemma-3-270m.gguf Qwen/Qwen2.5-0.5B --corpora stdlib mine.jsonl
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from llmprobe import console
from llmprobe.errors import FitError
from llmprobe.fitting import PowerLawSum, fit
from llmprobe.loss.corpus import open_corpus
from llmprobe.measurements import RANDOM_ROWS, LossSettings, OverlapSettings, control_work, loss_work, overlap_work
from llmprobe.observations import Observation, ObservationStore
from llmprobe.plan import Planned, tell_plan
from llmprobe.report.measured import Matrix, matrices
from llmprobe.report.write import shown, write_report
from llmprobe.settings import Count
from llmprobe.study import run, stored
from toymodels.executors import Workers

STUDY = "real_models"


@dataclass(frozen=True, kw_only=True)
class Config(Workers, Planned, LossSettings):
    """Overlaps, regime and losses of a list of models."""

    sources: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE...")] = (
        "sample:smollm2-135m",
    )
    """As for `llmprobe overlap`."""
    corpora: tuple[str, ...] = ("stdlib",)
    """Texts, as for `llmprobe loss`; none to measure overlaps alone."""
    corpora_toml: tuple[str, ...] = ()
    """Files of your own corpora."""
    context: Count = 512
    """Tokens per window."""
    max_documents: Count | None = 20
    """Documents of each text, from the front: the same for every model."""
    out: Path = Path("runs/real_models")
    """Where observations, figures and the page go."""


def main(config: Config) -> int:
    """Measure what is missing, tabulate, and write the page; returns the exit status."""
    store = ObservationStore(config.out / "observations.jsonl")
    corpora = [open_corpus(name, *config.corpora_toml) for name in config.corpora]
    overlaps = [overlap_work(STUDY, source, OverlapSettings(drop_zero_rows=True)) for source in config.sources]
    random = OverlapSettings(drop_zero_rows=True, method="sampled")
    controls = [control_work(STUDY, source, random) for source in config.sources]
    losses = [loss_work(STUDY, source, corpora, config) for source in config.sources] if corpora else []
    work = [*overlaps, *controls, *losses]
    if config.plan:
        tell_plan(store, work, config, workers=config.workers)
        return 0
    with config.executor() as pool:
        failed = run(work, store, pool, unit="measurement", progress=console.progress)
    tabulate(matrices(shown(store.frame())), stored(store, losses))
    page = write_report(config.out)
    console.say(f"\nopen {page.resolve()}")
    for name, why in failed.items():
        console.say(f"failed: {name}: {why}")
    return 1 if failed else 0


def tabulate(found: Sequence[Matrix], losses: Sequence[Observation]) -> None:
    """The table of models, that of their losses, and the law of centered overlap in width."""
    header = ("matrix", "n", "m", "c²·m raw", "c²·m centered", "represented", "±", "superposition", "regime")
    rows = []
    for one in found:
        overlaps = one.times_m("mean_sq_cos"), one.times_m("centered_mean_sq_cos")
        share = one.value("represented_fraction"), one.errors.get("represented_fraction")
        regime = one.regime if one.kind == "llm" else None
        rows.append((called(one.name), one.n, one.m, *overlaps, *share, one.value("superposition"), regime))
    console.say(console.table(rows, header))
    lines = [(called(row.model), row.corpus, row.metric, row.value, row.stderr, row.n_samples) for row in losses]
    console.say("\n" + console.table(lines, ("model", "text", "metric", "value", "±", "tokens")))
    models = [one for one in found if one.kind == "llm"]
    if len({one.m for one in models}) < 2:
        console.say("\noverlap against width: it takes models of at least two widths")
        return
    for metric in ("mean_sq_cos", "centered_mean_sq_cos"):
        m, y = [float(one.m) for one in models], [one.value(metric) for one in models]
        try:
            result = fit(PowerLawSum(("m",)), m, y)
        except FitError as error:
            console.say(f"{metric} against width: no fit: {error}")
            continue
        alpha, (low, high) = result.params["alpha_m"], result.ci95["alpha_m"]
        console.say(f"{metric} falls as m^-{alpha:.2f} [{low:.2f}, {high:.2f}] over {len(m)} models")
        for warning in result.warnings:
            console.say(f"  note: {warning}")


def called(model: str) -> str:
    """A model's name without its owner or folder; that of its random rows says so."""
    name = Path(model.removeprefix(RANDOM_ROWS)).name
    return f"{RANDOM_ROWS}{name}" if model.startswith(RANDOM_ROWS) else name


if __name__ == "__main__":
    sys.exit(console.recipe(main, Config))
