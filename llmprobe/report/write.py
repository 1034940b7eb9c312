"""The page that answers the question: does this model behave as superposition predicts?

It reads observations and fits only; no model is run. Beside ``report.html`` it leaves the figures (PNG, PDF) and the
exponents (CSV, JSON, LaTeX) for a paper.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from llmprobe.cache import atomic
from llmprobe.errors import StoreError
from llmprobe.names import cell, printable, tex
from llmprobe.observations import ObservationStore
from llmprobe.report import figures, html
from llmprobe.report.exponents import Exponent, differences, exponents

COLUMNS = (
    "name",
    "quantity",
    "kind",
    "exponent",
    "stderr",
    "ci95 low",
    "ci95 high",
    "σ from 1",
    "points",
    "x from",
    "x to",
    "R²",
    "best of six curves",
)


def write_report(run_dir: str | Path) -> Path:
    """Write ``report.html``, figures and tables into a run's folder.

    Parameters
    ----------
    run_dir
        Folder with ``observations.jsonl``.

    Raises
    ------
    StoreError
        There are no observations, or the folder cannot be written.
    """
    folder = Path(run_dir)
    store = ObservationStore(folder / "observations.jsonl")
    frame = store.frame()
    if frame.empty:
        raise StoreError(
            f"{store.path} holds no observations", expected="a finished or begun run", fix="run a recipe first"
        )
    frame = with_superposition(shown(frame))
    found = exponents(frame)
    drawn = _figures(frame, found)
    for name, figure in drawn.items():
        for suffix in ("png", "pdf"):
            figures.save(figure, str(folder / f"{name}.{suffix}"))
    _write_numbers(folder, found)
    target = folder / "report.html"
    _write(target, _page(frame, found, drawn))
    return target


def shown(frame: pd.DataFrame) -> pd.DataFrame:
    """The observations with every name fit to be shown; see `llmprobe.names`."""
    texts = [column for column in frame.columns if column != "key" and frame[column].dtype == object]
    clean = {c: [printable(v) if isinstance(v, str) else v for v in frame[c]] for c in texts}
    return frame.assign(**{c: pd.Series(values, frame.index, dtype=object) for c, values in clean.items()})


def _figures(frame: pd.DataFrame, found: Sequence[Exponent]) -> dict[str, figures.Figure]:
    """The figures that the observations fill."""
    have = set(frame["metric"])
    drawn = {"exponents": figures.forest(found)}
    if "superposition" in have:
        drawn["regime"] = figures.regime(frame)
    if "loss" in have:
        title, label = "Loss against width", "loss"
        drawn["loss_vs_width"] = figures.metric_vs_width(frame, found, "loss vs width", title, label)
    if "mean_sq_cos" in have:
        title, label = "Mean square overlap against width", "mean cos²"
        drawn["overlap_vs_width"] = figures.metric_vs_width(frame, found, "overlap vs width", title, label)
    return drawn


def with_superposition(frame: pd.DataFrame) -> pd.DataFrame:
    """The observations, with the superposition coordinate of each toy run worked out from its phi_half."""
    from llmprobe.overlap.regime import superposition

    toys = frame[(frame["source_kind"] == "toy") & (frame["metric"] == "phi_half") & (frame["m"] > 0)].copy()
    toys = toys[toys["n"].notna() & (toys["n"] != toys["m"])]
    if toys.empty:
        return frame
    toys["metric"] = "superposition"
    toys["value"] = [superposition(r.value, int(r.n), int(r.m)) for r in toys.itertuples()]
    toys["key"] = toys["key"] + "-superposition"
    return pd.concat([frame, toys], ignore_index=True)


def verdict(frame: pd.DataFrame, found: Sequence[Exponent]) -> list[str]:
    """The answer in sentences, the most important first; only what the observations carry."""
    models = frame[frame["source_kind"] == "llm"]
    sentences = [_regime(name, value) for name, value in _measured(models) if value.keys() & {"superposition"}]
    widths = [e for e in found if e.quantity == "loss vs width" and math.isfinite(e.value)]
    toys = [e for e in widths if e.kind == "toy"]
    if toys:
        listed = "; ".join(f"{e.name}: {_pm(e)}" for e in toys)
        sentences.append(f"Toy loss falls with width with exponent {listed}.")
    real = [e for e in widths if e.kind == "llm"]
    if real:
        sentences.append("Measured language models: " + "; ".join(f"{e.name} {_pm(e)}" for e in real) + ".")
    elif not models.empty:
        sentences.append(
            "The width exponent of language models is not identified by this run: it takes several models of "
            "different width (published: 0.91 ± 0.04 over 27 models)."
        )
    return sentences


def _measured(models: pd.DataFrame) -> Iterator[tuple[tuple[str, str, float, float], dict[str, float]]]:
    """Model, revision, n and m of each matrix, and its metrics; of a metric measured twice the later value."""
    sized = models[models["n"].notna() & models["m"].notna()]
    for (model, revision, n, m), rows in sized.groupby(["model", "revision", "n", "m"], sort=False):
        yield (str(model), str(revision), float(n), float(m)), dict(zip(rows["metric"], rows["value"], strict=True))


def _regime(about: tuple[str, str, float, float], value: dict[str, float]) -> str:
    model, _, n, m = about
    coordinate = value["superposition"]
    word = "strong" if coordinate > 0.9 else "weak" if coordinate < 0.1 else "partial"
    kinds = {"mean_sq_cos": "raw", "centered_mean_sq_cos": "centred"}
    shares = [f"{value[metric] * m:.3g} times 1/m {kind}" for metric, kind in kinds.items() if metric in value]
    overlap = f", mean square overlap {' and '.join(shares)}" if shares else ""
    return (
        f"{model} lies in the {word} superposition regime (coordinate {coordinate:.2f}): "
        f"{n:.0f} rows in {m:.0f} dimensions{overlap}."
    )


def _page(frame: pd.DataFrame, found: Sequence[Exponent], drawn: dict[str, figures.Figure]) -> str:
    images = {name: html.figure(figures.svg(figure), CAPTIONS[name]) for name, figure in drawn.items()}
    parts = ['<div class="verdict">' + "".join(html.paragraph(s) for s in verdict(frame, found)) + "</div>"]
    table = html.table("exponents", COLUMNS, [_row(e) for e in found])
    parts.append(html.section("Exponents side by side", images["exponents"], table, _warnings(found)))
    if gaps := differences(found):
        rows = [[d.toy, d.real, d.quantity, d.value, d.stderr, d.value / d.stderr] for d in gaps]
        header = ("toy", "language models", "quantity", "difference", "standard error", "in σ")
        parts.append(html.section("Does the toy equal the real?", html.table("differences", header, rows)))
    if "regime" in images:
        parts.append(html.section("Regime", images["regime"]))
    if "loss_vs_width" in images:
        parts.append(html.section("Loss against width", images["loss_vs_width"], _losses(frame)))
    if "overlap_vs_width" in images:
        parts.append(html.section("Overlap against width", images["overlap_vs_width"], _overlaps(frame)))
    parts.append(html.section("How each number was obtained", _provenance(frame)))
    return html.page("Does it behave as superposition predicts?", parts)


CAPTIONS = {
    "exponents": "Exponent of loss in width, with 95 % intervals: toy models and language models of this run, and "
    "published figures. Strong superposition predicts 1 whatever the data; weak superposition predicts the data's "
    "exponent minus 1.",
    "regime": "Superposition coordinate (φ − m/n)/(1 − m/n), where φ is the share of rows that are represented: norm "
    "above 1/2 for toys, above half the median for language models. The norms of a language model's rows are much "
    "alike, so its coordinate alone says little: its overlap relative to 1/m says more.",
    "loss_vs_width": "Lines are the fitted laws. Toy losses are summed over features, language models' are nats per "
    "token.",
    "overlap_vs_width": "Mean square cosine between rows. Random directions give 1/m. Raw rows of language models "
    "share a common mean direction, which lifts them far above it; published values are of raw rows.",
}


def _overlaps(frame: pd.DataFrame) -> str:
    rows = frame[(frame["source_kind"] == "llm") & frame["metric"].isin(OVERLAPS)]
    if rows.empty:
        return ""
    body = []
    for (model, revision, n, m), value in _measured(rows):
        name = f"{model}@{revision}" if revision else model
        body.append([name, int(n), int(m), *(value.get(metric, math.nan) for metric in OVERLAPS)])
    return html.table("overlaps", ["model", "n", "m", *OVERLAPS.values()], body)


OVERLAPS = {
    "mean_abs_cos": "mean |cos|",
    "mean_sq_cos": "mean cos²",
    "mean_cos": "mean cos",
    "centered_mean_abs_cos": "centred mean |cos|",
    "centered_mean_sq_cos": "centred mean cos²",
    "participation_ratio": "participation ratio",
    "superposition": "superposition",
}


def _losses(frame: pd.DataFrame) -> str:
    rows = frame[(frame["source_kind"] == "llm") & frame["metric"].isin(("loss", "bits_per_byte"))]
    if rows.empty:
        return ""
    body: list[list[object]] = []
    for row in rows.to_dict("records"):
        what = str(row["metric"]).replace("_", " ")
        facts = [row["model"], row["corpus"], _whole(row["m"]), what, float(row["value"])]
        body.append([*facts, _known(row["stderr"]), row["unit"], _whole(row["n_samples"])])
    header = ("model", "corpus", "m", "what", "value", "standard error", "unit", "tokens scored")
    return html.table("losses", header, body)


def _known(value: Any) -> float:
    """A number, NaN where there is none."""
    return math.nan if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if math.isnan(_known(value)) else int(value)


def _provenance(frame: pd.DataFrame) -> str:
    rows = frame.drop_duplicates(["source_kind", "model", "corpus", "family", "m"])
    lines = []
    for r in rows.itertuples():
        record = {**r.provenance.settings, **r.provenance.record}
        what = " ".join(str(v) for v in (r.source_kind, r.family, r.model, r.revision, r.corpus) if v)
        lines.append(f"{what} m={int(r.m) if r.m == r.m and r.m is not None else '?'}: {json.dumps(record)}")
    return html.fold(f"{len(frame)} observations", html.preformatted("\n".join(lines)))


def _warnings(found: Sequence[Exponent]) -> str:
    lines = [f"{e.name} ({e.quantity}): {text}" for e in found for text in e.warnings]
    return "".join(html.paragraph(line, "warning") for line in lines)


def _row(e: Exponent) -> list[object]:
    r2 = e.fit.r2 if e.fit else math.nan
    where = e.name if e.kind != "published" or e.fit else f"{e.name}, as printed"
    found = [where, e.quantity, e.kind, e.value, e.stderr, *e.ci95, e.sigmas_from_one]
    return [*found, e.n_points or None, *e.x_range, r2, e.best_curve]


def _write_numbers(folder: Path, found: Sequence[Exponent]) -> None:
    table = pd.DataFrame([[cell(value) for value in _row(e)] for e in found], columns=list(COLUMNS))
    _write(folder / "exponents.csv", table.to_csv(index=False))
    rows = [
        {**dict(zip(COLUMNS, _row(e), strict=True)), "warnings": list(e.warnings), "source": e.source} for e in found
    ]
    clean = [{k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows]
    _write(folder / "exponents.json", json.dumps(clean, indent=1, ensure_ascii=False))
    _write(folder / "exponents.tex", _latex(found))


def _write(path: Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _latex(found: Sequence[Exponent]) -> str:
    lines = [r"\begin{tabular}{llrr}", r"what & quantity & exponent & points \\ \hline"]
    for e in found:
        value = f"${e.value:.2f}" + (rf" \pm {e.stderr:.2f}$" if math.isfinite(e.stderr) else "$")
        lines.append(rf"{tex(e.name)} & {tex(e.quantity)} & {value} & {e.n_points or '--'} \\")
    return "\n".join([*lines, r"\end{tabular}", ""])


def _pm(e: Exponent) -> str:
    return f"{e.value:.2f} ± {e.stderr:.2f}" if math.isfinite(e.stderr) else f"{e.value:.2f}"
