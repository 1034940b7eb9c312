"""One self-contained HTML page: style, sortable and copyable tables, nothing fetched when it is viewed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

GLOSSARY = {
    "superposition": "(φ − m/n)/(1 − m/n) with φ the share of rows represented: 0 if only m rows are, 1 if all are",
    "represented": "share φ of rows that win their own contest: |W_i − μ|² > max_j (W_i − μ)·(W_j − μ)",
    "c²·m raw": "mean squared cosine between rows in units of 1/m, its mean over random directions",
    "c²·m centered": "the same after the mean row is subtracted",
    "regime": "by the rule below the verdict",
    "exponent": "α of a power law x^(−α)",
    "±": "one standard error",
    "95 % from": "lower end of the 95 % interval",
    "to": "upper end of the 95 % interval",
    "points": "points fitted",
    "R²": "share explained of the variance of log y",
    "best of six curves": "the curve with the lowest corrected Akaike criterion, and its share of the evidence",
    "in σ": "difference over its standard error",
    "n": "rows: tokens of the vocabulary, or features of a toy",
    "m": "width: numbers in a row",
}

STYLE = """
:root { color-scheme: light dark; --ink: #1a2b3c; --paper: #fdfdfb; --soft: #eef0ee; --line: #d5d9d6;
  --warn: #8a5a00; --link: #1f5f99; }
@media (prefers-color-scheme: dark) { :root { --ink: #dfe4e8; --paper: #15191d; --soft: #1f252b; --line: #343c44;
  --warn: #e0b060; --link: #7db7ea; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 60rem; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.verdict { font-size: 1.1rem; padding: .9rem 1.1rem; background: var(--soft); border-left: 4px solid var(--link); }
.verdict p { margin: .2rem 0; }
.hero { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1.5rem; }
.small { font-size: .85rem; opacity: .85; }
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; max-width: 46rem; display: block; }
figcaption { font-size: .9rem; opacity: .85; }
.point { cursor: pointer; } .point:hover { opacity: .55; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td:first-child { min-width: 9rem; } td.number, th.number { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.copy { font: inherit; font-size: .8rem; color: var(--link); background: none; border: 1px solid var(--line);
  border-radius: 4px; padding: .1rem .5rem; cursor: pointer; }
.warning { color: var(--warn); font-size: .9rem; margin: .2rem 0; } td a { color: inherit; }
th[title] button { text-decoration: underline dotted; } li:target { background: var(--soft); }
details { margin: 1rem 0; } summary { cursor: pointer; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .8rem; }
@media print { .copy { display: none; } body { max-width: none; font-size: 11px; }
  details > :not(summary) { display: block; } section, figure { break-inside: avoid; } }
"""
SCRIPT = """
for (const table of document.querySelectorAll("table")) {
  table.querySelectorAll("th").forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => { const cell = row.cells[column];
      return cell.dataset.value === undefined ? cell.textContent : Number(cell.dataset.value); };
    const body = table.tBodies[0];
    [...body.rows].sort((a, b) => { const [x, y] = [value(a), value(b)];
      const order = typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(String(y));
      return up ? order : -order; }).forEach(row => body.append(row));
  }));
}
const open = () => { const place = location.hash && document.getElementById(location.hash.slice(1));
  if (place) { for (let up = place; up; up = up.parentElement) if (up.tagName === "DETAILS") up.open = true;
    place.scrollIntoView(); } };
addEventListener("hashchange", open); open();
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(one => { one.open = true; }));
for (const button of document.querySelectorAll(".copy")) button.addEventListener("click", async () => {
  const table = document.getElementById(button.dataset.table);
  const text = [...table.rows].map(row => [...row.cells].map(cell => cell.textContent.trim()).join("\\t")).join("\\n");
  try { await navigator.clipboard.writeText(text); } catch {
    const area = document.createElement("textarea"); area.value = text; document.body.append(area);
    area.select(); document.execCommand("copy"); area.remove(); }
  button.textContent = "copied"; setTimeout(() => { button.textContent = "copy"; }, 1500);
});
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML document from HTML fragments."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A heading and what stands under it."""
    return f"<section><h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "</section>"


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def figure(svg: str, caption: str) -> str:
    """An inline SVG and what it shows."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def fold(title: str, *parts: str) -> str:
    """What only some readers want to open."""
    return f"<details><summary>{escape(title)}</summary>\n" + "\n".join(parts) + "</details>"


def preformatted(text: str) -> str:
    """Text as it stands."""
    return f"<pre>{escape(text)}</pre>"


@dataclass(frozen=True)
class Link:
    """A cell that leads to another place of the page."""

    value: object
    place: str


def bullets(items: Sequence[tuple[str, str]]) -> str:
    """A list of plain texts, each with an id to link to."""
    return "<ul>" + "".join(f'<li id="{escape(place)}">{escape(text)}</li>' for place, text in items) + "</ul>"


def table(name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that sorts by its headers and copies as tab-separated text.

    Parameters
    ----------
    name
        Its id.
    header
        Titles; a word of `GLOSSARY` is explained when the pointer rests on it.
    rows
        Cells: texts, numbers (NaN and None are shown as a dash) or a `Link` around one.
    """
    values = [[cell.value if isinstance(cell, Link) else cell for cell in row] for row in rows]
    numeric = [all(not isinstance(row[i], str) for row in values) for i in range(len(header))]
    head = "".join(
        f'<th{_class(number)}{_title(text)} scope="col"><button type="button">{escape(text)}</button></th>'
        for text, number in zip(header, numeric, strict=True)
    )
    body = "\n".join(
        "<tr>" + "".join(_cell(value, number) for value, number in zip(row, numeric, strict=True)) + "</tr>"
        for row in rows
    )
    return (
        f'<button class="copy" type="button" data-table="{escape(name)}">copy</button>'
        f'<div class="scroll"><table id="{escape(name)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _title(text: str) -> str:
    return f' title="{escape(GLOSSARY[text])}"' if text in GLOSSARY else ""


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _cell(value: object, number: bool) -> str:
    if isinstance(value, Link):
        start, _, inside = _cell(value.value, number).partition(">")
        return f'{start}><a href="#{escape(value.place)}">{inside.removesuffix("</td>")}</a></td>'
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return f"<td{_class(number)}>–</td>"
    if isinstance(value, float):
        return f'<td{_class(number)} data-value="{value!r}">{value:.4g}</td>'
    data = f' data-value="{value}"' if isinstance(value, int) else ""
    return f"<td{_class(number)}{data}>{escape(str(value))}</td>"
