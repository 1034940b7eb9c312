"""Published figures as data: tables are whole, and what they were checked by holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from llmprobe.errors import ConfigError
from llmprobe.fitting import PowerLawSum, fit
from llmprobe.report.published import (
    figure,
    published_exponents,
    published_losses,
    published_overlaps,
    source,
)
from llmprobe.report.published.tables import FOLDER
from recipes import published_losses as published_losses_recipe
from recipes import published_statements

NAMES = sorted(path.stem for path in FOLDER.glob("*.tsv"))


@pytest.mark.parametrize("name", NAMES)
def test_every_table_names_its_source_and_has_no_empty_column(name: str) -> None:
    assert "arXiv:2505.10465" in source(name)
    frame = figure(name)
    assert len(frame) >= 5
    assert not frame.isna().all().any()


def test_the_figures_are_as_large_as_they_say() -> None:
    sizes = {
        "fig8b_losses": 108,
        "fig8a_overlaps": 25,
        "fig4b_exponents": 170,
        "fig5a_alpha0": 60,
        "fig1_toy_losses": 48,
    }
    assert {name: len(figure(name)) for name in sizes} == sizes
    with pytest.raises(ConfigError, match="fig8b_losses"):
        figure("fig99")


def test_losses_at_even_frequencies_give_the_exponents_of_their_map() -> None:
    """Figure 5a's ten curves, refitted by this project's code, against the colors of Figure 4b."""
    losses, cells = figure("fig5a_alpha0"), figure("fig4b_exponents").query("data_exponent_alpha == 0")
    assert len(cells) == 10
    for cell in cells.itertuples():
        curve = losses[losses["weight_decay_gamma"] == cell.weight_decay_gamma]
        result = fit(PowerLawSum(), curve["m"], curve["loss"])
        assert cell.bin_lo - 1e-4 <= result.params["alpha_m"] <= cell.bin_hi + 1e-4
        assert result.stderr["alpha_m"] == pytest.approx(cell.se, abs=3e-4)


def test_losses_know_their_models() -> None:
    frame = published_losses()
    assert frame.groupby("family")["model"].nunique().to_dict() == {"gpt2": 4, "opt": 8, "pythia": 8, "qwen2.5": 7}
    assert not frame[["depth", "n_params", "non_embedding"]].isna().any().any()
    assert set(frame.query("model == 'facebook/opt-350m'")["m"]) == {1024}
    # parameters without embeddings grow as 12 depth · width²
    assert np.corrcoef(np.log(frame["non_embedding"]), np.log(frame["depth"] * frame["m"] ** 2))[0, 1] > 0.99


def test_overlaps_are_those_of_the_figure() -> None:
    rows = {row.model: row for row in published_overlaps("s")}
    assert len(rows) == 25
    row = rows["facebook/opt-350m"]
    assert (row.family, row.m, row.value) == ("opt", 512, 0.086565)
    assert row.stderr == pytest.approx(1e-4 * row.value)


def test_the_real_exponent_is_a_refit_with_an_interval_and_keeps_the_printed_one() -> None:
    rows = {row.name: row for row in published_exponents()}
    row = rows["language models, four families (2505.10465)"]
    assert row.value == pytest.approx(0.9099, abs=1e-4)
    assert row.printed == "0.91 ± 0.04"
    assert row.stderr is not None
    assert row.ci95 is not None
    assert 0.08 < row.stderr < 0.14
    assert row.ci95[0] < 0.75 < 1 < row.ci95[1]
    assert [other.printed for other in rows.values() if other is not row] == [""] * (len(rows) - 1)


def test_the_study_of_the_losses_says_what_they_carry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = published_losses_recipe.main(published_losses_recipe.Config(resamples=100, out=tmp_path))
    laws = {rival["name"]: rival for rival in found["rivals"]}
    assert laws["A/m"]["gain"][0] < 0 < laws["A/m^a + C/l^b"]["gain"][0]  # nested: known signs
    assert laws["A/m^a"]["gain"] == (0, 0, 0)
    assert laws["A/m^a + C/l^b"]["rmse"] == pytest.approx(0.0617, abs=1e-4)
    assert laws["A/m"]["rmse"] == pytest.approx(0.0729, abs=1e-4)
    without = found["without"]["EleutherAI/pythia-70m"][0]
    assert without == pytest.approx(0.747, abs=2e-3)
    assert found["families"]["opt"][0] == pytest.approx(0.685, abs=2e-3)
    assert (tmp_path / "published_losses.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "not told apart" in out
    assert "27 models, clustered" in out


def test_statements_are_judged_by_their_bars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {s.stated: s for s in published_statements.main(published_statements.Config(out=tmp_path))}
    expected = {
        "27 models: α = 0.91": "holds",
        "27 models: α to ± 0.04": "does not",
        "27 models: α = 1": "in part",
        "decay γ = 1/3: α_m = α − 1": "in part",
        "decay, other γ: α_m = α − 1": "does not",
        "growth γ ≤ −0.56: φ = 1": "holds",
    }
    assert {name: found[name].verdict for name in expected} == expected
    assert "0.66 over all widths" in capsys.readouterr().out
    assert (tmp_path / "published_statements.png").stat().st_size > 10_000
    bars = {(0.85, 1.15): "holds", (0.6, 1.3): "in part", (0.4, 1.3): "does not", (1.05, 1.5): "does not"}
    assert {bar: published_statements.Statement("", "", *bar).verdict for bar in bars} == bars
