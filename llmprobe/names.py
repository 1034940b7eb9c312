"""Names are data: what a file, a user or the Hub calls something, made safe for where it is shown.

Names come from files that others wrote. A terminal must not obey them, a figure must not parse them, and no name may
stop a report.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

LONGEST = 200  # characters of a name that are shown
UNSHOWN = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, writing direction, lone surrogates, line breaks
KEPT = frozenset("\n\t")
FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]")
TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "α": r"$\alpha$", "γ": r"$\gamma$",
}  # fmt: skip


def visible(text: str) -> str:
    """Text with every control character but line feed and tab written out: ``\\x1b``, ``\\u202e``, ``\\ud800``."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in KEPT or unicodedata.category(c) not in UNSHOWN else _escape(c) for c in text)


def printable(name: object, longest: int = LONGEST) -> str:
    """A name on one line: nothing invisible in it, and short; names that differ stay different."""
    whole = str(name)
    text = "".join(_escape(c) if c in KEPT else c for c in visible(whole[: longest + 1]))
    if len(text) <= longest:
        return text
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{text[: longest - 10]}… {digest}"


def drawn(name: object) -> str:
    """A name as a figure shows it: `printable`, short, no formula in it, and in the legend even if it begins with _."""
    text = printable(name, 80).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def tex(name: object) -> str:
    """A name in LaTeX: every special character is written out."""
    return "".join(TEX.get(c, c) for c in printable(name))


def cell(value: object) -> object:
    """A cell of a CSV file: text that a spreadsheet would take for a formula is quoted by an apostrophe."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if FORMULA.match(text) else text


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
