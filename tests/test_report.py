"""The page from observations alone: its numbers, its figures, and itself in a real browser."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmprobe.errors import StoreError
from llmprobe.observations import Observation, ObservationStore, Provenance
from llmprobe.report.exponents import differences, exponents
from llmprobe.report.published import published_overlaps
from llmprobe.report.write import write_report

WIDTHS = (8, 16, 32, 64, 128, 256)


def observations() -> list[Observation]:
    """Toys in two regimes, a family of five models on two corpora, and the published overlaps."""
    rng = np.random.default_rng(0)
    rows = []
    for regime, decay, alpha in (("strong", -1.0, 1.0), ("weak", 0.3, 0.5)):
        settings = Provenance({"weight_decay": decay, "data_exponent": 1.5, "frequency_law": "power", "seed": 0})
        for m in WIDTHS:
            base = {
                "study": "s", "source_kind": "toy", "family": f"toy-{regime}", "model": "superposition", "m": m,
                "n": 1000, "step": 100, "provenance": settings,
            }  # fmt: skip
            noise = float(np.exp(rng.normal(0, 0.02)))
            rows.append(Observation(metric="loss", value=5 * m**-alpha * noise, stderr=0.001, **base))
            rows.append(Observation(metric="mean_sq_cos", value=noise / m, **base))
            rows.append(Observation(metric="phi_half", value=1.0 if decay < 0 else m / 1000, **base))
    for m in (256, 512, 1024, 2048, 4096):
        base = {"study": "s", "source_kind": "llm", "family": "mine", "model": f"me/{m}<b>", "m": m, "n": 50000}
        for corpus, offset in (("a", 2.0), ("b", 2.5)):
            value = offset + 400 * m**-0.9 * float(np.exp(rng.normal(0, 0.002)))
            loss = {**base, "corpus": corpus, "n_samples": 1000, "unit": "nats"}
            rows.append(Observation(metric="loss", value=value, stderr=0.05, **loss))
        for metric, value in (("mean_sq_cos", 10 / m), ("centered_mean_sq_cos", 2 / m), ("superposition", 1.0)):
            rows.append(Observation(metric=metric, value=value, **base))
    return [*rows, *published_overlaps("s")]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    ObservationStore(folder / "observations.jsonl").append(*observations())
    write_report(folder)
    return folder


def test_planted_exponents_come_back(run: Path) -> None:
    found = {(e.name, e.quantity): e for e in exponents(ObservationStore(run / "observations.jsonl").frame())}
    strong = found["toy strong, γ = -1", "loss vs width"]
    weak = found["toy weak, γ = 0.3", "loss vs width"]
    real = found["language models, measured here", "loss vs width"]
    for exponent, planted in ((strong, 1.0), (weak, 0.5), (real, 0.9)):
        assert abs(exponent.value - planted) < 3 * exponent.stderr
    assert abs(strong.sigmas_from_one) < 3
    assert weak.sigmas_from_one < -10
    assert strong.best_curve.startswith("power law")
    assert (real.n_points, real.x_range) == (10, (256, 4096))
    gaps = {(d.toy, d.real): d for d in differences(list(found.values())) if d.quantity == "loss vs width"}
    gap = gaps[strong.name, real.name]
    assert gap.value == pytest.approx(strong.value - real.value)
    assert gap.stderr == pytest.approx(np.hypot(strong.stderr, real.stderr))


def test_one_family_or_one_model_is_not_made_up(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "observations.jsonl")
    store.append(*[row for row in observations() if row.m == 256 and row.source_kind == "llm"])
    text = write_report(tmp_path).read_text()
    assert "in this run: not identified" in text
    assert not [e for e in exponents(store.frame()) if e.kind == "llm"]


def test_page_is_self_contained_and_escaped(run: Path) -> None:
    text = (run / "report.html").read_text()
    assert len(text) < 500_000
    links = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')\s>]+)""", text)
    assert all(link.startswith(("#", "data:")) for link in links), set(links)
    assert "<b>" not in text
    assert "me/256&lt;b&gt;" in text


def test_figures_and_numbers_lie_beside(run: Path) -> None:
    for name in ("exponents", "regime", "loss_vs_width", "overlap_vs_width"):
        assert (run / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (run / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    table = json.loads((run / "exponents.json").read_text())
    assert {row["kind"] for row in table} == {"toy", "llm", "published"}
    assert (run / "exponents.csv").read_text().count("\n") == len(table) + 1
    assert (run / "exponents.tex").read_text().count("\\\\") == len(table) + 1


def test_the_same_observations_make_the_same_page(run: Path) -> None:
    before = (run / "report.html").read_text()
    assert write_report(run).read_text() == before


def test_no_observations_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no observations"):
        write_report(tmp_path)


CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture
def browser(tmp_path: Path) -> Any:
    if not CHROMIUM or not DRIVER:
        pytest.skip("chromium and chromium-driver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.add_argument(f"--user-data-dir={tmp_path}/chromium")
    for argument in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync",
        "--disable-component-update", "--no-first-run", "--window-size=1000,1200",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_in_a_real_browser(run: Path, browser: Any) -> None:
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    browser.get(f"file://{run}/report.html")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    loaded = browser.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert loaded > 0

    def column(table: str, index: int) -> list[float]:
        cells = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody td:nth-child({index + 1})")
        return [float(c.get_attribute("data-value")) for c in cells if c.get_attribute("data-value")]

    header = browser.find_elements(By.CSS_SELECTOR, "#exponents th button")[1]
    assert header.text == "exponent"
    header.click()
    assert column("exponents", 1) == sorted(column("exponents", 1))
    header.click()
    assert column("exponents", 1) == sorted(column("exponents", 1), reverse=True)

    link = browser.find_element(By.CSS_SELECTOR, "#exponents td a")  # a number leads to how it was obtained
    browser.execute_script("arguments[0].click()", link)
    target = browser.find_element(By.ID, link.get_attribute("href").partition("#")[2])
    assert target.is_displayed()
    assert link.text.removesuffix(", as printed") in target.text

    point = browser.find_element(By.XPATH, "//*[local-name()='g'][@class='point'][contains(., 'me/256')]")
    assert "m = 256" in point.find_element(By.XPATH, ".//*[local-name()='title']").get_attribute("textContent")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    assert browser.execute_script("return getComputedStyle(arguments[0]).opacity", point) == "1"
    ActionChains(browser).move_to_element(point).perform()
    assert browser.execute_script("return getComputedStyle(arguments[0]).opacity", point) == "0.55"
    assert browser.get_log("browser") == []

    for width, height in ((1280, 800), (390, 800)):  # a laptop and a phone: neither scrolls sideways
        browser.set_window_size(width, height)
        assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        browser.execute_script("scrollTo(0, 0)")
        assert (
            browser.execute_script("return document.querySelector('.verdict').getBoundingClientRect().bottom") < height
        )
    browser.set_window_size(1280, 800)
    wide = "return [...document.querySelectorAll('.scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert browser.execute_script(wide) == 0


def overlaps(model: str, kind: str = "llm", family: str = "", **settings: object) -> list[Observation]:
    """A matrix of a strong model."""
    values = {"represented_fraction": 0.9, "superposition": 0.89, "mean_sq_cos": 0.2, "centered_mean_sq_cos": 0.01}
    base = {"study": "s", "source_kind": kind, "family": family, "model": model, "n": 50000, "m": 576}
    provenance = Provenance(dict(settings))  # type: ignore[arg-type]
    return [Observation(metric=k, value=v, provenance=provenance, **base) for k, v in values.items()]


def report(folder: Path, *rows: Observation) -> str:
    ObservationStore(folder / "observations.jsonl").append(*rows)
    return write_report(folder).read_text()


def test_the_verdict_names_what_the_controls_show(tmp_path: Path) -> None:
    control = [replace(row, value=1.0) for row in overlaps("random rows like me/a", "toy", "control")]
    text = report(tmp_path, *overlaps("me/a"), *control, *observations())
    assert "me/a lies in the strong superposition regime (coordinate 0.890" in text or "of 6 models are strong" in text
    assert "random rows of the same norms have 1.00" in text
    (row,) = re.findall(r"<tr><td[^>]*><a[^>]*>random rows like me/a.*?</tr>", text)
    assert "strong" not in row, "rows that nobody trained have no regime"
    assert "necessary, not evidence of learning" in text


def test_a_weak_toys_matrix_called_a_model_is_called_weak(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    from llmprobe.measurements import OverlapSettings, overlap_work
    from llmprobe.study import run as measure
    from toymodels.superposition.config import preset
    from toymodels.superposition.training import train

    for name, decay in (("weak", 0.3), ("strong", -1.0)):
        W = train(preset("quick", m=25, weight_decay=decay, steps=2000), device="cpu").W
        save_file({"lm_head.weight": W[W.norm(dim=1) > 0].contiguous()}, tmp_path / f"{name}.safetensors")
        store = ObservationStore(tmp_path / name / "observations.jsonl")
        assert measure([overlap_work("s", str(tmp_path / f"{name}.safetensors"), OverlapSettings())], store) == {}
        assert f"lies in the {name} superposition regime" in write_report(tmp_path / name).read_text()


def test_a_model_measured_in_two_ways_is_two_lines(tmp_path: Path) -> None:
    text = report(tmp_path, *overlaps("me/a", method="exact"), *overlaps("me/a", method="sampled"))
    assert "me/a, method exact" in text
    assert "me/a, method sampled" in text


def test_what_is_not_identified_is_said(tmp_path: Path) -> None:
    unsure = [replace(row, stderr=0.3) if row.metric == "superposition" else row for row in overlaps("me/a")]
    text = report(tmp_path, *unsure)
    assert "The regime of me/a cannot be told" in text
    assert "in this run: not identified" in text


@pytest.mark.parametrize(
    ("losses", "says"),
    [
        ((3.3, 3.15, 3.2, 3.1, 3.2, 3.05), "not identified (95 % from -3.7 to 5.8)"),
        ((3.0, 2.9, 3.1, 2.95, 3.05), "not identified."),  # the fit runs to its bound, -12
    ],
)
def test_losses_that_do_not_fall_give_no_exponent(losses: tuple[float, ...], says: str, tmp_path: Path) -> None:
    about = {"study": "s", "source_kind": "llm", "metric": "loss", "unit": "nats", "family": "a", "corpus": "c"}
    rows = [Observation(model=f"me/{k}", m=2 ** (6 + k), value=value, **about) for k, value in enumerate(losses)]
    text = report(tmp_path, *rows)
    (found,) = [e for e in exponents(ObservationStore(tmp_path / "observations.jsonl").frame()) if e.kind == "llm"]
    assert not found.identified
    assert f"in this run: {says}" in text
    assert "12.0" not in text
    assert "not identified" in (tmp_path / "exponents.tex").read_text()


def test_fifty_thousand_rows_make_a_page(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = (
        json.dumps({"study": "s", "source_kind": "toy", "family": "toy-strong", "metric": "loss", "n": 1000,
                    "m": int(m), "value": float(5 / m * np.exp(0.1 * z)), "model": f"t{i}"})
        for i, (m, z) in enumerate(zip(rng.integers(8, 300, 50_000), rng.normal(size=50_000), strict=True))
    )  # fmt: skip
    (tmp_path / "observations.jsonl").write_text("\n".join(lines) + "\n")
    text = write_report(tmp_path).read_text()
    assert len(text) < 500_000
    assert "50000 observations, the first 300" in text
