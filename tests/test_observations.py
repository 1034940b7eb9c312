"""The store survives being killed, damaged and shared."""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmprobe.errors import StoreError
from llmprobe.observations import Identity, Observation, ObservationStore, Provenance


def row(value: float = 1.5, **columns: object) -> Observation:
    base = {"study": "s", "source_kind": "toy", "metric": "loss", "m": 8, "n": 100, "value": value}
    return Observation(**{**base, **columns})  # type: ignore[arg-type]


def test_rows_come_back_as_written(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "deep" / "observations.jsonl")
    rows = [row(m=m, provenance=Provenance.here({"seed": 3}, device="cpu")) for m in (4, 8)]
    store.append(*rows)
    assert list(store) == rows
    frame = store.frame()
    assert frame["seed"].tolist() == [3, 3]
    assert frame["m"].tolist() == [4, 8]
    assert frame["key"].tolist() == [r.key for r in rows]
    assert {"git", "torch", "created"} <= set(rows[0].provenance.record)


@settings(max_examples=50, deadline=None)
@given(
    value=st.floats(allow_nan=False, allow_infinity=False),
    model=st.text(max_size=30),
    setting=st.one_of(st.integers(-(2**40), 2**40), st.floats(allow_nan=False, allow_infinity=False), st.text()),
)
def test_any_row_survives_the_round_trip(value: float, model: str, setting: str | float) -> None:
    original = row(value, model=model, provenance=Provenance({"x": setting}))
    again = Observation.from_json(original.to_json())
    assert again == original
    assert again.key == original.key


def test_key_is_what_was_measured_not_how_it_came_out() -> None:
    one = row(1.0, stderr=0.1, provenance=Provenance.here({"seed": 0}, seconds=1))
    assert one.key == row(2.0, n_samples=7, provenance=Provenance.here({"seed": 0}, seconds=9)).key
    assert one.key != row(1.0, provenance=Provenance({"seed": 1})).key
    assert one.key != row(1.0, m=9, provenance=Provenance({"seed": 0})).key


def test_an_identity_is_known_before_the_measurement_and_found_after_it(tmp_path: Path) -> None:
    asked = Identity(study="s", source_kind="llm", metric="loss", model="me/m", corpus="c4", settings={"context": 9000})
    store = ObservationStore(tmp_path / "o.jsonl")
    store.append(asked.observe(2.5, record={"context_granted": 1024}, revision="a" * 40, m=64, n=100))
    (found,) = store
    assert found.key == asked.key
    assert (found.value, found.m, found.provenance.settings["context"]) == (2.5, 64, 9000)
    for change in ({"model": "me/n"}, {"corpus": "pile"}, {"metric": "bits_per_byte"}, {"settings": {"context": 9}}):
        assert replace(asked, **change).key != asked.key


def test_a_key_of_another_kind_is_not_believed(tmp_path: Path) -> None:
    row_ = Observation(study="s", source_kind="toy", metric="loss", value=1.0, key="../../etc")
    again = Observation.from_json(row_.to_json())
    assert again.key == Observation(study="s", source_kind="toy", metric="loss", value=1.0).key


def test_later_row_of_the_same_key_wins(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    store.append(row(1.0), row(3.0, m=9), row(2.0))
    assert [(r.m, r.value) for r in store] == [(8, 2.0), (9, 3.0)]


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_torn_last_line_is_dropped_with_a_warning_and_writing_goes_on(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    store.append(row(1.0, m=1), row(2.0, m=2))
    whole = store.path.read_bytes()
    store.path.write_bytes(whole[:-cut])
    with caplog.at_level(logging.WARNING):
        if cut > 1:
            assert [r.m for r in store] == [1]
            assert "line 2 is damaged" in caplog.text
        store.append(row(3.0, m=3))
        assert [r.m for r in store] == ([1, 2, 3] if cut == 1 else [1, 3])


def test_a_changed_digit_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    store.append(row(1.25, m=1), row(2.5, m=2))
    store.path.write_bytes(store.path.read_bytes().replace(b"1.25", b"7.25"))
    with caplog.at_level(logging.WARNING):
        assert [r.m for r in store] == [2]
    assert "line 1 is damaged and left out: checksum" in caplog.text


def test_lines_written_by_hand_need_no_checksum(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    path.write_text('{"study":"s","source_kind":"llm","metric":"loss","value":3.5,"m":64}\n')
    assert [r.value for r in ObservationStore(path)] == [3.5]


def test_nan_is_no_observation() -> None:
    with pytest.raises(StoreError, match="finite"):
        row(float("nan"))


def test_full_disk_keeps_what_was_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    store.append(row(m=1))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match=r"No space left on device.*what was stored before is unharmed"):
        store.append(row(m=2))
    monkeypatch.undo()
    assert [r.m for r in store] == [1]
    store.append(row(m=3))
    assert [r.m for r in store] == [1, 3]


def _write_many(path: str, first: int) -> None:
    for i in range(50):
        ObservationStore(path).append(row(m=first + i))


def test_several_processes_share_a_store(tmp_path: Path) -> None:
    path = str(tmp_path / "o.jsonl")
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write_many, args=(path, 1000 * k)) for k in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(ObservationStore(path).keys()) == 150


def test_arrays_lie_beside_the_rows(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    W = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    path = store.save_arrays("abc", {"W": W})
    np.testing.assert_array_equal(store.load_arrays("abc")["W"], W)
    store.save_arrays("strided", {"W": W.T[::2]})
    np.testing.assert_array_equal(store.load_arrays("strided")["W"], W.T[::2])
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(StoreError, match="no readable arrays under abc"):
        store.load_arrays("abc")


def test_select_by_columns_and_settings(tmp_path: Path) -> None:
    store = ObservationStore(tmp_path / "o.jsonl")
    store.append(*(row(m=m, provenance=Provenance({"seed": s})) for m in (1, 2) for s in (0, 1)))
    assert [(r.m, r.provenance.settings["seed"]) for r in store.select(m=2, seed=1)] == [(2, 1)]
    assert store.select(m=3) == []
