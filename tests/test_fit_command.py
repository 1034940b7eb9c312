"""``llmprobe fit``: tables and observations in, JSON and a figure out, bad input named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmprobe.commands.fit import Fit
from llmprobe.errors import FitError
from llmprobe.observations import Observation, ObservationStore

KEYS = ["law", "n_points", "params", "stderr", "ci95", "r2", "rmse", "objective", "converged", "warnings"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    m = np.tile(np.geomspace(64, 4096, 10).round(), 2)
    family = np.repeat(["opt", "qwen"], 10)
    loss = np.where(family == "opt", 2.0, 1.5) + 60 / m * np.exp(0.01 * rng.standard_normal(20))
    rows = [f"{f},{a:.0f},{b:.8f},0.01,{f}-{a:.0f}" for f, a, b in zip(family, m, loss, strict=True)]
    path = tmp_path / "losses.csv"
    path.write_text("# a comment\nfamily,m,loss,se,model\n" + "\n".join(rows) + "\n")
    return path


def printed(command: Fit, capsys: pytest.CaptureFixture[str]) -> dict:
    replace(command, json=True).run()
    (line,) = capsys.readouterr().out.splitlines()
    return json.loads(line)


def test_json_of_a_plain_fit_has_the_documented_keys(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(Fit(table, offset="group", group=("family",), sigma="se"), capsys)
    assert list(found) == KEYS
    assert list(found["params"]) == ["A_m", "alpha_m", "E[opt]", "E[qwen]"]
    assert found["params"]["alpha_m"] == pytest.approx(1, abs=0.05)
    assert found["n_points"] == 20


def test_what_is_asked_for_is_added(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = tmp_path / "deep" / "fit.svg"
    command = Fit(
        table,
        offset="shared",
        where=("family=opt",),
        drop_largest=1,
        bootstrap=50,
        profile=("alpha_m",),
        judge=True,
        figure=figure,
    )
    found = printed(command, capsys)
    assert list(found) == [*KEYS, "bootstrap", "profile", "judgement"]
    assert found["n_points"] == 9
    assert found["bootstrap"]["n"] == 50
    assert found["profile"]["alpha_m"][0] < found["params"]["alpha_m"] < found["profile"]["alpha_m"][1]
    assert found["judgement"]["rivals"][0]["name"] == "power law + offset"
    assert "<svg" in figure.read_text()
    command.run()
    text = capsys.readouterr().out
    for word in ("alpha_m", "bootstrap: 50 resamples", "profile interval", "AICc"):
        assert word in text


def test_a_window_is_reported_with_its_rule(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Fit(table, offset="shared", where=("family=qwen",), window="100:3000")
    found = printed(command, capsys)
    assert found["window"]["window"] == [100, 3000]
    assert found["window"]["rule"] == "given"
    assert len(found["window"]["sensitivity"]) >= 4
    with pytest.raises(FitError, match="bends"):
        replace(command, offset="none", window="auto").run()
    command.run()
    assert "window 100 to 3000: given" in capsys.readouterr().out


def test_the_straight_part_of_a_curve_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t = np.geomspace(1, 1e5, 60)
    path = tmp_path / "curve.csv"
    path.write_text("t,loss\n" + "\n".join(f"{a},{1 / (1 + a / 30)}" for a in t))
    found = printed(Fit(path, x=("t",), window="auto"), capsys)
    assert found["window"]["window"][0] > 100
    assert found["window"]["window"][1] == pytest.approx(1e5)
    assert found["params"]["alpha_t"] == pytest.approx(1, abs=0.03)


def test_figures_of_groups_and_of_several_x(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Fit(table, offset="group", group=("family",), figure=tmp_path / "a.png").run()
    rng = np.random.default_rng(1)
    N, D = rng.uniform(1, 100, 30), rng.uniform(1, 100, 30)
    two = tmp_path / "two.csv"
    two.write_text("N,D,loss\n" + "\n".join(f"{a},{b},{1 / a + 2 / b}" for a, b in zip(N, D, strict=True)))
    Fit(two, x=("N", "D"), loss="linear", figure=tmp_path / "b.png").run()
    assert (tmp_path / "b.png").stat().st_size > 10_000
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert "E[qwen]" in capsys.readouterr().out


def test_observations_are_picked_by_metric_and_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ObservationStore(tmp_path / "rows.jsonl")
    for kind in ("toy", "llm"):
        for m in (8, 16, 32, 64, 128):
            common = {"study": "s", "source_kind": kind, "m": m, "model": f"{kind}{m}", "stderr": 0.01}
            level = 1.0 if kind == "llm" else 0.0
            store.append(
                Observation(metric="loss", value=level + 3 / m, unit="nats", **common),
                Observation(metric="mean_sq_cos", value=1 / m, **common),
            )
    toy = printed(Fit(store.path, where=("source_kind=toy",), sigma="stderr"), capsys)
    assert toy["params"] == pytest.approx({"A_m": 3, "alpha_m": 1}, rel=1e-6)
    overlap = printed(Fit(store.path, y="mean_sq_cos", where=("source_kind=toy",)), capsys)
    assert overlap["params"] == pytest.approx({"A_m": 1, "alpha_m": 1}, rel=1e-6)
    with pytest.raises(FitError, match="loss, mean_sq_cos"):
        Fit(store.path, y="accuracy").run()
    with pytest.raises(FitError, match="have no tokens"):
        Fit(store.path, x=("tokens",)).run()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"x": ("width",)}, "no column width"),
        ({"y": "nll"}, "no column nll"),
        ({"group": ("clan",), "offset": "group"}, "no column clan"),
        ({"group": ("family",)}, "--offset group"),
        ({"sigma": "error"}, "no column error"),
        ({"x": ("model",)}, "holds text"),
        ({"offset": "group"}, "--group"),
        ({"where": ("family=llama",)}, "no row"),
        ({"where": ("family",)}, "name=value"),
        ({"fix": ("alpha_m=one",)}, "a number"),
        ({"drop_largest": 20}, "of 20 rows"),
        ({"window": "wide"}, "LO:HI"),
        ({"window": "auto", "offset": "group", "group": ("family",)}, "one x without groups"),
        ({"file": Path("absent.csv")}, "no file"),
    ],
)
def test_bad_options_are_named(table: Path, change: dict, said: str) -> None:
    with pytest.raises(FitError, match=said):
        replace(Fit(table), **change).run()


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    empty, header = tmp_path / "empty.csv", tmp_path / "header.csv"
    empty.write_text("")
    header.write_text("m,loss\n")
    for path, said in ((empty, "not a table"), (header, "no rows")):
        with pytest.raises(FitError, match=said):
            Fit(path).run()


def test_a_gap_in_a_column_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gap.csv"
    path.write_text("m,loss\n8,1\n16,\n32,0.3\n")
    with pytest.raises(FitError, match="1 of 3 rows have no loss"):
        Fit(path).run()
