"""Points that scatter together: the variance of the fit when only whole clusters are independent.

One model measured on four corpora gives four points and hardly more than one independent residual. The score is
summed over each cluster, with the cluster's residuals divided by the square root of what the fit has left of their
variance ("CR2": Bell and McCaffrey 2002; MacKinnon, Nielsen and Webb 2023, section 4), so that variances are
unbiased where scatter is even. Few clusters carry a parameter, so its interval takes Student's t with as many degrees
of freedom as a chi-squared of the same mean and variance has (Satterthwaite 1946; Pustejovsky and Tipton 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

USED_UP = 1e-6
"""Share of a residual's variance below which the fit has taken all of it: such a direction tells nothing."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of a design and what its fit leaves of their residuals.

    Attributes
    ----------
    U
        Orthonormal columns that span the design, shape [n, k].
    members
        Rows of each cluster.
    adjust
        (1 − H)^(−1/2) over the rows of each cluster, H = U Uᵀ.
    blind
        Directions in each cluster's rows that the fit follows exactly, orthonormal columns: no residual tells of them.
    """

    U: np.ndarray
    members: tuple[np.ndarray, ...]
    adjust: tuple[np.ndarray, ...]
    blind: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, U: np.ndarray, labels: np.ndarray) -> Clusters:
        """From one label per row."""
        place = np.unique(labels, return_inverse=True)[1]  # [n]: the cluster g of each row
        members = tuple(np.flatnonzero(place == g) for g in range(int(place.max()) + 1))  # [n_g] each
        roots = [_inverse_root(np.eye(len(rows)) - U[rows] @ U[rows].T) for rows in members]
        return cls(U, members, *zip(*roots, strict=True))

    def scores(self, X: np.ndarray, residuals: np.ndarray) -> np.ndarray:
        """Score of each cluster, shape [clusters, p], of a design [n, p] and residuals [n]."""
        return np.array([X[rows].T @ (A @ residuals[rows]) for rows, A in zip(self.members, self.adjust, strict=True)])

    def freedom(self, influence: np.ndarray) -> np.ndarray:
        """Degrees of freedom of the variance of linear estimates, shape [q]; 0 where a cluster alone decides of one.

        Parameters
        ----------
        influence
            Weight of each residual in each estimate, shape [n, q].
        """
        adjusted = [A @ influence[rows] for rows, A in zip(self.members, self.adjust, strict=True)]  # [n_g, q] each
        own = np.array([(a**2).sum(0) for a in adjusted])  # [g, q]: g clusters
        seen = np.array([a.T @ self.U[rows] for rows, a in zip(self.members, adjusted, strict=True)])  # [g, q, k]
        unseen = sum(((B.T @ influence[rows]) ** 2).sum(0) for rows, B in zip(self.members, self.blind, strict=True))
        found = np.zeros(influence.shape[1])
        for j in np.flatnonzero(unseen <= USED_UP * (influence**2).sum(0)):
            spread = np.diag(own[:, j]) - seen[:, j] @ seen[:, j].T  # [g, g]
            size = float((spread**2).sum())
            found[j] = np.trace(spread) ** 2 / size if size > 0 else 0.0
        return found


def _inverse_root(left: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse square root of a symmetric matrix where it has one, and the directions where it has none."""
    values, axes = np.linalg.eigh(left)  # [n_g], [n_g, n_g]
    kept = values > USED_UP
    return (axes[:, kept] * values[kept] ** -0.5) @ axes[:, kept].T, axes[:, ~kept]
