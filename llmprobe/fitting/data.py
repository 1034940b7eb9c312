"""Columns as a fit takes them: arrays of one length, checked, or the error that says what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.errors import FitError
from llmprobe.fitting.law import PowerLawSum, as_columns, numbers
from llmprobe.fitting.objective import Loss


@dataclass(frozen=True, eq=False)
class Data:
    """Checked columns: x by name, y, labels of groups, standard errors, labels of clusters (or None); shape [n]."""

    x: dict[str, np.ndarray]
    y: np.ndarray
    group: np.ndarray | None
    sigma: np.ndarray | None
    cluster: np.ndarray | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups, sorted."""
        return () if self.group is None else tuple(np.unique(self.group).tolist())

    def take(self, keep: np.ndarray) -> Data:
        """The rows where `keep` (bool [n], or indices) holds."""
        return Data(
            {name: column[keep] for name, column in self.x.items()},
            self.y[keep],
            None if self.group is None else self.group[keep],
            None if self.sigma is None else self.sigma[keep],
            None if self.cluster is None else self.cluster[keep],
        )


def check_data(
    law: PowerLawSum,
    x: Mapping[str, ArrayLike] | ArrayLike,
    y: ArrayLike,
    group: ArrayLike | None,
    sigma: ArrayLike | None,
    loss: Loss,
    cluster: ArrayLike | None = None,
) -> Data:
    """Columns as arrays, or the `FitError` that says what is wrong with them."""
    columns, values = as_columns(law, x), numbers("y", y)
    n = len(values)
    labels = None if group is None else _labels(group)
    together = None if cluster is None else _labels(cluster, "cluster")
    spread = None if sigma is None else numbers("sigma", sigma)
    for name, column in {**columns, "group": labels, "sigma": spread, "cluster": together}.items():
        if column is not None and column.shape != (n,):
            raise FitError(f"{name} has shape {column.shape} and y has {n} rows", expected="one row per point")
    if n == 0:
        raise FitError("no points", expected="at least as many as parameters", fix="look at the filter")
    bad = ~np.isfinite(values) | ((values <= 0) & (loss != "linear"))
    if bad.any():
        row = int(np.argmax(bad))
        raise FitError(
            f"y = {values[row]:g} in row {row} ({int(bad.sum())} such rows)",
            expected="finite numbers" if loss == "linear" else f"positive numbers, as the {loss} loss takes log y",
            fix="leave these rows out" + ("" if loss == "linear" else " or take the linear loss"),
        )
    if spread is not None and not (np.isfinite(spread) & (spread > 0)).all():
        raise FitError("a standard error that is zero, negative or missing", expected="sigma > 0 in every row")
    if law.grouped and labels is None:
        raise FitError("no groups", expected=f"the group of each point, for {law.formula}")
    for name, column in columns.items():
        if np.ptp(np.log(column)) <= 1e-12 * max(1.0, abs(float(np.log(column[0])))):
            raise FitError(
                f"{name} is {column[0]:g} in all {n} rows",
                expected="at least two different values",
                fix=f"a law in {name} cannot be told from a constant: leave {name} out or measure at another",
            )
    if together is not None and (count := len(np.unique(together))) < 3:
        raise FitError(f"{count} clusters", expected="at least three, as only whole clusters are independent")
    return Data(columns, values, labels, spread, together)


def _labels(group: ArrayLike, what: str = "group") -> np.ndarray:
    given = np.asarray(group)
    # NaN is the one value that differs from itself
    missing = np.array([g is None or g != g for g in given.tolist()], dtype=bool)
    if missing.any():
        row = int(np.argmax(missing))
        raise FitError(f"no {what} in row {row} ({int(missing.sum())} such rows)", expected=f"the {what} of each point")
    return given.astype(str)
