"""Values: planted laws, published fits, units, order, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmprobe.fit import fit
from llmprobe.laws import PowerLawSum

CHINCHILLA = PowerLawSum(("model_size", "num_tokens"), offset="shared")
JSON_KEYS = ["law", "n_points", "params", "stderr", "ci95", "r2", "rmse", "objective", "converged", "warnings"]


@pytest.fixture(scope="session")
def chinchilla(shared_data: Path) -> pd.DataFrame:
    """The 240 points of the replication: the five largest losses dropped."""
    return pd.read_csv(shared_data / "chinchilla.csv").sort_values("loss").iloc[:-5]


def test_chinchilla_huber_optimum(chinchilla: pd.DataFrame) -> None:
    result = fit(CHINCHILLA, {x: chinchilla[x] for x in CHINCHILLA.x}, chinchilla["loss"], loss="huber")
    assert result.converged
    assert result.n_points == 240
    assert f"{result.params['A_model_size']:.1f}" == "477.8"
    assert f"{result.params['A_num_tokens']:.1f}" == "2143.4"
    assert f"{result.params['E']:.4f}" == "1.8172"
    assert f"{result.params['alpha_model_size']:.5f}" == "0.34731"
    assert f"{result.params['alpha_num_tokens']:.5f}" == "0.36717"


def test_json_keys_are_the_documented_ones() -> None:
    m = np.geomspace(8, 256, 8)
    result = fit(PowerLawSum(), m, 3 / m)
    assert list(result.to_dict()) == JSON_KEYS
