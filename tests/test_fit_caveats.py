"""What a fit refuses and what it warns of: never a silent number."""

from __future__ import annotations

import numpy as np
import pytest

from llmprobe.errors import FitError
from llmprobe.fitting.estimator import fit
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.result import FitResult

M = np.geomspace(8, 256, 6)


@pytest.mark.parametrize(
    ("x", "y", "options", "said"),
    [
        (M[:2], 1 / M[:2], {"law": PowerLawSum(offset="shared")}, "2 points for 3 parameters"),
        (np.full(6, 64.0), 1 / M, {}, "m is 64 in all 6 rows"),
        (M, np.where(M > 100, -1, 1 / M), {}, "y = -1 in row 4"),
        (M, np.where(M > 100, np.nan, 1 / M), {}, "y = nan in row 4"),
        (M, np.where(M > 100, np.nan, 1 / M), {"loss": "linear"}, "finite"),
        (np.where(M > 100, 0, M), 1 / M, {}, "m = 0 in row 4"),
        (M, 1 / M[:5], {}, "one row per point"),
        (M, [["a"] * 6], {}, "text"),
        (M, 1 / M, {"sigma": np.zeros(6)}, "sigma > 0"),
        (M, 1 / M, {"law": PowerLawSum(offset="group")}, "no groups"),
        (M, 1 / M, {"group": ["a", "a", None, "b", "b", "b"]}, "no group in row 2"),
        (M, 1 / M, {"loss": "huber", "delta": 0.0}, "delta = 0"),
        (M, 1 / M, {"law": PowerLawSum(fixed={"alpha_n": 1.0})}, "fixed alpha_n"),
        ([], [], {}, "no points"),
    ],
)
def test_bad_input_is_refused_with_its_reason(x: np.ndarray, y: np.ndarray, options: dict, said: str) -> None:
    options = dict(options)
    with pytest.raises(FitError, match=said):
        fit(options.pop("law", PowerLawSum()), x, y, **options)


def said(result: FitResult, words: str) -> bool:
    return any(words in sentence for sentence in result.warnings)


def test_a_clean_fit_has_no_warnings() -> None:
    rng = np.random.default_rng(9)
    m = np.geomspace(8, 1024, 20)
    assert fit(PowerLawSum(offset="shared"), m, (2 + 30 / m) * np.exp(0.003 * rng.standard_normal(20))).warnings == ()


def test_warnings_say_what_the_data_do_not_support() -> None:
    rng = np.random.default_rng(10)
    noise = np.exp(0.05 * rng.standard_normal(12))
    narrow = np.geomspace(500, 700, 12)
    result = fit(PowerLawSum(offset="shared"), narrow, (2 + 900 / narrow) * noise)
    assert said(result, "less than half a decade")
    assert said(result, "wider than the value")
    two = np.repeat([64.0, 512.0], 6)
    result = fit(PowerLawSum(offset="shared"), two, (2 + 30 / two) * noise)
    assert said(result, "m takes 2 values, fewer than the 3 parameters")
    assert said(result, "not identified")
    assert np.isnan(result.stderr["alpha_m"])
    few = np.array([10, 25, 63.0])
    result = fit(PowerLawSum(offset="shared"), few, 2 + 30 / few)
    assert said(result, "exact and has no standard errors")
    assert np.isnan(result.stderr["alpha_m"])
    six = np.array([10, 15, 25, 39, 63, 100.0])
    assert said(fit(PowerLawSum(offset="shared"), six, (2 + 30 / six) * noise[:6]), "Only 3 more points")
    pure = np.geomspace(8, 512, 12)
    assert said(fit(PowerLawSum(offset="shared"), pure, 30 / pure**0.5 - 0.5), "E is at its bound, zero")
    step = np.where(pure > 60, 1e-40, 1.0)
    assert said(fit(PowerLawSum(), pure, step), "ran to its bound")
    assert said(fit(PowerLawSum(), pure, noise), "cannot be told from zero")
    assert said(fit(PowerLawSum(), pure, 1 / pure - 0.01, loss="linear"), "negative")
    group = np.array(["a"] * 11 + ["b"])
    assert said(fit(PowerLawSum(offset="group"), pure, (2 + 30 / pure) * noise, group=group), "One point only in b")


def test_an_offset_that_is_not_there_comes_out_zero_with_an_error() -> None:
    m = np.geomspace(8, 512, 12)
    result = fit(PowerLawSum(offset="shared"), m, 30 / m**0.5 - 0.5)
    assert result.params["E"] == 0
    assert result.stderr["E"] > 0
    assert result.ci95["E"][0] == 0
