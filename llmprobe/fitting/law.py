"""Every law of this project: a sum of power laws and an offset, ``y = E_g + Σ_k A_k x_k^(−α_k)``.

The width law has one x (m), Chinchilla's has two (parameters, tokens), the width-depth-data law three, training
dynamics one (time). A is never negative and neither is E, so y falls, or rises, in every x alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from llmprobe.errors import FitError

Offset = Literal["none", "shared", "group"]
Share = Literal["shared", "group"]


@dataclass(frozen=True)
class PowerLawSum:
    """``y = E_g + Σ_k A_k x_k^(−α_k)``, A_k ≥ 0, E_g ≥ 0.

    Parameters
    ----------
    x
        Names of the x's, ``("m",)`` by default; a parameter is named after its x: ``A_m``, ``alpha_m``.
    offset
        E: ``none`` (default), one ``shared`` by all points, or one per ``group``.
    exponents
        α: one per x, ``shared`` by all groups (default), or one per x and ``group``.
    amplitudes
        A: one per x, ``shared`` by all groups (default), or one per x and ``group``.
    fixed
        Parameters held at a value, by name: ``{"alpha_m": 1.0}``; none by default. Names of grouped parameters end in
        the group: ``alpha_m[opt]``, ``E[opt]``.

    Raises
    ------
    FitError
        No x, a name twice, a word that is not one of the above, a fixed amplitude or offset below zero.

    Notes
    -----
    The width law of arXiv:2505.10465 has x = m, that of Hoffmann et al. 2022 (arXiv:2203.15556, equation 2) has
    parameters and tokens.

    Examples
    --------
    >>> law = PowerLawSum(x=("m", "tokens"), offset="shared", fixed={"alpha_m": 1.0})
    >>> law.formula
    'y = E + A_m m^(-alpha_m) + A_tokens tokens^(-alpha_tokens), alpha_m = 1'
    """

    x: tuple[str, ...] = ("m",)
    offset: Offset = "none"
    exponents: Share = "shared"
    amplitudes: Share = "shared"
    fixed: Mapping[str, float | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", tuple(self.x))
        object.__setattr__(self, "fixed", dict(self.fixed))
        if not self.x or len(set(self.x)) < len(self.x):
            raise FitError(f"a law in x = {self.x}", expected="one or more different names")
        for word, known in (
            (self.offset, ("none", "shared", "group")),
            (self.exponents, ("shared", "group")),
            (self.amplitudes, ("shared", "group")),
        ):
            if word not in known:
                raise FitError(f"{word!r} in a law", expected=f"one of {', '.join(known)}")
        for name, value in self.fixed.items():
            if not np.isfinite(value) or (value < 0 and not name.startswith("alpha_")):
                raise FitError(f"{name} fixed at {value}", expected="a finite number, amplitudes and offsets ≥ 0")

    @property
    def grouped(self) -> bool:
        """Whether any parameter differs between groups."""
        return "group" in (self.offset, self.exponents, self.amplitudes)

    @property
    def formula(self) -> str:
        """The law as text, with its parameters' names."""
        a, e = ("[g]" if share == "group" else "" for share in (self.amplitudes, self.exponents))
        terms = [f"A_{x}{a} {x}^(-alpha_{x}{e})" for x in self.x]
        offset = {"none": [], "shared": ["E"], "group": ["E[g]"]}[self.offset]
        held = [f"{name} = {value:g}" for name, value in self.fixed.items()]
        return f"y = {' + '.join(offset + terms)}" + (f", {', '.join(held)}" if held else "")

    def names(self, groups: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Names of all parameters: amplitudes, exponents, offsets."""
        return (
            *(name for x in self.x for name in _spread(f"A_{x}", self.amplitudes, groups)),
            *(name for x in self.x for name in _spread(f"alpha_{x}", self.exponents, groups)),
            *(_spread("E", self.offset, groups) if self.offset != "none" else ()),
        )

    def predict(
        self,
        params: Mapping[str, float | int],
        x: Mapping[str, ArrayLike] | ArrayLike,
        group: ArrayLike | None = None,
    ) -> np.ndarray:
        """y at new x.

        Parameters
        ----------
        params
            Value of each parameter, by name.
        x
            Column of each x, shape [n], or one column when the law has one x.
        group
            Group of each point, shape [n]; needed when a parameter differs between groups.

        Returns
        -------
        y, shape [n].

        Raises
        ------
        FitError
            A column, the group or a parameter is missing.
        """
        columns = as_columns(self, x)
        n = len(columns[self.x[0]])
        labels = None if group is None else np.asarray(group).astype(str)
        if self.grouped and labels is None:
            raise FitError("no groups", expected=f"the group of each point, for {self.formula}")

        def value(name: str, share: str) -> np.ndarray:
            keys = [name] * n if share == "shared" or labels is None else [f"{name}[{g}]" for g in labels]
            missing = sorted(set(keys) - set(params))
            if missing:
                raise FitError(f"no value for {', '.join(missing)}", expected=f"one of {', '.join(params)}")
            return np.array([params[key] for key in keys])

        y = value("E", self.offset) if self.offset != "none" else np.zeros(n)
        for name, column in columns.items():
            y = y + value(f"A_{name}", self.amplitudes) * column ** -value(f"alpha_{name}", self.exponents)
        return y


def as_columns(law: PowerLawSum, x: Mapping[str, ArrayLike] | ArrayLike) -> dict[str, np.ndarray]:
    """The law's x's as float columns of one length, in the law's order.

    Raises
    ------
    FitError
        A column is missing, is not one-dimensional, differs in length, or holds what is not a positive number.
    """
    if isinstance(x, Mapping):
        missing = [name for name in law.x if name not in x]
        if missing:
            raise FitError(f"columns {', '.join(map(str, x))}", expected=f"also {', '.join(missing)}")
        given = {name: x[name] for name in law.x}
    elif len(law.x) == 1:
        given = {law.x[0]: x}
    else:
        raise FitError("one column", expected=f"a mapping with {', '.join(law.x)}")
    columns = {name: numbers(name, column) for name, column in given.items()}
    if len({len(column) for column in columns.values()}) > 1:
        lengths = ", ".join(f"{name}: {len(column)}" for name, column in columns.items())
        raise FitError(f"columns of different lengths ({lengths})", expected="one row per point")
    for name, column in columns.items():
        bad = ~(np.isfinite(column) & (column > 0))
        if bad.any():
            row = int(np.argmax(bad))
            raise FitError(
                f"{name} = {column[row]:g} in row {row} ({int(bad.sum())} such rows)",
                expected="positive finite numbers, as a power law needs",
                fix="leave these rows out",
            )
    return columns


def numbers(name: str, column: ArrayLike) -> np.ndarray:
    """A one-dimensional float column, or a `FitError` that names it."""
    try:
        array = np.asarray(column, dtype=float)
    except (TypeError, ValueError) as error:
        raise FitError(f"column {name} holds text or gaps", expected="numbers") from error
    if array.ndim != 1:
        raise FitError(f"{name} has shape {array.shape}", expected="one dimension, a row per point")
    return array


def _spread(name: str, share: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}[{g}]" for g in groups) if share == "group" else (name,)
