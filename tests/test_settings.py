"""Settings check themselves before work begins, in one line that names the flag that was typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest

from llmprobe import cli as llmprobe_cli
from llmprobe.settings import Count, Device, Figure, Positive, SettingError, Share, check, one_of
from toymodels import cli as toymodels_cli


@pytest.mark.parametrize(
    ("hint", "good", "bad"),
    [
        (Count, (1, 10**9), (0, -1)),
        (Count | None, (None, 1), (0,)),
        (tuple[Count, ...], ((), (1, 2)), ((1, 0),)),
        (Positive, (1e-9, 5), (0.0, -1.0, float("nan"), float("inf"))),
        (Share, (0.0, 1.0), (1.1, -0.1)),
        (Figure, (Path("a.png"), Path("b.PDF")), (Path("x.foo"), Path("x"))),
        (Device, ("auto", "cuda", "cuda:1"), ("meta", "quantum", "cuda:x")),
        (Literal["gd", "adam"], ("gd",), ("sgd",)),
        (Annotated[tuple[Literal["W", "B"], ...], "trained"], (("W",),), (("D",),)),
    ],
)
def test_rules(hint: object, good: tuple, bad: tuple) -> None:
    for value in good:
        check("name", value, hint)
    for value in bad:
        with pytest.raises(SettingError, match=r"^name = "):
            check("name", value, hint)


def test_unknown_names_are_met_with_what_they_may_mean() -> None:
    with pytest.raises(Exception, match=r"unknown preset 'quik'; expected one of small, quick; did you mean quick\?"):
        one_of("preset", "quik", ["small", "quick"])


SLIPS = {
    "llmprobe": [
        "fit T --bootstrap 9 --seed -1",
        "fit T --figure x.foo",
        "fit T --delta 0",
        "overlap F --seed -1",
        "overlap F --rows 0",
        "overlap F --vocabulary 0",
        "loss F --context 0",
        "loss F --max-tokens 0",
        "loss F --max-documents -1",
        "loss F --batch-tokens 0",
        "loss F --device meta",
        "loss F --dtype int8",
        "geometry F --pairs 0",
        "geometry F --bins 0",
        "geometry F --rows 0",
        "geometry F --figure x.foo",
    ],
    "toymodels": [
        "superposition --seed -1",
        "superposition --threads 0",
        "superposition --workers -1",
        "superposition --steps 0",
        "superposition --widths 3 0",
        "superposition --device quantum",
        "superposition --warmup 1.5",
        "softmax --vocabulary 1",
        "softmax --temperature 0",
        "softmax --rate -1",
        "softmax --final-rate 2",
        "teacher-student --seed -1",
        "teacher-student --threads 0",
        "teacher-student --n 0",
        "teacher-student --a 0",
        "teacher-student --time 900",
        "teacher-student --rate 0",
    ],
}


@pytest.mark.parametrize(("tool", "line"), [(tool, line) for tool, lines in SLIPS.items() for line in lines])
def test_a_slip_is_one_line_that_names_the_flag(tool: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = llmprobe_cli.main if tool == "llmprobe" else toymodels_cli.main
    arguments = line.replace(" T ", " no-table.csv ").replace(" F ", " no-model.gguf ").split()
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    flag = [word for word in arguments if word.startswith("--")][-1]
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith(f"error: {flag} ")
    assert "expected" in err
