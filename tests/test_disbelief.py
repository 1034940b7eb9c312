"""What was kept, and what a server or a folder gives, is checked before it is believed."""

from __future__ import annotations

import json
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from loopback_hub import LoopbackHub
from safetensors.torch import save_file

from llmprobe.cli import main
from llmprobe.errors import CorpusError, ProbeError, SourceError
from llmprobe.loss.corpus import open_corpus
from llmprobe.observations import Observation, ObservationStore
from llmprobe.weights import deadline, patience, ranged_download
from llmprobe.weights import hub as hub_module
from llmprobe.weights.fingerprint import fingerprint
from llmprobe.weights.tensor_cache import file_name
from llmprobe.weights.torch_zip import END, END64
from llmprobe.weights.unembedding import read_unembedding

W = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def repository(tmp_path: Path, hub: LoopbackHub, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> LoopbackHub:
    monkeypatch.setattr(patience, "WAIT", 0.001)
    (tmp_path / "m").mkdir()
    save_file({"a/w": W, "a--w": W + 1, "lm_head.weight": W + 2}, tmp_path / "m" / "model.safetensors")
    hub.add("me/m", tmp_path / "m")
    return hub


def test_names_that_look_alike_are_two_tensors(repository: LoopbackHub) -> None:
    for _ in ("fetched", "kept"):
        assert torch.equal(read_unembedding("me/m", tensor="a/w").W, W)
        assert torch.equal(read_unembedding("me/m", tensor="a--w").W, W + 1)
    names = ["a/b", "a--b", "a%2Fb", "..", ".", "", "x" * 999, "x" * 998 + "y", "\ud800", "A", "é"]
    assert len({file_name(name, ".x") for name in names}) == len(names)
    assert all(len(file_name(name).encode()) < 240 and "/" not in file_name(name) for name in names)


@pytest.mark.parametrize("pattern", ["*.safetensors", "*.seal.json", "listing.json", "main.json"])
@pytest.mark.parametrize("harm", [b"", b"\xff\x00", b"{}", b'{"value": "1", "sha256": "0"}', "cut", "flip"])
def test_a_damaged_cache_is_fetched_again(
    pattern: str, harm: bytes | str, repository: LoopbackHub, empty_cache: Path
) -> None:
    read_unembedding("me/m")
    for path in list(empty_cache.rglob(pattern)):
        whole = path.read_bytes()
        middle = len(whole) // 2
        flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
        path.write_bytes({"cut": whole[:-5], "flip": flipped}.get(harm, harm))  # type: ignore[call-overload]
    assert torch.equal(read_unembedding("me/m").W, W + 2)


def test_damaged_pieces_are_fetched_again(
    tmp_path: Path, hub: LoopbackHub, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged_download, "PIECE", 1000)
    monkeypatch.setattr(ranged_download, "THREADS", 1)
    content = os.urandom(5000)

    def breaks(offset: int, length: int) -> bytes:
        if offset >= 3000:
            raise SourceError("gone")
        return content[offset : offset + length]

    with pytest.raises(SourceError):
        ranged_download.fetch_pieces(breaks, "id", 0, bytearray(5000), "x")
    pieces = sorted(path for path in empty_cache.rglob("0*") if path.is_file())
    assert len(pieces) == 3
    for path, data in zip(pieces, (pieces[0].read_bytes()[:-1], b"", pieces[2].read_bytes()[::-1]), strict=True):
        path.write_bytes(data)
    found = ranged_download.fetch_pieces(lambda o, n: content[o : o + n], "id", 0, bytearray(5000), "x")
    assert found == content
    assert not [path for path in empty_cache.rglob("*") if path.is_file()]


def test_a_file_that_changes_between_two_ranges_is_noticed(repository: LoopbackHub, tmp_path: Path) -> None:
    answer = repository.answer
    other = (tmp_path / "m" / "model.safetensors").read_bytes()[::-1]
    seen: list[str] = []

    def changing(request: Any, *, body: bool) -> None:
        if body and request.headers.get("Range"):
            seen.append(request.headers["Range"])
            if len(seen) == 2:
                repository.repos["me/m"].files["model.safetensors"] = other
        answer(request, body=body)

    repository.answer = changing  # type: ignore[method-assign]
    try:
        with pytest.raises(SourceError, match="changed while it was read"):
            read_unembedding("me/m")
    finally:
        repository.answer = answer  # type: ignore[method-assign]


def test_a_server_that_never_ends_is_given_up(repository: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "ANSWER_SECONDS", 0.6)
    answer = repository.answer

    def dripping(request: Any, *, body: bool) -> None:
        if not (body and request.headers.get("Range")):
            return answer(request, body=body)
        request.send_response(206)
        request.end_headers()
        try:
            for _ in range(100):
                request.wfile.write(b"x")
                request.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass
        return None

    repository.answer = dripping  # type: ignore[method-assign]
    began = time.monotonic()
    try:
        with pytest.raises(SourceError, match="was not answered within"):
            read_unembedding("me/m")
    finally:
        repository.answer = answer  # type: ignore[method-assign]
    assert time.monotonic() - began < 4


def test_within_passes_answers_and_errors_on() -> None:
    assert deadline.within(5.0, "it", lambda: 3) == 3
    with pytest.raises(KeyError):
        deadline.within(5.0, "it", lambda: {}["x"])


@pytest.mark.parametrize("suffix", [".safetensors", ".bin", ".gguf"])
def test_special_files_are_refused_and_not_waited_for(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, folder, loop, device = (tmp_path / f"{name}{suffix}" for name in ("pipe", "folder", "loop", "device"))
    os.mkfifo(pipe)
    folder.mkdir()
    loop.symlink_to(loop)
    device.symlink_to("/dev/zero")
    for path in (pipe, folder, loop, device, tmp_path / ("n" * 5000 + suffix)):
        assert main(["overlap", str(path)]) == 2, path
        assert capsys.readouterr().err.count("error:") == 1


def test_special_files_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "observations.jsonl"
    os.mkfifo(pipe)
    save_file({"lm_head.weight": W}, tmp_path / "m.safetensors")
    model = str(tmp_path / "m.safetensors")
    for arguments in (
        ["report", str(tmp_path)],
        ["overlap", model, "--toml", str(pipe)],
        ["fit", str(pipe), "--x", "m", "--y", "loss"],
    ):
        assert main(arguments) == 2, arguments
        assert capsys.readouterr().err.count("error:") == 1
    with pytest.raises(CorpusError):
        open_corpus(str(pipe))


def test_a_fingerprint_is_of_the_content(tmp_path: Path, empty_cache: Path) -> None:
    model = tmp_path / "m"
    model.mkdir()
    save_file({"lm_head.weight": W}, model / "model.safetensors")
    first = fingerprint(str(model))
    times = (model / "model.safetensors").stat().st_mtime_ns
    (model / "README.md").write_text("notes")
    assert fingerprint(str(model)) == first
    save_file({"lm_head.weight": W * 2}, model / "model.safetensors")
    os.utime(model / "model.safetensors", ns=(times, times))  # as a copy that keeps times does
    assert fingerprint(str(model)) != first
    save_file({"lm_head.weight": W}, model / "model.safetensors")
    assert fingerprint(str(model)) == first
    assert fingerprint("org/name") == fingerprint("no such thing") == ""


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return bytearray, (10**13,)


def test_pickles_that_ask_for_memory_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({"lm_head.weight": Bomb()}, protocol=2))
        archive.writestr("m/version", "3\n")
    with pytest.raises(ProbeError):
        read_unembedding(str(path))


def test_a_zip_whose_last_records_contradict_its_directory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    torch.save({"lm_head.weight": W}, path)
    whole = path.read_bytes()
    assert torch.equal(read_unembedding(str(path)).W, W)
    start = len(whole) - END64.size - END.size
    versions = range(start + 12, start + 16)  # of who wrote it
    for at in set(range(start, len(whole))) - set(versions):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(SourceError):
            read_unembedding(str(path))


@pytest.mark.parametrize("order", ["big", "", "middle"])
def test_another_byte_order_is_refused(order: str, tmp_path: Path) -> None:
    path, other = tmp_path / "m.bin", tmp_path / "other.bin"
    torch.save({"lm_head.weight": W}, path)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other, "w") as copy:
        for member in archive.infolist():
            content = order.encode() if member.filename.endswith("byteorder") else archive.read(member)
            copy.writestr(zipfile.ZipInfo(member.filename), content)
    with pytest.raises(SourceError, match="byte order"):
        read_unembedding(str(other))


ODD = (
    "[1]", "null", "{", '{"crc": "x"}', "[" * 100_000, '{"study": 3}', '{"provenance": null}', "\ud83d",
    '{"value": "1"}',
)  # fmt: skip


def test_odd_lines_are_named_and_the_rest_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ObservationStore(tmp_path / "observations.jsonl")
    good = Observation(study="s", source_kind="llm", metric="loss", value=1.5, m=8)
    store.append(good)
    row = json.loads(store.path.read_text())
    row.pop("crc")
    changes: tuple[dict[str, Any], ...] = (
        {"value": None}, {"value": True}, {"value": 10**400}, {"m": "8"}, {"m": 8.5}, {"n": 1e300}, {"family": 3},
        {"source_kind": "other"}, {"provenance": 3}, {"provenance": {"settings": {"a": [1]}}}, {"new_column": 1},
        {"provenance": {"settings": [], "record": {}}}, {"metric": None},
    )  # fmt: skip
    odd = [*ODD, *(json.dumps({**row, **change}) for change in changes)]
    nulls = [name for name, value in row.items() if value is None]
    fine = json.dumps({**row, "model": "hand", "provenance": None, "family": None, "m": 16.0, **dict.fromkeys(nulls)})
    store.path.write_bytes(store.path.read_bytes() + "\n".join([*odd, fine]).encode("utf-8", "surrogatepass") + b"\n")
    assert [(found.model, found.m) for found in store] == [("", 8), ("hand", 16)]
    assert [f"line {number} is damaged" in caplog.text for number in range(2, len(odd) + 2)] == [True] * len(odd)


def test_nulls_do_not_stop_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = ObservationStore(tmp_path / "observations.jsonl")
    for kind in ("llm", "toy", "published"):
        for metric in ("loss", "bits_per_byte", "superposition", "mean_sq_cos", "phi_half", "phi_win", "time_exponent"):
            store.append(Observation(study="s", source_kind=kind, metric=metric, value=0.5))  # type: ignore[arg-type]
            store.append(Observation(study="s", source_kind=kind, metric=metric, value=0.5, n=4, m=4, model="x"))  # type: ignore[arg-type]
    assert main(["report", str(tmp_path)]) == 0, capsys.readouterr().err
