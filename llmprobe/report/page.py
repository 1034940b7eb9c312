"""The page's parts: the verdict with its two figures, then what it rests on, the most asked for first."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from llmprobe.identity import digest
from llmprobe.report import figures, html
from llmprobe.report.exponents import Exponent, differences
from llmprobe.report.html import Link
from llmprobe.report.measured import Matrix
from llmprobe.report.verdict import footnote, verdict

TITLE = "Does it behave as superposition predicts?"
LISTED = 300  # lines of a table or list that the page shows; the store has all
CAPTIONS = {
    "exponents": "Exponent of loss in width with 95 % intervals. Strong superposition predicts 1 whatever the data; "
    "weak superposition the data's exponent minus 1.",
    "regime": "Superposition coordinate: 0 if only m of n rows are represented, 1 if all are. Shaded: weak and strong "
    "by the rule of the verdict.",
    "loss_vs_width": "Lines are the fitted laws. Toy losses are summed over features, language models' are nats per "
    "token.",
    "overlap_vs_width": "Mean square cosine between rows. Random directions give 1/m. Raw rows of language models "
    "share a common mean direction, which lifts them far above it; published values are of raw rows.",
}
CURVES = "best of six curves"
ORDER = {"llm": 0, "toy": 1, "published": 2}
RECORDED = ("created", "git", "llmprobe", "torch", "device", "sha256", "tensor", "method", "documents_sha256")


def page(
    frame: pd.DataFrame, found: Sequence[Exponent], matrices: Sequence[Matrix], drawn: Mapping[str, figures.Figure]
) -> str:
    """The whole page as HTML."""
    images = {name: html.figure(figures.svg(figure), CAPTIONS[name]) for name, figure in drawn.items()}
    sentences = "".join(html.paragraph(sentence) for sentence in verdict(found, matrices))
    hero = "".join(images[name] for name in ("regime", "exponents") if name in images)
    widths = [e for e in found if e.quantity == "loss vs width"]
    others = [e for e in found if e.quantity != "loss vs width"]
    losses = html.fold("Losses of language models", _losses(frame))
    overlap_title = "Overlap against width"
    parts = [
        f'<div class="verdict">{sentences}</div><div class="hero">{hero}</div>',
        html.paragraph(note, "small") if (note := footnote(matrices)) else "",
        _regimes(matrices),
        html.section("Exponents of loss in width", _exponents("exponents", widths), _warnings(widths)),
        _differences(found),
        html.section("Loss against width", image, losses) if (image := images.get("loss_vs_width")) else "",
        html.section(overlap_title, image) if (image := images.get("overlap_vs_width")) else "",
        html.section("Other exponents", _exponents("others", others), _warnings(others)) if others else "",
        html.section("How each number was obtained", _sources(found), _provenance(frame)),
    ]
    return html.page(TITLE, [part for part in parts if part])


def _regimes(matrices: Sequence[Matrix]) -> str:
    header = ("matrix", "n", "m", "represented", "superposition", "c²·m raw", "c²·m centered", "regime")
    rows: list[list[object]] = []
    for m in matrices[:LISTED]:
        shares = m.value("represented_fraction"), m.value("superposition")
        overlaps = m.times_m("mean_sq_cos"), m.times_m("centered_mean_sq_cos")
        regime = None if m.kind == "control" else m.regime
        rows.append([Link(m.name, f"o-{m.key}"), m.n, m.m, *shares, *overlaps, regime])
    return html.section("Regime, models beside controls", html.table("regimes", header, rows)) if rows else ""


def _exponents(name: str, found: Sequence[Exponent]) -> str:
    quantities = len({e.quantity for e in found}) > 1
    header = ("what", *(("of",) if quantities else ()), "exponent", "±", "95 % from", "to", "points", CURVES)
    rows: list[list[object]] = []
    for e in sorted(found, key=lambda e: ORDER[e.kind])[:LISTED]:
        named: list[object] = [Link(e.title, _place(e)), *([e.quantity] if quantities else [])]
        rows.append([*named, e.value, e.stderr, *e.ci95, e.n_points or None, e.best_curve])
    return html.table(name, header, rows)


def _differences(found: Sequence[Exponent]) -> str:
    gaps = [gap for gap in differences(found) if gap.quantity == "loss vs width"]
    rows = [[d.toy, d.real, d.value, d.stderr, d.value / d.stderr] for d in gaps[:LISTED]]
    header = ("toy", "language models", "difference", "±", "in σ")
    return html.section("Does the toy equal the real?", html.table("differences", header, rows)) if rows else ""


def _warnings(found: Sequence[Exponent]) -> str:
    lines = [f"{e.name} ({e.quantity}): {text}" for e in found for text in e.warnings]
    if not lines:
        return ""
    shown = "".join(html.paragraph(line, "warning") for line in lines[:LISTED])
    return html.fold(f"{len(lines)} note{'s' * (len(lines) > 1)} on these fits", shown)


def _losses(frame: pd.DataFrame) -> str:
    rows = frame[(frame["source_kind"] == "llm") & frame["metric"].isin(("loss", "bits_per_byte"))]
    body: list[list[object]] = []
    for row in rows.head(LISTED).to_dict("records"):
        what = str(row["metric"]).replace("_", " ")
        facts = [Link(row["model"], f"o-{row['key']}"), row["corpus"], _whole(row["m"]), what, float(row["value"])]
        body.append([*facts, _known(row["stderr"]), row["unit"], _whole(row["n_samples"])])
    return html.table("losses", ("model", "corpus", "m", "what", "value", "±", "unit", "tokens scored"), body)


def _place(e: Exponent) -> str:
    return f"e-{digest({'kind': e.kind, 'quantity': e.quantity, 'name': e.name})}"


def _sources(found: Sequence[Exponent]) -> str:
    lines = []
    for e in found[:LISTED]:
        text = f"as printed: {e.source}"
        if e.fit is not None or e.kind != "published":
            law = e.fit.law.formula if e.fit else "a mean over runs"
            keys = f"{', '.join(e.keys[:8])}{', …' if len(e.keys) > 8 else ''}"
            text = f"{e.n_points} points, {law}{f'; observations {keys}' if keys else ''}; {e.source}"
        lines.append((_place(e), f"{e.name} ({e.quantity}): {text}"))
    return html.fold(f"{len(lines)} exponents", html.bullets(lines))


def _provenance(frame: pd.DataFrame) -> str:
    lines = []
    for r in frame[frame["source_kind"] != "published"].head(LISTED).itertuples():
        settings = {k: v for k, v in r.provenance.settings.items() if v is not None}
        record = {k: v for k, v in r.provenance.record.items() if k in RECORDED and v is not None}
        what = " ".join(str(v) for v in (r.family, r.model, r.revision, r.corpus) if v)
        text = f"{r.metric} = {r.value:.6g} of {what}; {json.dumps({**settings, **record})}"
        lines.append((f"o-{r.key}", f"{r.key}: {text}"))
    more = f", the first {LISTED}" if len(lines) == LISTED else ""
    return html.fold(f"{len(frame)} observations{more}", html.bullets(lines))


def _known(value: Any) -> float:
    """A number, NaN where there is none."""
    return math.nan if value is None else float(value)


def _whole(value: Any) -> int | None:
    return None if math.isnan(_known(value)) else int(value)
