"""The study of Chinchilla: published values, a download that is checked, and tables of either layout."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from llmprobe.errors import FitError, SourceError
from recipes import chinchilla
from recipes.chinchilla import Config, download, main, read
from recipes.chinchilla_depth import losses_with_layers, width_and_depth


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """60 invented runs, in the columns of the public file."""
    rng = np.random.default_rng(0)
    N, D = np.exp(rng.uniform(np.log(5e7), np.log(1e10), 60)), np.exp(rng.uniform(np.log(5e8), np.log(3e11), 60))
    loss = (1.8 + 480 / N**0.35 + 2100 / D**0.37) * np.exp(0.002 * rng.standard_normal(60))
    path = tmp_path / "public.csv"
    pd.DataFrame({"x": 0.0, "Model Size": N, "Training FLOP": 6 * N * D, "loss": loss}).to_csv(path, index=False)
    return path


def test_alpha_m_of_the_reconstruction(shared_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = main(Config(data=shared_data / "chinchilla.csv", resamples=1000, draws=2, out=tmp_path))
    assert f"{report['k']['value']:.3f} {report['k']['stderr']:.3f}" == "2.502 0.032"
    value, error = report["alpha_m"]["value"], report["alpha_m"]["bootstrap_stderr"]
    assert value == pytest.approx(0.34731 * 2.502, abs=1e-3)
    assert error == pytest.approx(0.04, abs=0.005)
    for published, spread in ((0.88, 0.06), (0.91, 0.04)):
        assert abs(value - published) < 2 * np.hypot(error, spread)
    direct = report["width_depth_data"]
    assert direct["n_points"] == 240
    assert abs(direct["params"]["alpha_d_model"] - 0.88) < 2 * direct["stderr"]["alpha_d_model"]
    said = capsys.readouterr().out
    assert "published: 0.88 ± 0.06 from Chinchilla, 0.91 ± 0.04" in said
    assert (tmp_path / "chinchilla.png").stat().st_size > 10_000
    assert (tmp_path / "width_depth_data.png").stat().st_size > 10_000
    assert [row["kept"] for row in report["kept"] if row["loss"] == "huber"] == list(range(120, 241, 10))
    (near,) = (row for row in report["kept"] if (row["loss"], row["kept"]) == ("linear", 200))
    for name, published, error in (("d_model", 0.98, 0.08), ("n_layers", 1.2, 0.3), ("num_tokens", 0.30, 0.01)):
        assert abs(near["params"][f"alpha_{name}"] - published) < error
    (last,) = (row for row in report["kept"] if (row["loss"], row["kept"]) == ("huber", 240))
    assert last["params"] == pytest.approx(direct["params"], rel=1e-9)
    assert set(report["selection"]) == {"120", "180", "210", "240"}
    assert json.loads((tmp_path / "results.json").read_text())["fit"]["n_points"] == 240


def test_without_widths_k_is_the_published_one(table: Path, tmp_path: Path) -> None:
    report = main(Config(data=table, drop_largest=0, resamples=200, out=tmp_path))
    assert report["k"] == {"value": 2.52, "stderr": 0.03, "source": "published, table A9"}
    assert report["width_depth_data"] is None
    assert report["fit"]["params"]["alpha_model_size"] == pytest.approx(0.35, abs=0.02)


def test_width_and_depth_of_the_published_losses(shared_data: Path) -> None:
    frame = losses_with_layers(shared_data / "published" / "fig8b_losses.tsv")
    assert len(frame) == 108
    assert dict(zip(frame["model"], frame["layers"], strict=True))["pythia-1b"] == 16
    alone, both, drawn = width_and_depth(frame, 50, seed=0)
    assert alone.params["alpha_m"] == pytest.approx(0.9099, abs=1e-4)
    assert (round(alone.rmse, 4), round(both.rmse, 4)) == (0.0721, 0.0617)
    assert both.params["alpha_layers"] == pytest.approx(1.05, abs=0.01)
    assert drawn.stderr["alpha_m"] > both.stderr["alpha_m"]  # losses of one model are not independent


def test_a_model_without_layers_is_named(tmp_path: Path) -> None:
    path = tmp_path / "losses.tsv"
    path.write_text("family\tmodel\tm\tcorpus\tL\nopt\topt-125m\t768\tc4\t3.0\nmine\tnobody-1b\t768\tc4\t3.0\n")
    with pytest.raises(FitError, match="layers of nobody-1b"):
        losses_with_layers(path)


def test_download_is_fetched_once_and_checked(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chinchilla, "URL", table.as_uri())
    with pytest.raises(SourceError, match="sha256"):
        download(tmp_path / "runs")
    monkeypatch.setattr(chinchilla, "SHA256", hashlib.sha256(table.read_bytes()).hexdigest())
    path = download(tmp_path / "runs")
    assert path.read_bytes() == table.read_bytes()
    table.unlink()
    assert download(tmp_path / "runs") == path
    path.write_bytes(b"torn")
    with pytest.raises(SourceError, match="delete"):
        download(tmp_path / "runs")
    path.unlink()
    with pytest.raises(SourceError, match="--data"):
        download(tmp_path / "runs")


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,loss\n1,2\n")
    with pytest.raises(SourceError, match="model_size, num_tokens"):
        read(path)
    with pytest.raises(SourceError, match="no file"):
        main(replace(Config(), data=tmp_path / "absent.csv"))
