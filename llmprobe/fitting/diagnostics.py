"""What the data of a fit do not support, said in plain sentences."""

from __future__ import annotations

import numpy as np
from scipy.special import chdtrc

from llmprobe.fitting.result import FitResult

HALF_DECADE = 0.5
FEW_DOF = 4
FEW_CLUSTERS = 4.0
"""Degrees of freedom of a clustered error below which its interval is called shaky."""
MANY = 15
"""Points from which uneven scatter is looked for."""
RARE = 3e-3
"""Chance of calling even scatter uneven."""


def warnings_of(result: FitResult) -> tuple[str, ...]:
    """All warnings of a fit."""
    return (
        *_optimum(result),
        *_data(result),
        *_identification(result),
        *_groups(result),
        *_clusters(result),
        *_scatter(result),
    )


def _optimum(result: FitResult) -> list[str]:
    names, solution = result.problem.names, result.solution
    found = [] if result.converged else ["The optimum was not reached: the loss still falls."]
    for j in solution.zero:
        name = names[j]
        what = "offset" if name.startswith("E") else "term"
        found.append(f"{name} is at its bound, zero: the data show no such {what}; intervals there are one-sided.")
    found += [f"{names[j]} ran to its bound {result.params[names[j]]:g}: no power law." for j in solution.bounded]
    return found


def _data(result: FitResult) -> list[str]:
    law, data, dof = result.law, result.data, result.covariance.dof
    found = []
    for name, column in data.x.items():
        decades = float(np.ptp(np.log10(column)))
        distinct = len(np.unique(column))
        if f"alpha_{name}" in law.fixed:
            continue
        if decades < HALF_DECADE:
            found.append(f"{name} spans {decades:.2f} decades: less than half a decade hardly tells a power law.")
        needed = 2 + (law.offset != "none")
        if distinct < needed:
            found.append(f"{name} takes {distinct} values, fewer than the {needed} parameters of its curve.")
        elif distinct == needed:
            found.append(f"{name} takes only {distinct} values, as many as its curve has parameters: no check of it.")
    if dof == 0:
        found.append("As many parameters as points: the fit is exact and has no standard errors.")
    elif dof < FEW_DOF:
        found.append(
            f"Only {dof} more points than parameters: intervals rest on the scatter of few points and may cover "
            "the truth less often than 95 times in 100."
        )
    if result.loss == "linear" and (data.y < 0).any():
        found.append(f"{int((data.y < 0).sum())} values of y are negative, which the law cannot reach.")
    return found


def _identification(result: FitResult) -> list[str]:
    found = []
    zero = {result.problem.names[j] for j in result.solution.zero}
    untold = _untold(result)
    for name, value in result.params.items():
        error = result.stderr[name]
        if np.isnan(error) and result.covariance.dof > 0:
            if name not in zero and name not in untold:
                found.append(f"{name} is not identified: another value fits as well.")
            continue
        low, high = result.ci95[name]
        if name.startswith("alpha_") and high - low > abs(value):
            found.append(f"The 95 % interval of {name}, {low:.3g} to {high:.3g}, is wider than the value {value:.3g}.")
        if name.startswith("alpha_") and low < 0 < high:
            found.append(f"{name} cannot be told from zero.")
        if name.startswith("E") and name not in zero and low == 0:
            found.append(f"The offset {name} cannot be told from zero.")
    return found


def _groups(result: FitResult) -> list[str]:
    if not result.law.grouped or result.data.group is None:
        return []
    labels, counts = np.unique(result.data.group, return_counts=True)
    single = [str(g) for g, count in zip(labels, counts, strict=True) if count == 1]
    if not single:
        return []
    return [
        f"One point only in {', '.join(single)}: its own parameters fit it exactly and it says nothing of the rest."
    ]


def _clusters(result: FitResult) -> list[str]:
    """Parameters whose error rests on few clusters."""
    if result.data.cluster is None:
        return []
    freedom = dict(zip(result.problem.names, result.covariance.freedom.tolist(), strict=True))
    few = [name for name, own in freedom.items() if result.stderr[name] > 0 and own < FEW_CLUSTERS]
    found = [f"One cluster alone decides {name}: it has no standard error." for name in _untold(result)]
    if not few:
        return found
    least = min(freedom[name] for name in few)
    return [
        *found,
        f"The error of {', '.join(few)} rests on few clusters ({least:.1f} degrees of freedom): its interval is wide "
        "for that and may still miss the truth more often than once in 20.",
    ]


def _untold(result: FitResult) -> list[str]:
    """Parameters that a single cluster decides."""
    if result.data.cluster is None:
        return []
    names = zip(result.problem.names, result.covariance.freedom.tolist(), strict=True)
    return [name for name, own in names if own == 0]


def _scatter(result: FitResult) -> list[str]:
    """Koenker's (1981) form of the Breusch-Pagan test: squared residuals regressed on log x."""
    n = result.n_points
    if result.covariance.errors != "jacobian" or n < MANY or result.solution.value == 0:
        return []
    logs = np.log(np.stack(list(result.data.x.values()), axis=1))
    X = np.column_stack([np.ones(n), logs - logs.mean(0)])
    square = result.problem.weights * result.residuals**2
    left = square - X @ np.linalg.lstsq(X, square, rcond=None)[0]
    statistic = n * (1 - np.sum(left**2) / np.sum((square - square.mean()) ** 2))
    if chdtrc(logs.shape[1], max(float(statistic), 0.0)) > RARE:
        return []
    return [
        "The scatter about the law changes with x: weight the points (sigma), or take sandwich errors or a bootstrap "
        "of points; the errors given are likely too small or too large."
    ]
