"""Names are data: nothing that reads a report, a terminal or a table obeys one."""

from __future__ import annotations

import csv
import json
import warnings
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmprobe import console
from llmprobe.names import cell, drawn, printable, tex, visible
from llmprobe.observations import Observation, ObservationStore, Provenance
from llmprobe.report import write_report

HOSTILE = (
    r"$\frac{", "$a$ $b", "_hidden", "=1+1", "@SUM(1)", "-2", "\t=3", r"\input{/etc/passwd}", "a_b#c%d&e~f^g",
    "<script>alert(1)</script>", "\x1b]0;owned\x07\x1b[2J", "two\nlines\r", "\u202eright to left", "\ud800 alone",
    "x" * 10_000, "\0", "{curly}", "漢字", "'; DROP TABLE", "",
)  # fmt: skip


@given(st.text(st.characters(exclude_categories=())))
def test_no_control_reaches_a_terminal(text: str) -> None:
    shown = visible(text)
    assert not any(c != "\n" and c != "\t" and (ord(c) < 32 or 127 <= ord(c) < 160) for c in shown)
    shown.encode()
    assert visible(shown) == shown
    assert "\n" not in printable(text)
    assert len(printable(text)) <= 4 * 200 * 2


@given(st.text(min_size=1), st.text(min_size=1))
def test_long_names_stay_different(a: str, b: str) -> None:
    long = "n" * 500
    assert (printable(long + a) == printable(long + b)) == (a == b)


@pytest.mark.parametrize("name", HOSTILE)
def test_each_target_is_safe(name: str) -> None:
    from matplotlib.cbook import is_math_text

    assert not is_math_text(drawn(name))
    assert not drawn(name).startswith("_")
    written = tex(name)
    for command in (
        r"\textbackslash{}",
        r"\textasciitilde{}",
        r"\textasciicircum{}",
        r"\textless{}",
        r"\textgreater{}",
    ):
        written = written.replace(command, "")
    for special in "{}$&#%_":
        written = written.replace(f"\\{special}", "")
    assert not set(written) & set("\\{}$&#%_~^")
    assert str(cell(name)).lstrip()[:1] not in tuple("=+-@")
    assert cell(-2.0) == -2.0


def test_a_report_of_hostile_names_is_a_report(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "observations.jsonl")
    for name in HOSTILE:
        common = {"study": name, "source_kind": "llm", "family": name, "corpus": name, "revision": name}
        settings = Provenance({"tensor": name, "odd": name})
        store.append(
            *(
                Observation(
                    metric="loss", value=1 + 5 / 2**i, m=2 ** (4 + i), model=f"{name}{i}", provenance=settings, **common
                )
                for i in range(5)
            ),
            Observation(metric="superposition", value=0.5, n=40, m=8, model=name, **common),
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("default", category=DeprecationWarning)  # between libraries, and not of names
        warnings.filterwarnings("ignore", "constrained_layout not applied")
        page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert not {c for c in page if ord(c) < 32 and c not in "\n\t"}
    HTMLParser().feed(page)
    with (tmp_path / "exponents.csv").open(newline="", encoding="utf-8") as file:
        cells = [text for row in csv.reader(file) for text in row]
    numbers = {text for text in cells if text.lstrip("-").replace(".", "").replace("e", "").replace("-", "").isdigit()}
    assert not [text for text in cells if text.lstrip()[:1] in tuple("=+@-") and text not in numbers]
    assert json.loads((tmp_path / "exponents.json").read_text(encoding="utf-8"))


def test_errors_and_tables_show_no_escape(capsys: pytest.CaptureFixture[str]) -> None:
    from llmprobe.errors import SourceError

    def work() -> None:
        console.say(console.table([("\x1b[2Jname", 1.0)], ("", "")))
        raise SourceError("\x1b]0;owned\x07 is\nno model")

    assert console.guarded(work) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert err.splitlines()[-1] == r"error: \x1b]0;owned\x07 is no model"
