"""The published figures, read point by point, as data frames."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmprobe.errors import ConfigError
from llmprobe.families import load_families
from llmprobe.fitting import FitResult, PowerLawSum, fit

if TYPE_CHECKING:
    import pandas as pd

FOLDER = Path(__file__).parent
WIDTH_LAW = PowerLawSum(("m",), offset="group")
"""L = A/m^α + B(family, corpus): arXiv:2505.10465, section 5."""


def figure(name: str) -> pd.DataFrame:
    """The points of one figure, a row each.

    Parameters
    ----------
    name
        A table beside this file without its suffix: ``fig8b_losses``.

    Raises
    ------
    ConfigError
        There is no such table.
    """
    import pandas as pd

    path = FOLDER / f"{name}.tsv"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in FOLDER.glob("*.tsv")))
        raise ConfigError(f"no published figure {name!r}", expected=f"one of {known}")
    return pd.read_csv(path, sep="\t", skiprows=1)


def source(name: str) -> str:
    """The first line of a figure's table: where it is from, with what reading error, and how it was checked."""
    with (FOLDER / f"{name}.tsv").open(encoding="utf-8") as file:
        return file.readline().removeprefix("#").strip()


def published_losses() -> pd.DataFrame:
    """The 108 losses of 27 models on four corpora (Figure 8b) with what the family table says of each model.

    Columns: those of the figure, `family` and `model` under this project's names, `m` as the paper takes it (1024 for
    opt-350m), `depth`, `n_params` and `non_embedding`.
    """
    frame = figure("fig8b_losses")
    facts = [model_facts(name) for name in frame["model"]]
    for column in ("family", "model", "depth", "n_params", "non_embedding"):
        frame[column] = [fact[column] for fact in facts]
    return frame


def fit_losses(frame: pd.DataFrame, law: PowerLawSum = WIDTH_LAW) -> FitResult:
    """A law through published losses as the paper fits it, by least squares on L, errors clustered by model."""
    group = frame["family"] + "/" + frame["corpus"]
    x = {name: frame[name].to_numpy(dtype=float) for name in law.x}
    return fit(law, x, frame["L"], group=group, cluster=frame["model"], loss="linear")


@cache
def width_fit() -> FitResult:
    """The common width law of all 108 losses."""
    return fit_losses(published_losses())


def model_facts(name: str) -> dict[str, Any]:
    """`family`, `model` (its id), `depth`, `n_params` and `non_embedding` of a model as a figure names it."""
    return _models()[name]


@cache
def _models() -> dict[str, dict[str, Any]]:
    return {
        member.id.rpartition("/")[2]: {
            "family": family.name,
            "model": member.id,
            "depth": member.layers,
            "n_params": member.params,
            "non_embedding": member.non_embedding,
        }
        for family in load_families().values()
        for member in family.members
    }
