"""Intervals hold what they promise: coverage over simulated data, and refits that are true optima."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from llmprobe.errors import FitError
from llmprobe.fitting.bootstrap import bootstrap
from llmprobe.fitting.estimator import check_data, fit, fit_data
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.newton import refit
from llmprobe.fitting.profile import profile
from llmprobe.fitting.propagation import propagate
from llmprobe.fitting.result import FitResult
from llmprobe.fitting.solver import solve

SIX = np.array([10, 15, 25, 39, 63, 100.0])
WIDE = np.geomspace(8, 2048, 40)
FAMILY = np.repeat(["gpt2", "opt", "pythia", "qwen"], 8)
WIDTHS = np.tile(np.geomspace(512, 8192, 8), 4)
ONE_OFFSET = {"A_m": 30.0, "alpha_m": 0.9, "E": 2.0}
FOUR_OFFSETS = {"A_m": 476.0, "alpha_m": 0.91, "E[gpt2]": 2.3, "E[opt]": 2.2, "E[pythia]": 2.14, "E[qwen]": 1.6}
REPEATS = 300


@pytest.fixture(scope="session")
def chinchilla(shared_data: Path) -> FitResult:
    frame = pd.read_csv(shared_data / "chinchilla.csv").sort_values("loss").iloc[:-5]
    law = PowerLawSum(("model_size", "num_tokens"), offset="shared")
    return fit(law, {x: frame[x] for x in law.x}, frame["loss"], loss="huber")


def coverage(
    law: PowerLawSum,
    m: np.ndarray,
    truth: dict[str, float],
    scatter: np.ndarray | float,
    *,
    group: np.ndarray | None = None,
    methods: tuple[str, ...] = ("jacobian",),
    repeats: int = REPEATS,
    seed: int = 0,
) -> tuple[dict[tuple[str, str], float], float]:
    """Share of simulated data sets whose interval holds the truth, by method and parameter; share with a warning."""
    rng = np.random.default_rng(seed)
    y0 = law.predict(truth, m, group)
    near = fit(law, m, y0, group=group).solution.theta
    hits: dict[tuple[str, str], list[bool]] = defaultdict(list)
    warned = 0
    for i in range(repeats):
        y = y0 * np.exp(scatter * rng.standard_normal(len(m)))
        errors = "sandwich" if "sandwich" in methods else "jacobian"
        result = fit_data(
            law, check_data(law, m, y, group, None, "log"), loss="log", delta=1.0, errors=errors, near=near
        )
        warned += bool(result.warnings)
        for name, value in truth.items():
            low, high = result.ci95[name]
            hits[errors, name].append(low <= value <= high)
        if "profile" in methods:
            low, high = profile(result, "alpha_m").interval
            hits["profile", "alpha_m"].append(low <= truth["alpha_m"] <= high)
        for kind in {"points", "parametric"} & set(methods):
            drawn = bootstrap(result, 199, kind=kind, seed=i)
            for name in ("alpha_m", next(n for n in truth if n.startswith("E"))):
                low, high = drawn.interval(name)
                hits[kind, name].append(low <= truth[name] <= high)
    return {key: float(np.mean(value)) for key, value in hits.items()}, warned / repeats


def test_intervals_of_one_offset_cover() -> None:
    methods = ("jacobian", "profile", "points", "parametric")
    found, warned = coverage(PowerLawSum(offset="shared"), WIDE, ONE_OFFSET, 0.01, methods=methods)
    assert {kind for kind, _ in found} == set(methods)
    assert {key: c for key, c in found.items() if not 0.92 <= c <= 0.98} == {}
    assert warned < 0.02


def test_intervals_of_an_offset_per_group_cover() -> None:
    methods = ("jacobian", "profile", "points")
    law = PowerLawSum(offset="group")
    found, warned = coverage(law, WIDTHS, FOUR_OFFSETS, 0.003, group=FAMILY, methods=methods, repeats=200)
    assert len(found) == len(FOUR_OFFSETS) + 3
    assert {key: c for key, c in found.items() if not 0.92 <= c <= 0.98} == {}
    assert warned < 0.02


def test_uneven_scatter_is_noticed_and_the_sandwich_covers() -> None:
    law, m = PowerLawSum(offset="shared"), np.geomspace(8, 2048, 80)
    scatter = 0.03 * (m / 8) ** -0.5
    plain, warned = coverage(law, m, ONE_OFFSET, scatter, repeats=100)
    assert plain["jacobian", "alpha_m"] < 0.92
    assert warned > 0.95
    sandwich, warned = coverage(law, m, ONE_OFFSET, scatter, methods=("sandwich",))
    assert {key: c for key, c in sandwich.items() if not 0.92 <= c <= 0.98} == {}
    assert warned < 0.02


@pytest.mark.parametrize(
    ("m", "scatter"), [(SIX, 0.03), (SIX, 0.2), (SIX[:4], 0.03), (np.geomspace(512, 1024, 6), 0.01)]
)
def test_where_few_widths_may_not_cover_a_warning_says_so(m: np.ndarray, scatter: float) -> None:
    truth = {"A_m": 3.0, "alpha_m": 1.0, "E": 0.03}
    _, warned = coverage(PowerLawSum(offset="shared"), m, truth, scatter, repeats=30)
    assert warned == 1.0


def test_bootstrap_of_chinchilla_is_fast_and_agrees_with_the_published_errors(chinchilla: FitResult) -> None:
    begun = time.process_time()
    found = bootstrap(chinchilla, 4000)
    assert time.process_time() - begun < 10
    assert found.converged == 1
    published = {"A_model_size": 124.5, "A_num_tokens": 1293, "E": 0.0257}
    published |= {"alpha_model_size": 0.0154, "alpha_num_tokens": 0.0206}
    assert found.stderr == pytest.approx(published, rel=0.05)


def test_every_resample_ends_at_its_own_optimum(chinchilla: FitResult) -> None:
    """Against the full search of a single fit, and against Nelder-Mead on the loss as written."""
    problem, rng = chinchilla.problem, np.random.default_rng(1)
    weights = rng.multinomial(240, np.full(240, 1 / 240), size=30).astype(float)
    start = np.repeat(chinchilla.solution.theta[None], 30, axis=0)
    found = refit(problem, start, np.ones(5, bool), weights=weights)
    assert found.converged.all()
    for i in range(30):
        searched = solve(replace(problem, weights=weights[i]))
        assert found.value[i] == pytest.approx(searched.value, rel=1e-10)
    N, D = (np.log(chinchilla.data.x[name]) for name in chinchilla.law.x)

    def loss(q: np.ndarray) -> float:
        a, b, e, alpha, beta = q
        r = np.abs(np.logaddexp(np.logaddexp(a - alpha * N, b - beta * D), e) - np.log(chinchilla.data.y))
        return float(weights[0] @ np.where(r < 1e-3, 0.5 * r**2, 1e-3 * (r - 0.5e-3)))

    A, B, alpha, beta, E = problem.to_params(found.theta[0])
    here = np.array([np.log(A), np.log(B), np.log(E), alpha, beta])
    assert loss(here) == pytest.approx(found.value[0], rel=1e-12)
    again = minimize(
        loss, here + 0.01, method="Nelder-Mead", options={"maxiter": 20000, "maxfev": 20000, "fatol": 1e-15}
    )
    assert found.value[0] <= again.fun * (1 + 1e-12)


def test_bootstrap_does_not_depend_on_row_order_or_units() -> None:
    rng = np.random.default_rng(2)
    y = (2 + 30 / WIDE) * np.exp(0.01 * rng.standard_normal(40))
    order = rng.permutation(40)
    law = PowerLawSum(offset="shared")
    for kind in ("points", "parametric"):
        one = bootstrap(fit(law, WIDE, y), 100, kind=kind)
        other = bootstrap(fit(law, 1000 * WIDE[order], 7 * y[order]), 100, kind=kind)
        np.testing.assert_allclose(one.samples["alpha_m"], other.samples["alpha_m"], rtol=1e-5)
        np.testing.assert_allclose(7 * one.samples["E"], other.samples["E"], rtol=1e-5)


def test_bootstrap_of_the_mean_is_the_textbook_one() -> None:
    """A law whose exponent is held at zero is a mean of log y; its bootstrap error is known in closed form."""
    rng = np.random.default_rng(3)
    y = np.exp(rng.standard_normal(50))
    result = fit(PowerLawSum(fixed={"alpha_m": 0.0}), np.geomspace(1, 9, 50), y)
    logs = np.log(bootstrap(result, 20000).samples["A_m"])
    assert logs.mean() == pytest.approx(np.log(y).mean(), abs=0.005)
    assert logs.std() == pytest.approx(np.log(y).std() / np.sqrt(50), rel=0.02)


def test_cluster_bootstrap_sees_scatter_that_clusters_share() -> None:
    rng = np.random.default_rng(4)
    cluster = np.repeat(np.arange(12), 8)
    m = np.tile(np.geomspace(8, 512, 8), 12)
    y = 30 / m * np.exp(0.2 * rng.standard_normal(12)[cluster] + 0.02 * rng.standard_normal(96))
    result = fit(PowerLawSum(fixed={"alpha_m": 1.0}), m, y)
    points = bootstrap(result, 1000).stderr["A_m"]
    clusters = bootstrap(result, 1000, cluster=cluster).stderr["A_m"]
    means = np.log(y * m).reshape(12, 8).mean(1)
    assert clusters == pytest.approx(result.params["A_m"] * means.std() / np.sqrt(12), rel=0.1)
    assert points < 0.7 * clusters


def test_resamples_without_a_group_leave_its_offset_open() -> None:
    rng = np.random.default_rng(5)
    y = (30 / WIDTHS + 2) * np.exp(0.003 * rng.standard_normal(32))
    drawn = bootstrap(fit(PowerLawSum(offset="group"), WIDTHS, y, group=FAMILY), 200, kind="groups")
    lacking = np.isnan(drawn.samples["E[opt]"]).mean()
    assert lacking == pytest.approx(0.75**4, abs=0.1)
    assert np.isfinite(drawn.stderr["E[opt]"])


def test_profile_of_a_straight_line_is_its_student_interval() -> None:
    rng = np.random.default_rng(6)
    y = 3 / SIX * np.exp(0.05 * rng.standard_normal(6))
    result = fit(PowerLawSum(), SIX, y)
    assert profile(result, "alpha_m").interval == pytest.approx(result.ci95["alpha_m"], rel=1e-6)


def test_profile_ends_where_a_refit_reaches_the_threshold() -> None:
    rng = np.random.default_rng(7)
    m = np.geomspace(8, 256, 10)
    y = (2 + 30 / m) * np.exp(0.02 * rng.standard_normal(10))
    result = fit(PowerLawSum(offset="shared"), m, y)
    found = profile(result, "alpha_m")
    for end in found.interval:
        held = fit(PowerLawSum(offset="shared", fixed={"alpha_m": end}), m, y)
        t = 2.364624  # Student, 7 degrees of freedom, 97.5 %
        assert held.objective / result.objective == pytest.approx(1 + t**2 / 7, rel=1e-4)
    assert found.interval[1] - found.estimate > found.estimate - found.interval[0]


def test_a_profile_that_never_rises_is_open() -> None:
    rng = np.random.default_rng(8)
    m = np.array([100, 104, 108, 112, 116.0])
    result = fit(PowerLawSum(offset="shared"), m, 2 + 0.001 * rng.standard_normal(5))
    low, high = profile(result, "alpha_m").interval
    assert np.isinf([low, high]).all()
    assert profile(result, "E").interval[0] == 0


def test_what_cannot_be_profiled_or_drawn_is_refused() -> None:
    result = fit(PowerLawSum(), SIX, 3 / SIX)
    with pytest.raises(FitError, match="one of alpha_m"):
        profile(result, "A_m")
    with pytest.raises(FitError, match="at least 2"):
        bootstrap(result, 1)
    with pytest.raises(FitError, match="no group"):
        bootstrap(result, 10, kind="groups")
    exact = fit(PowerLawSum(), SIX[:2], 3 / SIX[:2])
    for refused in (lambda: bootstrap(exact, 10), lambda: profile(exact, "alpha_m")):
        with pytest.raises(FitError, match="as many parameters"):
            refused()


def test_derived_quantities_agree_with_closed_forms(chinchilla: FitResult) -> None:
    a, b = "alpha_model_size", "alpha_num_tokens"
    i, j = chinchilla.problem.names.index(a), chinchilla.problem.names.index(b)
    C = chinchilla.covariance.matrix
    alpha, beta = chinchilla.params[a], chinchilla.params[b]
    total = alpha + beta
    variance = (beta**2 * C[i, i] + alpha**2 * C[j, j] - 2 * alpha * beta * C[i, j]) / total**4
    drawn = bootstrap(chinchilla, 2000)
    optimum = propagate(chinchilla, lambda p: p[b] / (p[a] + p[b]), drawn)
    assert optimum.value == pytest.approx(beta / total, rel=1e-12)
    assert optimum.stderr == pytest.approx(np.sqrt(variance), rel=1e-5)
    ratio = drawn.samples[b] / (drawn.samples[a] + drawn.samples[b])
    assert optimum.bootstrap_stderr == pytest.approx(ratio.std(ddof=1), rel=1e-9)
    width = propagate(chinchilla, lambda p: p[a] * p["k"], drawn, {"k": (2.5, 0.03)})
    assert width.stderr == pytest.approx(np.hypot(2.5 * np.sqrt(C[i, i]), 0.03 * alpha), rel=1e-6)
    assert width.bootstrap_ci95[0] < width.value < width.bootstrap_ci95[1]
