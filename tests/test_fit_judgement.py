"""Windows, rivals, left-out points and extrapolation, each against data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from llmprobe.errors import FitError
from llmprobe.fitting.alternatives import compare_curves
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.stretch import choose_window, thin
from llmprobe.fitting.validation import extrapolate, leave_one_out, residual_table, validate
from llmprobe.fitting.window import fit_window

M = np.geomspace(8, 1024, 14)
OFFSET = PowerLawSum(offset="shared")


def noise(scale: float, n: int, seed: int = 0) -> np.ndarray:
    return np.exp(scale * np.random.default_rng(seed).standard_normal(n))


@pytest.mark.parametrize(
    ("name", "curve", "params"),
    [
        ("power law", 3 / M, {"A_m": 3, "alpha_m": 1}),
        ("power law + offset", 2 + 30 / M, {"A_m": 30, "alpha_m": 1, "E": 2}),
        ("exponential", 3 * np.exp(-M / 300), {"A": 3, "tau": 300}),
        ("exponential + offset", 1 + 3 * np.exp(-M / 60), {"A": 3, "tau": 60, "E": 1}),
        ("logarithm", 5 - 0.5 * np.log(M), {"a": 5, "b": 0.5}),
        (
            "broken power law",
            np.where(M < 100, (M / 100) ** -0.3, (M / 100) ** -1.2),
            {"A": 1, "alpha1": 0.3, "alpha2": 1.2, "x0": 100},
        ),
    ],
)
@pytest.mark.parametrize("loss", ["log", "linear"])
def test_the_curve_that_made_the_data_wins(name: str, curve: np.ndarray, params: dict, loss: str) -> None:
    result = fit(OFFSET, M, curve * noise(0.003, 14, seed=1), loss=loss)
    ranked = compare_curves(result)
    assert len(ranked) == 6
    assert ranked[0].name == name
    assert ranked[0].params == pytest.approx(params, rel=0.05)
    assert sum(rival.weight for rival in ranked) == pytest.approx(1)
    assert [r.aicc for r in ranked] == sorted(r.aicc for r in ranked)


def test_aicc_is_the_formula_and_few_points_cannot_tell() -> None:
    y = 3 / M * noise(0.05, 14)
    ranked = {rival.name: rival for rival in compare_curves(fit(PowerLawSum(), M, y))}
    slope, level = np.polyfit(np.log(M), np.log(y), 1)
    rss = np.sum((np.log(y) - level - slope * np.log(M)) ** 2)
    assert ranked["power law"].aicc == pytest.approx(14 * np.log(rss / 14) + 6 + 24 / 10, rel=1e-9)
    few = {rival.name: rival for rival in compare_curves(fit(PowerLawSum(), M[:5], y[:5]))}
    assert few["broken power law"].aicc == np.inf
    assert few["broken power law"].weight == 0


def test_rivals_do_not_depend_on_units() -> None:
    y = (2 + 30 / M) * noise(0.01, 14)
    one, other = (compare_curves(fit(OFFSET, k * M, 7 * k * y)) for k in (1.0, 1000.0))
    assert [r.name for r in one] == [r.name for r in other]
    np.testing.assert_allclose([r.aicc for r in one], [r.aicc for r in other], rtol=1e-4)


def test_leave_one_out_is_the_closed_form_of_a_line() -> None:
    y = 3 / M * noise(0.1, 14)
    result = fit(PowerLawSum(), M, y)
    X = np.column_stack([np.ones(14), np.log(M)])
    leverage = np.diag(X @ np.linalg.inv(X.T @ X) @ X.T)
    np.testing.assert_allclose(leave_one_out(result).error, result.residuals / (1 - leverage), rtol=1e-6)


def test_leave_one_out_is_refitting() -> None:
    y = (2 + 30 / M) * noise(0.02, 14)
    found = leave_one_out(fit(OFFSET, M, y, loss="linear"))
    for i in (0, 6, 13):
        others = np.arange(14) != i
        alone = fit(OFFSET, M[others], y[others], loss="linear")
        assert found.predicted[i] == pytest.approx(alone.predict(M[[i]])[0], rel=1e-5)


def test_small_widths_predict_large_ones_of_the_right_law() -> None:
    scores = []
    for seed in range(40):
        y = (2 + 30 / M) * noise(0.01, 14, seed)
        scores.append(extrapolate(fit(OFFSET, M, y)).score)
    student = 2.364624  # 97.5 %, 10 points less 3 parameters
    assert np.mean(np.abs(scores) < student) == pytest.approx(0.95, abs=0.05)
    right = extrapolate(fit(OFFSET, M, (2 + 30 / M) * noise(0.01, 14)))
    assert len(right.rows) == 4
    assert right.result.n_points == 10
    wrong = extrapolate(fit(PowerLawSum(), M, (2 + 30 / M) * noise(0.01, 14)), beyond=100)
    assert wrong.rms > 5 * right.rms
    assert wrong.rms > wrong.fitted_rms


def test_extrapolation_names_groups_it_has_not_seen() -> None:
    group = np.array(["a"] * 12 + ["b"] * 2)
    found = extrapolate(fit(PowerLawSum(offset="group"), M, 2 + 30 / M, group=group))
    assert found.unseen == 2
    assert len(found.rows) == 2
    with pytest.raises(FitError, match="one of m"):
        extrapolate(found.result, "n")
    with pytest.raises(FitError, match="some of each"):
        extrapolate(found.result, beyond=1e9)


def test_residual_table_adds_up() -> None:
    y = (2 + 30 / M) * noise(0.02, 14)
    table = residual_table(fit(OFFSET, M, y, group=["a"] * 14))
    assert list(table) == ["m", "group", "y", "fitted", "residual", "standardised"]
    np.testing.assert_allclose(np.log(table["y"] / table["fitted"]), table["residual"], rtol=1e-9)
    assert np.mean(table["standardised"] ** 2) == pytest.approx(1)


def test_judgement_leaves_open_what_it_cannot_test() -> None:
    judged = validate(fit(PowerLawSum(), M[:2], 3 / M[:2]))
    assert np.isnan(judged["leave_one_out_rms"])
    assert np.isnan(judged["extrapolation_rms"])


T = np.arange(1, 50001.0)


def test_the_chosen_window_is_the_straight_stretch() -> None:
    """1/(1 + t/100): the local exponent t/(t + 100) settles at 1 far beyond t = 100."""
    keep = thin(T)
    y = 1 / (1 + T / 100)
    window = choose_window(T[keep], y[keep])
    assert window.hi == 50000
    assert 300 < window.lo < 3000
    assert window.bend <= 0.1
    assert "longest stretch" in window.rule
    straighter = choose_window(T[keep], y[keep], tolerance=0.02)
    assert straighter.lo > window.lo


def test_a_window_is_given_or_chosen_and_its_neighbours_are_shown() -> None:
    y = 0.5 * np.exp(-T / 3) + T**-0.8
    chosen = fit_window(T, y)
    assert chosen.exponent == pytest.approx(0.8, abs=0.01)
    found = fit_window(T, y, 30, 1000)
    assert found.window.rule == "given; of 50000 points, 24 per decade are used"
    assert found.exponent == pytest.approx(0.8, abs=1e-3)
    assert len(found.sensitivity) == 6
    low, high = found.spread
    assert low <= found.exponent <= high
    assert high - low < 0.01
    row = found.to_dict()
    assert row["window"] == [30, 1000]
    assert set(row["sensitivity"][0]) == {"lo", "hi", "n_points", "exponent", "stderr"}
    bent = fit_window(T, 1 / (1 + T / 100), 30, 1000)
    assert bent.spread[1] - bent.spread[0] > 0.1


def test_windows_of_a_few_widths_move_by_whole_widths() -> None:
    m = np.array([10, 15, 25, 39, 63, 100.0])
    found = fit_window(m, 3 / m, 10, 100, law=PowerLawSum(("m",)))
    assert [(lo, hi) for lo, hi, *_ in found.sensitivity] == [
        (pytest.approx(15), pytest.approx(100)),
        (pytest.approx(10), pytest.approx(63)),
        (pytest.approx(15), pytest.approx(63)),
    ]
    assert found.spread == pytest.approx((1, 1))


def test_rows_of_one_x_stay_together_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    m = np.repeat(np.geomspace(8, 512, 8), 3)
    y = 3 / m * np.exp(0.02 * rng.standard_normal(24))
    order = rng.permutation(24)
    one, other = choose_window(m, y), choose_window(m[order], y[order])
    assert (one.lo, one.hi, one.n_points) == (other.lo, other.hi, other.n_points)
    assert one.n_points % 3 == 0
    with pytest.raises(FitError, match="5 points over"):
        choose_window(np.repeat(np.geomspace(8, 512, 4), 9), np.ones(36))  # four different x are too few


def test_thinning_keeps_the_ends_and_evens_the_rest() -> None:
    keep = thin(T[::-1], per_decade=10)
    kept = T[::-1][keep]
    assert kept[0] == 1
    assert kept[-1] == 50000
    assert len(kept) <= 48
    assert np.diff(np.log10(kept[kept > 100])).max() < 0.12


@pytest.mark.parametrize(
    ("x", "y", "options", "said"),
    [
        (M, np.exp(-M / 20), {}, "bends"),
        (M[:4], 1 / M[:4], {}, "5 points over 0.5 decades"),
        (M, 1 / M, {"lo": 10}, "both ends"),
        (M, -1 / M, {}, "y > 0"),
        (T, 1 / T, {"per_decade": None}, "at most 2000"),
        (M, 1 / M[:5], {}, "one y for each x"),
        (M, 1 / M, {"law": PowerLawSum(("m", "n"))}, "one x"),
        (M, 1 / M, {"lo": 2000, "hi": 3000}, "no points|0 points"),
    ],
)
def test_windows_that_cannot_be_are_refused(x: np.ndarray, y: np.ndarray, options: dict, said: str) -> None:
    with pytest.raises(FitError, match=said):
        fit_window(x, y, **options)


def test_rivals_need_one_x_and_no_groups() -> None:
    with pytest.raises(FitError, match="one x without groups"):
        compare_curves(fit(PowerLawSum(offset="group"), M, 2 + 30 / M, group=["a", "b"] * 7))
