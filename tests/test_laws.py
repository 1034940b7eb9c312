"""The law itself: names, prediction, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from llmprobe.errors import FitError
from llmprobe.fitting.law import PowerLawSum


def test_names_follow_x_and_group() -> None:
    law = PowerLawSum(("N", "D"), offset="group", exponents="group", amplitudes="shared")
    assert law.names(("a", "b")) == (
        "A_N",
        "A_D",
        "alpha_N[a]",
        "alpha_N[b]",
        "alpha_D[a]",
        "alpha_D[b]",
        "E[a]",
        "E[b]",
    )
    assert PowerLawSum().names() == ("A_m", "alpha_m")


def test_predict_is_the_formula() -> None:
    law = PowerLawSum(("N", "D"), offset="group")
    N, D = np.array([1e6, 1e7]), np.array([1e8, 2e8])
    params = {"A_N": 400.0, "A_D": 410.0, "alpha_N": 0.34, "alpha_D": 0.28, "E[a]": 1.69, "E[b]": 2.0}
    expected = np.array([1.69, 2.0]) + 400 / N**0.34 + 410 / D**0.28
    np.testing.assert_allclose(law.predict(params, {"D": D, "N": N}, ["a", "b"]), expected, rtol=1e-14)


def test_one_x_takes_a_bare_column() -> None:
    assert PowerLawSum(("m",)).predict({"A_m": 2.0, "alpha_m": 1.0}, [4.0]).tolist() == [0.5]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"x": ()}, "one or more"),
        ({"x": ("m", "m")}, "different names"),
        ({"offset": "some"}, "none, shared, group"),
        ({"fixed": {"A_m": -1.0}}, "≥ 0"),
        ({"fixed": {"alpha_m": float("nan")}}, "finite"),
    ],
)
def test_a_law_that_makes_no_sense_is_refused(arguments: dict, said: str) -> None:
    # the run-time type check of the tests would speak first
    build = getattr(PowerLawSum, "__wrapped__", PowerLawSum)
    with pytest.raises(Exception, match=said if "some" not in str(arguments) else "offset|none, shared"):
        build(**arguments)


def test_predict_names_what_is_missing() -> None:
    law = PowerLawSum(("m",), offset="group")
    params = {"A_m": 2.0, "alpha_m": 1.0, "E[a]": 1.0}
    with pytest.raises(FitError, match=r"E\[b\]"):
        law.predict(params, [1.0, 2.0], ["a", "b"])
    with pytest.raises(FitError, match="no groups"):
        law.predict(params, [1.0, 2.0])
    with pytest.raises(FitError, match="also m"):
        law.predict(params, {"n": [1.0]}, ["a"])
