"""Errors of points that come in clusters: closed forms, a dense oracle, coverage, and the published losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import block_diag, fractional_matrix_power
from scipy.special import stdtrit

import llmprobe.report.published as published
from llmprobe.cli import main
from llmprobe.errors import FitError
from llmprobe.fitting import FitResult, PowerLawSum, bootstrap, fit, profile
from llmprobe.fitting.data import check_data
from llmprobe.fitting.estimator import fit_data
from llmprobe.fitting.validation import leave_one_out
from llmprobe.frames import labels, numbers, read_frame

TABLE = Path(published.__file__).with_name("fig8b_losses.tsv")
LAW = PowerLawSum(offset="group")


@pytest.fixture(scope="module")
def paper() -> FitResult:
    frame = read_frame(TABLE)
    group, model = labels(frame, ["family", "corpus"]), labels(frame, ["model"])
    return fit(LAW, numbers(frame, "m"), numbers(frame, "L"), group=group, cluster=model, loss="linear")


def clustered_line(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(9), [2, 3, 5, 4, 1, 6, 2, 3, 4])
    m = np.exp(rng.uniform(2, 7, len(cluster)))
    y = 30 / m * np.exp(0.2 * rng.standard_normal(9)[cluster] + 0.05 * rng.standard_normal(len(m)))
    return m, y, cluster


def test_the_mean_of_even_clusters_has_its_textbook_error() -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(7), 4)
    logs = rng.standard_normal(7)[cluster] + 0.1 * rng.standard_normal(28)
    result = fit(PowerLawSum(fixed={"alpha_m": 0.0}), np.geomspace(1, 9, 28), np.exp(logs), cluster=cluster)
    means = logs.reshape(7, 4).mean(1)
    error = means.std(ddof=1) / np.sqrt(7)
    assert result.stderr["A_m"] / result.params["A_m"] == pytest.approx(error, rel=1e-6)
    assert np.log(result.ci95["A_m"]) == pytest.approx(means.mean() + stdtrit(6, [0.025, 0.975]) * error, rel=1e-6)


def test_a_line_agrees_with_dense_matrices_of_the_textbook() -> None:
    m, y, cluster = clustered_line()
    result = fit(PowerLawSum(), m, y, cluster=cluster)
    X = np.column_stack([np.ones(len(m)), -np.log(m)])
    bread = np.linalg.inv(X.T @ X)
    left = np.eye(len(m)) - X @ bread @ X.T
    beta = bread @ X.T @ np.log(y)
    residual = np.log(y) - X @ beta
    A = block_diag(*[fractional_matrix_power(left[np.ix_(cluster == g, cluster == g)], -0.5) for g in range(9)])
    scores = np.array([(X.T @ A)[:, cluster == g] @ residual[cluster == g] for g in range(9)])
    V = bread @ scores.T @ scores @ bread
    assert result.stderr["alpha_m"] == pytest.approx(np.sqrt(V[1, 1]), rel=1e-6)
    # Satterthwaite: the variance is a quadratic form of the noise; its eigenvalues decide the degrees of freedom
    weight = np.array([left[:, cluster == g] @ (A @ X @ bread[:, 1])[cluster == g] for g in range(9)])
    values = np.linalg.eigvalsh(weight @ weight.T)
    freedom = values.sum() ** 2 / (values**2).sum()
    assert result.covariance.freedom[1] == pytest.approx(freedom, rel=1e-6)
    half = stdtrit(freedom, 0.975) * np.sqrt(V[1, 1])
    assert result.ci95["alpha_m"] == pytest.approx((beta[1] - half, beta[1] + half), rel=1e-6)


def test_clusters_move_errors_and_nothing_else() -> None:
    m, y, cluster = clustered_line()
    alone, together = fit(PowerLawSum(), m, y), fit(PowerLawSum(), m, y, cluster=cluster)
    assert together.params == alone.params
    relabeled = fit(PowerLawSum(), m, y, cluster=[f"model {9 - c}" for c in cluster])
    assert relabeled.stderr == pytest.approx(together.stderr)


def test_profile_of_a_clustered_line_is_its_student_interval() -> None:
    m, y, cluster = clustered_line()
    result = fit(PowerLawSum(), m, y, cluster=cluster)
    assert profile(result, "alpha_m").interval == pytest.approx(result.ci95["alpha_m"], rel=1e-6)


def test_the_published_fit_and_its_clustered_error(paper: FitResult) -> None:
    frame = read_frame(TABLE)
    group, printed, reading = labels(frame, ["family", "corpus"]), numbers(frame, "B_printed"), numbers(frame, "L_err")
    assert len(set(group)) == 16
    for g in set(group):
        error = reading[group == g].mean()  # of the offset, were all of its group's losses misread alike
        assert paper.params[f"E[{g}]"] == pytest.approx(printed[group == g][0], abs=min(error, 2e-4))
    assert paper.params["alpha_m"] == pytest.approx(0.9098, abs=2e-4)
    assert paper.params["A_m"] == pytest.approx(476.08, rel=1e-3)
    assert paper.stderr["alpha_m"] > 2.5 * 0.04  # the printed error
    low, high = paper.ci95["alpha_m"]
    assert low < 0.75 < 1 < high


def test_intervals_of_27_models_on_four_corpora_cover(paper: FitResult) -> None:
    rng = np.random.default_rng(0)
    truth, fitted, data = paper.params, paper.fitted, paper.data
    model = np.unique(data.cluster, return_inverse=True)[1]
    hits: dict[str, list[bool]] = {name: [] for name in (*truth, "independent")}
    for i in range(200):
        y = fitted + 0.06 * rng.standard_normal(27)[model] + 0.03 * rng.standard_normal(108)
        checked = check_data(LAW, data.x["m"], y, data.group, None, "linear", data.cluster)
        result = fit_data(LAW, checked, loss="linear", delta=1.0, near=paper.solution.theta)
        intervals = dict(result.ci95)
        if i < 60:
            checked = check_data(LAW, data.x["m"], y, data.group, None, "linear")
            apart = fit_data(LAW, checked, loss="linear", delta=1.0, near=paper.solution.theta)
            intervals["independent"] = apart.ci95["alpha_m"]
        for name, (low, high) in intervals.items():
            hits[name].append(low <= truth.get(name, truth["alpha_m"]) <= high)
    found = {name: float(np.mean(values)) for name, values in hits.items()}
    assert found.pop("independent") < 0.88
    assert {name: share for name, share in found.items() if not 0.92 <= share <= 0.98} == {}


def test_resamples_draw_whole_models_within_their_families(paper: FitResult) -> None:
    drawn = bootstrap(paper, 200)
    assert drawn.kind == "clusters"
    assert drawn.converged == 1
    assert all(np.isfinite(values).all() for values in drawn.samples.values())
    assert drawn.stderr["alpha_m"] > 1.3 * bootstrap(_without_clusters(paper), 200).stderr["alpha_m"]
    assert drawn.objective.mean() < paper.objective * 1.05
    with pytest.raises(FitError, match="whole clusters"):
        bootstrap(paper, 10, kind="points")


def _without_clusters(result: FitResult) -> FitResult:
    data = result.data
    return fit(result.law, data.x, data.y, group=data.group, loss=result.loss)


def test_whole_models_are_left_out(paper: FitResult) -> None:
    found = leave_one_out(paper)
    row = int(np.flatnonzero(paper.data.cluster == "pythia-70m")[0])
    keep = paper.data.cluster != "pythia-70m"
    data = paper.data
    rest = fit(LAW, data.x["m"][keep], data.y[keep], group=data.group[keep], loss="linear")  # type: ignore[index]
    expected = rest.predict(data.x["m"][[row]], data.group[[row]])  # type: ignore[index]
    assert found.predicted[found.rows == row] == pytest.approx(expected, rel=1e-5)
    assert found.rms > leave_one_out(_without_clusters(paper)).rms


def test_what_clusters_do_not_tell_is_said() -> None:
    m, y, cluster = clustered_line()
    group = np.where(cluster == 5, "alone", "rest")
    result = fit(PowerLawSum(amplitudes="group"), m, y, group=group, cluster=cluster)
    assert np.isnan(result.stderr["A_m[alone]"])
    assert "One cluster alone decides A_m[alone]" in " ".join(result.warnings)
    few = fit(PowerLawSum(), m, y, cluster=np.minimum(cluster, 2))
    assert "few clusters" in " ".join(few.warnings)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster": [0] * 15 + [1] * 15}, "2 clusters"),
        ({"cluster": [None, *range(29)]}, "no cluster in row 0"),
        ({"cluster": range(5)}, "cluster has shape"),
        ({"cluster": range(30), "errors": "jacobian"}, "jacobian errors with clusters"),
        ({"errors": "clustered"}, "clustered errors without clusters"),
    ],
)
def test_clusters_that_make_no_sense_are_refused(options: dict[str, object], words: str) -> None:
    m, y, _ = clustered_line()
    with pytest.raises(FitError, match=words):
        fit(PowerLawSum(), m, y, **options)  # type: ignore[arg-type]


def test_the_command_clusters(paper: FitResult, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["fit", str(TABLE), "--y", "L", "--loss", "linear", "--offset", "group", "--group", "family", "corpus"]
    main([*line, "--cluster", "model", "--bootstrap", "100", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["stderr"]["alpha_m"] == pytest.approx(paper.stderr["alpha_m"])
    assert found["ci95"]["alpha_m"] == pytest.approx(paper.ci95["alpha_m"])
    assert found["bootstrap"]["kind"] == "clusters"
    main([*line, "--cluster", "model"])
    assert "errors of 27 clusters" in capsys.readouterr().out
