"""What a fit returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.fitting.covariance import Covariance
from llmprobe.fitting.data import Data
from llmprobe.fitting.law import PowerLawSum
from llmprobe.fitting.objective import Loss, Problem
from llmprobe.fitting.solver import Solution

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class FitResult:
    """A fitted law; `fit` makes it.

    Attributes
    ----------
    law
        The law that was fitted.
    loss
        The loss that was minimized: ``log``, ``linear`` or ``huber``.
    n_points
        Points fitted.
    params
        Value of each parameter by name: ``A_m``, ``alpha_m``, ``E``, ``E[group]``.
    stderr
        Standard error of each; 0 for a parameter that was held, NaN for one that the data do not identify.
    ci95
        95 % interval of each, by Student's t; an amplitude's is taken of its logarithm.
    r2
        Share explained of the variance of log y (of y, for the linear loss), weighted as the fit was.
    rmse
        Root mean square of y − ŷ, in the unit of y.
    objective
        The summed loss at the optimum; log residuals have no unit, linear ones that of y².
    converged
        Whether the optimum was reached.
    warnings
        What the data do not support, in sentences.
    data
        The columns fitted, checked.
    problem
        The law and the data as one objective; see `llmprobe.fitting.objective`.
    solution
        Its optimum, in the problem's own scaled parameters.
    covariance
        The covariance of those, and how it was estimated; see `llmprobe.fitting.covariance`.

    Examples
    --------
    >>> import numpy as np
    >>> from llmprobe import PowerLawSum, fit
    >>> m = np.array([64.0, 128, 256, 512])
    >>> result = fit(PowerLawSum(), m, 5 / m * np.array([1.01, 0.99, 0.99, 1.01]))
    >>> low, high = result.ci95["alpha_m"]
    >>> low < 1 < high
    True
    >>> result.predict([1024.0]).round(4)
    array([0.0049])
    """

    law: PowerLawSum
    loss: Loss
    n_points: int
    params: dict[str, float]
    stderr: dict[str, float]
    ci95: dict[str, tuple[float, float]]
    r2: float
    rmse: float
    objective: float
    converged: bool
    warnings: tuple[str, ...]
    data: Data = field(repr=False)
    problem: Problem = field(repr=False)
    solution: Solution = field(repr=False)
    covariance: Covariance = field(repr=False)

    def predict(self, x: Mapping[str, ArrayLike] | ArrayLike, group: ArrayLike | None = None) -> np.ndarray:
        """y of the fitted law at new x, shape [n]; see `PowerLawSum.predict`."""
        return self.law.predict(self.params, x, group)

    @property
    def fitted(self) -> np.ndarray:
        """y of the fitted law at the points fitted, shape [n]."""
        return self.problem.predict(self.solution.theta) * self.problem.y_unit

    @property
    def residuals(self) -> np.ndarray:
        """y − ŷ, or log y − log ŷ for the log and Huber losses, shape [n]."""
        scale = self.problem.y_unit if self.loss == "linear" else 1.0
        return -self.problem.residuals(self.solution.theta) * scale

    def plot(self, y: str = "y") -> Figure:
        """The points, the law and the residuals, as a matplotlib figure; `y` names the axis."""
        from llmprobe.fitting.figure import draw

        return draw(self, y=y)

    def _repr_html_(self) -> str:
        """A table for a notebook."""
        rows = "".join(
            f"<tr><td>{escape(name)}</td><td>{value:.5g}</td><td>{self.stderr[name]:.2g}</td>"
            f"<td>{self.ci95[name][0]:.5g} to {self.ci95[name][1]:.5g}</td></tr>"
            for name, value in self.params.items()
        )
        notes = "".join(f"<li>{escape(text)}</li>" for text in self.warnings)
        return (
            f"<p>{escape(self.law.formula)}: {self.n_points} points, R² = {self.r2:.5f}</p><table><thead><tr>"
            f"<th>parameter</th><th>value</th><th>±</th><th>95 %</th></tr></thead><tbody>{rows}</tbody></table>"
            + (f"<ul>{notes}</ul>" if notes else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """What ``llmprobe fit --json`` prints."""
        return {
            "law": self.law.formula,
            "n_points": self.n_points,
            "params": self.params,
            "stderr": self.stderr,
            "ci95": {name: list(pair) for name, pair in self.ci95.items()},
            "r2": self.r2,
            "rmse": self.rmse,
            "objective": self.objective,
            "converged": self.converged,
            "warnings": list(self.warnings),
        }
