"""One self-contained HTML page: style, sortable and copyable tables, nothing fetched when it is viewed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

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
figure { margin: 1rem 0; } figure svg { width: 100%; height: auto; max-width: 46rem; display: block; }
figcaption { font-size: .9rem; opacity: .85; }
.point { cursor: pointer; } .point:hover { opacity: .55; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td:first-child { min-width: 14rem; } td.number, th.number { text-align: right; white-space: nowrap; }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid var(--link); }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.copy { font: inherit; font-size: .8rem; color: var(--link); background: none; border: 1px solid var(--line);
  border-radius: 4px; padding: .1rem .5rem; cursor: pointer; }
.warning { color: var(--warn); } details { margin: 1rem 0; } summary { cursor: pointer; }
pre { background: var(--soft); padding: .7rem; overflow-x: auto; font-size: .8rem; }
@media print { .copy { display: none; } body { max-width: none; } details { display: block; } }
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


def table(name: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that sorts by its headers and copies as tab-separated text; `name` is its id."""
    numeric = [all(not isinstance(row[i], str) for row in rows) for i in range(len(header))]
    head = "".join(
        f'<th{_class(number)} scope="col"><button type="button">{escape(text)}</button></th>'
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


def _class(number: bool) -> str:
    return ' class="number"' if number else ""


def _cell(value: object, number: bool) -> str:
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return f"<td{_class(number)}>–</td>"
    if isinstance(value, float):
        return f'<td{_class(number)} data-value="{value!r}">{value:.4g}</td>'
    data = f' data-value="{value}"' if isinstance(value, int) else ""
    return f"<td{_class(number)}{data}>{escape(str(value))}</td>"
