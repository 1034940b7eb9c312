"""Tables: labels are text, numbers are numbers, and what is neither is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmprobe.errors import FitError
from llmprobe.frames import labels, matching, numbers, read_frame


def table(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


def test_a_hash_is_a_comment_only_where_a_line_begins(tmp_path: Path) -> None:
    frame = read_frame(table(tmp_path, "# first\nlang,loss\nC,1\n#C,5\nC#,2\n"))
    assert labels(frame, ["lang"]).tolist() == ["C", "C#"]
    assert numbers(frame, "loss").tolist() == [1, 2]


def test_labels_are_text(tmp_path: Path) -> None:
    frame = read_frame(table(tmp_path, "run,y\n01,1\n1,2\nNA,3\nTrue,4\n1.0,5\n1e3,6\n"))
    assert labels(frame, ["run"]).tolist() == ["01", "1", "NA", "True", "1.0", "1e3"]
    assert numbers(matching(frame, "run", "1"), "y").tolist() == [2]
    assert numbers(matching(frame, "run", "1000"), "y").tolist() == [6]
    with pytest.raises(FitError, match=r"run = 1\.00 is 01 and 1 and 1\.0"):
        matching(frame, "run", "1.00")


def test_labels_of_several_columns_never_run_together(tmp_path: Path) -> None:
    frame = read_frame(table(tmp_path, "a,b\nx/y,z\nx,y/z\n"))
    assert len(set(labels(frame, ["a", "b"]))) == 2
    frame = read_frame(table(tmp_path, "a,b\nopt,c4\nopt,pile\n"))
    assert labels(frame, ["a", "b"]).tolist() == ["opt/c4", "opt/pile"]


@pytest.mark.parametrize(
    ("name", "mark"), [("t.csv", ","), ("t.csv", ";"), ("t.csv", "\t"), ("t.tsv", "\t"), ("t", "|")]
)
def test_separators_are_told_from_the_header(tmp_path: Path, name: str, mark: str) -> None:
    frame = read_frame(table(tmp_path, f"\ufeffm{mark}loss\r\n16{mark} 2.5\r\n32{mark}1.5\r\n", name))
    assert numbers(frame, "m").tolist() == [16, 32]
    assert numbers(frame, "loss").tolist() == [2.5, 1.5]


WRONG = {
    "m,loss\n16,2,1\n": "row 1 of .* has 3 cells and the header 2",
    "m,loss\n16\n": "row 1 of .* has 1 cells and the header 2",
    "m,m\n1,2\n": "the header m, m",
    "m,\n1,2\n": "the header m, ",
    "m;lo|ss\n1;2\n": "semicolons and bars",
    "": "it is empty",
    "m,loss\n": "no rows",
    '"m,loss\n1,2\n': "not a table",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_no_table_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(FitError, match=WRONG[text]):
        read_frame(table(tmp_path, text))


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ('"1,000"', "'1,000' in row 2; expected numbers without thousands separators"),
        ("1_000", "'1_000' in row 2; expected numbers without thousands separators"),
        ("1 000", "'1 000' in row 2; expected numbers without thousands separators"),
        ("5%", "'5%' in row 2"),
        ("abc", "'abc' in row 2"),
        ("0x10", "'0x10' in row 2"),
        ("NA", "1 of 2 rows have no m"),
        ("", "1 of 2 rows have no m"),
    ],
)
def test_a_cell_that_is_no_number_is_named(tmp_path: Path, cell: str, message: str) -> None:
    frame = read_frame(table(tmp_path, f"m,loss\n16,1\n{cell},2\n"))
    with pytest.raises(FitError, match=message):
        numbers(frame, "m")


def test_numbers_keep_every_digit(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    frame = read_frame(table(tmp_path, "y,z\n" + "".join(f"{v!r},1\n" for v in values.tolist())))
    np.testing.assert_array_equal(numbers(frame, "y"), values)
