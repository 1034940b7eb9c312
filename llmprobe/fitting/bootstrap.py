"""Bootstrap of a fit: every resample refitted to its own optimum, thousands in a second.

Points are drawn with replacement (within their groups where a parameter belongs to a group, so that no group goes
missing), or whole groups, or whole clusters where points scatter together, or new y's from the fitted law and its
scatter. Intervals are percentiles, widened about
the estimate for the degrees of freedom that resampling ignores (Hesterberg 2015, The American Statistician 69, 371).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtri, stdtrit

from llmprobe.errors import FitError
from llmprobe.fitting.newton import refit
from llmprobe.fitting.objective import Problem
from llmprobe.fitting.result import FitResult
from llmprobe.fitting.solver import Solution
from llmprobe.settings import Natural, check

Kind = Literal["points", "groups", "clusters", "parametric"]
VANISHED = -18.0
"""Log of the scaled amplitude below which a term counts as zero."""
FAINT = -5.0
"""Log of the scaled amplitude from which a term that was zero may grow again."""


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Refits of resamples.

    Attributes
    ----------
    kind, seed
        How resamples were drawn.
    estimate
        The fit's own parameters, by name.
    samples
        Of each parameter, shape [B], by name; NaN where a resample lacks the parameter's group.
    objective
        Summed loss of each resample at its optimum, shape [B], in the fit's unit of it.
    converged
        Share of resamples that reached their optimum; the others count as well.
    widening
        Factor by which the percentiles stand further from the estimate.
    """

    kind: Kind
    seed: int
    estimate: dict[str, float]
    samples: dict[str, np.ndarray]
    objective: np.ndarray
    converged: float
    widening: float

    @property
    def n(self) -> int:
        """Number of resamples."""
        return len(next(iter(self.samples.values())))

    @property
    def stderr(self) -> dict[str, float]:
        """Standard deviation over resamples."""
        return {name: float(np.nanstd(values, ddof=1)) for name, values in self.samples.items()}

    @property
    def ci95(self) -> dict[str, tuple[float, float]]:
        """95 % interval of each parameter."""
        return {name: self.interval(name) for name in self.samples}

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Interval of one parameter; an amplitude's is widened in its logarithm, an offset's ends at zero."""
        values, centre = self.samples[name], self.estimate[name]
        logarithm = name.startswith("A_") and centre > 0 and bool((values > 0).all())
        low, high = widened(values, centre, level, self.widening, logarithm)
        return (max(0.0, low), high) if name.startswith("E") else (low, high)

    def to_dict(self) -> dict[str, Any]:
        """What ``llmprobe fit --bootstrap N --json`` adds under ``bootstrap``."""
        return {
            "kind": self.kind,
            "n": self.n,
            "seed": self.seed,
            "stderr": self.stderr,
            "ci95": {name: list(pair) for name, pair in self.ci95.items()},
            "converged": self.converged,
        }


def bootstrap(
    result: FitResult, n: int = 4000, *, kind: Kind | None = None, cluster: ArrayLike | None = None, seed: int = 0
) -> Bootstrap:
    """Refit n resamples.

    Parameters
    ----------
    result
        A fit.
    n
        Number of resamples, at least 2.
    kind
        ``points``; ``groups`` draws whole groups; ``clusters`` draws whole clusters, among those whose points belong
        to the same groups, so that none goes missing; ``parametric`` keeps x and draws y from the fitted law with
        normal scatter (with the observed residuals, for Huber's loss). Left out: clusters where there are any.
    cluster
        Cluster of each point, shape [points]; that of the fit when left out.
    seed
        Of numpy's default generator.

    Returns
    -------
    The refits, with the standard error and the 95 % interval of each parameter.

    Raises
    ------
    FitError
        n < 2, no more points than parameters, fewer than three groups or clusters, or independent points asked for
        where they come in clusters.

    Notes
    -----
    Intervals are percentiles, widened for the degrees of freedom that resampling ignores: Hesterberg 2015, The American
    Statistician 69, 371.

    Examples
    --------
    >>> import numpy as np
    >>> from llmprobe import PowerLawSum, fit
    >>> m = np.geomspace(64, 2048, 12)
    >>> loss = 5 / m * np.exp(0.02 * np.random.default_rng(0).normal(size=12))
    >>> refits = bootstrap(fit(PowerLawSum(), m, loss), 200, seed=0)
    >>> low, high = refits.interval("alpha_m")
    >>> low < 1 < high
    True
    """
    check("seed", seed, Natural)
    problem, dof = result.problem, result.covariance.dof
    if n < 2:
        raise FitError(f"{n} resamples", expected="at least 2, and a thousand or more for an interval")
    if dof < 1:
        raise FitError(
            f"{result.n_points} points and as many parameters",
            expected="more points",
            fix="an exact fit has no scatter",
        )
    cluster = result.data.cluster if cluster is None else cluster
    kind = kind or ("points" if cluster is None else "clusters")
    if cluster is not None and kind != "clusters":
        raise FitError(
            f"a bootstrap of {kind} that come in clusters", expected="whole clusters drawn", fix="leave kind out"
        )
    rng = np.random.default_rng(seed)
    weights = y = None
    size, spare = len(problem.y), dof
    if kind == "parametric":
        y = _drawn(result, n, rng, _places(result))
        size = dof
    else:
        if kind == "points":
            members, strata = _points(result)
        else:
            members, strata = _whole(result, kind, cluster)
            size = len(strata)
            spare = size - len(np.unique(strata))
        weights = problem.weights * _stratified_counts(rng, n, strata)[:, members]
    start = np.repeat(reactivate_zeros(problem, result.solution)[None], n, axis=0)
    found = refit(problem, start, np.isnan(problem.start), weights=weights, y=y)
    values = problem.to_params(found.theta)
    values[problem.is_amplitude & (found.theta < VANISHED)] = 0.0
    if weights is not None and kind != "points":
        touched = (problem.D != 0).any(0)
        values[(weights @ touched) == 0] = np.nan
    return Bootstrap(
        kind=kind,
        seed=seed,
        estimate=result.params,
        samples=dict(zip(problem.names, values.T, strict=True)),
        objective=found.value * (problem.y_unit**2 if problem.loss == "linear" else 1.0),
        converged=float(found.converged.mean()),
        widening=float(np.sqrt(size / spare) * stdtrit(spare, 0.975) / ndtri(0.975)),
    )


def reactivate_zeros(problem: Problem, solution: Solution) -> np.ndarray:
    """θ of a solution with terms that were zero made faint instead, so that they may grow in a refit; shape [p]."""
    free = np.isnan(problem.start)
    return np.where(free & problem.is_amplitude, np.maximum(solution.theta, FAINT), solution.theta)


def _counts(rng: np.random.Generator, n: int, size: int) -> np.ndarray:
    """How often each of `size` items is drawn in each of n resamples, shape [n, size]."""
    drawn = rng.integers(0, size, size=(n, size)) + size * np.arange(n)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * size).reshape(n, size).astype(float)


def _stratified_counts(rng: np.random.Generator, n: int, strata: np.ndarray) -> np.ndarray:
    """How often each item is drawn, as many of each stratum as there are, shape [n, items]."""
    counts = np.zeros((n, len(strata)))
    for stratum in np.unique(strata):
        inside = np.flatnonzero(strata == stratum)
        counts[:, inside] = _counts(rng, n, len(inside))
    return counts


def _places(result: FitResult) -> np.ndarray:
    """Rows sorted by their content, so that a seed draws the same resamples whatever order they came in."""
    return np.lexsort((result.data.y, *result.data.x.values()))


def _points(result: FitResult) -> tuple[np.ndarray, np.ndarray]:
    """Each point an item of its own (see `_places`), strata the groups of the law; both of shape [n]."""
    place = _places(result)
    strata = np.zeros(len(place), dtype=int)
    if result.law.grouped and result.data.group is not None:
        strata = np.unique(result.data.group, return_inverse=True)[1]
    return np.argsort(place), strata[place]


def _whole(result: FitResult, kind: Kind, cluster: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Item of each point, shape [n], and stratum of each item: groups or clusters drawn whole."""
    labels = result.data.group if kind == "groups" else cluster
    labels = None if labels is None else np.asarray(labels).astype(str)
    if labels is None or labels.shape != (result.n_points,):
        raise FitError(f"no {kind[:-1]} of each point", fix=f"give the fit {kind}, one for each point")
    members = np.unique(labels, return_inverse=True)[1]
    size = int(members.max()) + 1
    if size < 3:
        raise FitError(f"{size} {kind}", expected="at least three to draw from")
    if kind == "groups" or not result.law.grouped or result.data.group is None:
        return members, np.zeros(size, dtype=int)
    groups = np.unique(result.data.group, return_inverse=True)[1]
    # clusters that share a group, directly or through others, may stand in for each other
    ends = np.array([members, size + groups], dtype=np.int32)  # of wider integers, scipy 1.11 joins nothing
    links = coo_array((np.ones(len(groups)), tuple(ends)), shape=2 * (size + int(groups.max()) + 1,))
    return members, connected_components(links, directed=False)[1][:size]


def _drawn(result: FitResult, n: int, rng: np.random.Generator, place: np.ndarray) -> np.ndarray:
    """Scaled y of n parametric resamples, shape [n, points]."""
    problem, cov = result.problem, result.covariance
    fitted = problem.predict(result.solution.theta)
    size = len(fitted)
    if problem.loss == "huber":
        standard = problem.residuals(result.solution.theta) * np.sqrt(problem.weights)
        pool = np.sort(standard - np.median(standard))
        drawn = rng.choice(pool, size=(n, size)) * np.sqrt(size / cov.dof)
    else:
        drawn = rng.standard_normal((n, size)) * np.sqrt(cov.scale)
    noise = np.empty_like(drawn)
    noise[:, place] = drawn
    noise /= np.sqrt(problem.weights)
    return fitted + noise if problem.loss == "linear" else fitted * np.exp(noise)


def widened(values: np.ndarray, centre: float, level: float, widening: float, logarithm: bool) -> tuple[float, float]:
    """Percentiles of resamples, moved away from the centre by a factor; in the logarithm where asked."""
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    if logarithm:
        low, high = (centre * np.exp(widening * np.log(q / centre)) for q in (low, high))
    else:
        low, high = (centre + widening * (q - centre) for q in (low, high))
    return float(low), float(high)
