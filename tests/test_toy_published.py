"""Ours against published: planted runs whose scatter and deviation are known, and the runs on record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmprobe.errors import ConfigError
from llmprobe.report.published import figure
from recipes import toy_published, toy_regimes


def planted(scatter: float, shift: float = 0.0, seeds: int = 2) -> pd.DataFrame:
    """The published losses at even frequencies run again, with a scatter and a common shift of their logarithm."""
    rng = np.random.default_rng(0)
    rows = figure("fig5a_alpha0").rename(columns=toy_published.RENAMED)
    rows = pd.concat([rows.assign(seed=seed) for seed in range(seeds)])
    noise = shift + scatter * rng.standard_normal(len(rows))
    return rows.assign(activation_density=1.0, loss=rows["loss"] * np.exp(noise), phi_half=1 - rows["k"] / 1000)


def test_runs_that_scatter_as_seeds_do_agree() -> None:
    points = toy_published.compare(planted(0.02))
    losses = points[points["panel"] == "Fig. 5a"]
    assert len(losses) == 60
    # theirs has no noise here: a third of the variance of two noisy sides, times 5/3 of Student's t with five pairs
    assert np.std(losses["z"]) == pytest.approx(np.sqrt(1 / 3 * 5 / 3), rel=0.2)
    assert losses["sigma"].median() == pytest.approx(0.02 * np.sqrt(1.5), rel=0.2)
    exponents = points[points["panel"].str.contains("exponent")]
    assert len(exponents) == 10
    assert exponents["sigma"].median() == pytest.approx(0.02 * np.sqrt(1.5) / 1.97, rel=0.3)  # √Σ(x − x̄)² = 1.97
    summary = toy_published.verdicts(points).set_index("panel")
    assert summary.loc["Fig. 5a", "probability"] > 0.05


def test_a_shift_of_ten_scatters_is_found_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = toy_published.report(planted(0.005, shift=0.05), tmp_path)
    summary = toy_published.verdicts(points).set_index("panel")
    assert summary.loc["Fig. 5a", "probability"] < 1e-6
    assert "γ = -1, α = 0, m = 10" in capsys.readouterr().out
    assert (tmp_path / "ours_against_published.png").stat().st_size > 10_000


def test_without_two_seeds_no_probability_is_given() -> None:
    points = toy_published.compare(planted(0.02, seeds=1))
    points = points[~points["panel"].str.contains("represented")]
    assert len(points) == 70
    assert points["z"].isna().all()
    assert toy_published.verdicts(points)["probability"].isna().all()


def test_probabilities_of_chi_squared_know_how_well_the_scatter_is_known() -> None:
    sharp = pd.DataFrame({"pool": "binomial", "dof": [np.inf] * 4})
    assert toy_published.probability(sharp, 9.488) == pytest.approx(0.05, abs=0.005)
    vague = pd.DataFrame({"pool": "one pair", "dof": [1.0] * 4})
    assert toy_published.probability(vague, 4 * 224.58) == pytest.approx(0.05, abs=0.005)  # of F(4, 1)


@pytest.mark.parametrize(("features", "times"), [(1000, 1.0), (50, 20.0)])
def test_counts_of_features_that_decide_in_groups_scatter_more(features: int, times: float) -> None:
    rng = np.random.default_rng(0)
    cells = [(g, m, seed) for g in np.linspace(-0.9, -0.1, 40) for m in (10, 39) for seed in range(5)]
    runs = pd.DataFrame(cells, columns=["weight_decay", "m", "seed"]).assign(data_exponent=0.0, activation_density=1.0)
    runs["phi_half"] = rng.binomial(features, 0.3, len(runs)) / features
    found = toy_published.dispersion(runs)
    assert set(found["m"]) == {10, 39}
    assert found["dof"].tolist() == pytest.approx([160, 160])
    assert found["times"].tolist() == pytest.approx([times] * 2, rel=0.3)


def test_the_runs_on_record_meet_their_published_points() -> None:
    runs = pd.read_csv(toy_published.RECORD, sep="\t", comment="#")
    points = toy_published.compare(runs)
    assert {"Fig. 5a", "Fig. 7a", "Fig. 4b, exponent"} <= set(points["panel"])
    assert set(points.loc[points["panel"] == "Fig. 5a", "data_exponent"]) == {0}
    summary = toy_published.verdicts(points).set_index("panel")
    assert summary.loc["Fig. 5a", "points"] == summary.loc["Fig. 5a", "with known scatter"] == 60
    for panel in ("Fig. 5a", "Fig. 4b, exponent", "Fig. 5a, represented"):
        assert summary.loc[panel, "probability"] > 1e-3


def test_cells_lie_on_the_published_map() -> None:
    cells = figure("fig4b_exponents").rename(columns=toy_published.RENAMED)
    known = {(round(g, 3), a) for g, a in cells[["weight_decay", "data_exponent"]].itertuples(index=False)}
    assert {(round(g, 3), a) for g, a in toy_published.CELLS} <= known
    assert len(set(toy_published.CELLS)) == len(toy_published.CELLS) >= 20
    assert {round(g, 3) for g, a in toy_published.CELLS if a == 0} == {g for g, _ in known}


def test_the_recipe_trains_every_chosen_cell_at_every_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def trained(configs: Sequence[Any], *_: Any, **__: Any) -> list[dict[str, Any]]:
        asked.extend(configs)
        facts = ("weight_decay", "data_exponent", "activation_density", "m", "seed")
        return [{**{name: getattr(c, name) for name in facts}, "loss": 1 / c.m, "phi_half": 1.0} for c in configs]

    monkeypatch.setattr(toy_regimes, "sweep", trained)
    toy_regimes.main(toy_regimes.Config(published=True, out=tmp_path, workers=1))
    assert len(asked) == 6 * len(toy_published.CELLS)
    assert {(c.n, c.batch, c.steps, c.bias_start) for c in asked} == {(1000, 2048, 20000, 1.0)}
    assert (tmp_path / "points.tsv").is_file()
    with pytest.raises(ConfigError, match="published protocol"):
        toy_regimes.main(toy_regimes.Config(published=True, quick=True, out=tmp_path))
