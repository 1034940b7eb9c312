"""The Hub by byte range, driven by the real client against a server on this machine that knows every fault."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from checkpoints import make_model, save
from loopback_hub import LoopbackHub
from safetensors.torch import save_file

from llmprobe.cli import main
from llmprobe.errors import SourceError, StoreError
from llmprobe.weights import hub as hub_module
from llmprobe.weights import patience, ranged_download
from llmprobe.weights.unembedding import read_unembedding

MB = 1 << 20
pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "WAIT", 0.001)


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """An unembedding of 9 MB among 30 MB of other weights, in four layouts."""
    torch.manual_seed(0)
    W = torch.randn(9 * MB // 4 // 64, 64)
    others = {f"model.layers.{i}.weight": torch.randn(1024, 1024) for i in range(8)}
    layouts = {}
    for suffix in ("safetensors", "bin"):
        write = save_file if suffix == "safetensors" else torch.save
        stem = "model" if suffix == "safetensors" else "pytorch_model"
        single = tmp_path_factory.mktemp(f"single-{suffix}")
        write({**others, "lm_head.weight": W}, single / f"{stem}.{suffix}")
        sharded = tmp_path_factory.mktemp(f"sharded-{suffix}")
        names = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
        write(others, sharded / names[0])
        write({"lm_head.weight": W, "model.norm.weight": torch.ones(64)}, sharded / names[1])
        where = {**dict.fromkeys(others, names[0]), "lm_head.weight": names[1], "model.norm.weight": names[1]}
        (sharded / f"{stem}.{suffix}.index.json").write_text(json.dumps({"weight_map": where}))
        layouts[f"single-{suffix}"], layouts[f"sharded-{suffix}"] = single, sharded
    return {"W": W, **layouts}


@pytest.mark.parametrize("layout", ["single-safetensors", "sharded-safetensors", "single-bin", "sharded-bin"])
def test_bytes_sent_are_the_tensors_and_little_more(layout: str, big: dict[str, Any], hub: LoopbackHub) -> None:
    hub.add("me/big", big[layout])
    found = read_unembedding("me/big")
    assert torch.equal(found.W, big["W"])
    assert hub.sent <= 1.01 * big["W"].nbytes + MB
    assert found.bytes_read <= 1.01 * big["W"].nbytes + MB
    assert found.revision == "a" * 40
    before = hub.sent
    again = read_unembedding("me/big")  # from the cache
    assert torch.equal(again.W, big["W"])
    assert (again.sha256, again.dtype, again.bytes_read) == (found.sha256, found.dtype, again.bytes_read)
    assert hub.sent - before < MB


@pytest.mark.parametrize(
    "faults",
    [
        {"status 429": 2},
        {"status 503": 3},
        {"cut": 2},
        {"wrong length": 1},
        {"wrong place": 1},
        {"ignore range": 10**9},
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["sharded-safetensors", "single-bin"])
def test_passing_faults_end_in_the_right_matrix(
    faults: dict[str, int], layout: str, big: dict[str, Any], hub: LoopbackHub
) -> None:
    hub.add("me/big", big[layout]).faults = Counter(faults)
    assert torch.equal(read_unembedding("me/big").W, big["W"])


@pytest.mark.parametrize("fault", ["status 503", "cut", "wrong length"])
def test_lasting_faults_are_one_clear_line(fault: str, big: dict[str, Any], hub: LoopbackHub) -> None:
    hub.add("me/big", big["single-safetensors"]).faults = Counter({fault: 10**6})
    with pytest.raises(SourceError, match=r"from byte 0 could not be read: .*, 6 times; run the command again"):
        read_unembedding("me/big")


def test_broken_transfer_goes_on_from_the_last_whole_piece(
    big: dict[str, Any], hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranged_download, "PIECE", MB)
    monkeypatch.setattr(ranged_download, "THREADS", 1)
    repo = hub.add("me/big", big["single-safetensors"])
    fetched: list[int] = []
    original = hub_module.HubFile._piece

    def breaks_after_five(self: Any, offset: int, length: int) -> bytes:
        fetched.append(offset)
        if len(fetched) == 7:  # the header, five pieces, then the wire is cut for good
            repo.faults["cut"] = 10**6
        return original(self, offset, length)

    monkeypatch.setattr(hub_module.HubFile, "_piece", breaks_after_five)
    with pytest.raises(SourceError, match="run the command again"):
        read_unembedding("me/big")
    repo.faults.clear()
    before = hub.sent
    assert torch.equal(read_unembedding("me/big").W, big["W"])
    assert hub.sent - before < big["W"].nbytes - 4.5 * MB


def test_revisions_are_resolved_and_recorded(tmp_path: Path, hub: LoopbackHub) -> None:
    save_file({"lm_head.weight": torch.ones(3, 2)}, tmp_path / "model.safetensors")
    hub.add("me/steps", tmp_path, revisions={"main": "a" * 40, "step1000": "b" * 40})
    assert read_unembedding("me/steps@step1000").revision == "b" * 40
    assert read_unembedding("me/steps@" + "b" * 40).revision == "b" * 40
    assert read_unembedding("me/steps").revision == "a" * 40
    with pytest.raises(SourceError, match="no revision 'step7'"):
        read_unembedding("me/steps@step7")


def test_missing_and_gated_repositories_say_what_to_do(
    tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SourceError, match="no model nobody/nothing at the Hub; check the spelling"):
        read_unembedding("nobody/nothing")
    W = torch.randn(3, 2)
    save_file({"lm_head.weight": W}, tmp_path / "model.safetensors")
    hub.add("meta/gated", tmp_path, gated=True)
    with pytest.raises(SourceError, match=r"gated.*accept the terms on the page of meta/gated, then set HF_TOKEN"):
        read_unembedding("meta/gated")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert torch.equal(read_unembedding("meta/gated").W, W)
    assert "Bearer hf_secret" in hub.tokens


def test_offline_uses_what_is_kept_and_says_what_is_not(
    tmp_path: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama", tied=False)
    hub.add("me/kept", save(model, tmp_path))
    online = read_unembedding("me/kept")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    offline = read_unembedding("me/kept")
    assert torch.equal(online.W, offline.W)
    assert (offline.revision, offline.tied, offline.bytes_read) == (online.revision, False, 0)
    with pytest.raises(SourceError, match=r"not in the cache.*unset HF_HUB_OFFLINE"):
        read_unembedding("me/other")
    with pytest.raises(SourceError, match="not in the cache"):
        read_unembedding("me/kept", tensor="model.embed_tokens.weight")


def test_a_damaged_kept_tensor_is_named_and_fetched_again(
    tmp_path: Path, hub: LoopbackHub, empty_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    W = torch.randn(50, 8)
    save_file({"lm_head.weight": W}, tmp_path / "model.safetensors")
    hub.add("me/kept", tmp_path)
    read_unembedding("me/kept")
    (kept,) = empty_cache.rglob("lm_head.weight.safetensors")
    data = bytearray(kept.read_bytes())
    data[-3] ^= 1
    kept.write_bytes(data)
    assert torch.equal(read_unembedding("me/kept").W, W)
    assert "no longer matches its hash and is dropped" in caplog.text
    kept.write_bytes(bytes(data[:30]))
    assert torch.equal(read_unembedding("me/kept").W, W)
    assert "is damaged and dropped" in caplog.text


def test_shard_path_outside_the_repository_is_refused(tmp_path: Path, hub: LoopbackHub) -> None:
    index = {"weight_map": {"lm_head.weight": "../../other/repo/x.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    hub.add("me/escape", tmp_path)
    with pytest.raises(SourceError, match="outside the checkpoint"):
        read_unembedding("me/escape")


def test_unwritable_cache_is_one_clear_line(
    tmp_path: Path, hub: LoopbackHub, big: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("LLMPROBE_CACHE", str(blocked))
    hub.add("me/big", big["single-safetensors"])
    with pytest.raises(StoreError, match="cannot write the cache"):
        read_unembedding("me/big")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2])
def test_every_stored_type_is_kept_as_it_is(dtype: torch.dtype, tmp_path: Path, hub: LoopbackHub) -> None:
    W = torch.randn(64, 8).to(dtype)
    save_file({"lm_head.weight": W}, tmp_path / "model.safetensors")
    hub.add("me/typed", tmp_path)
    for _ in ("fetched", "kept"):
        found = read_unembedding("me/typed")
        assert found.W.dtype == dtype
        assert torch.equal(found.W.float(), W.float())


def test_the_command_reads_from_the_hub(tmp_path: Path, hub: LoopbackHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.add("me/model", save(make_model("qwen2"), tmp_path))
    assert main(["overlap", "me/model", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["revision"], row["n"], row["m"], row["tied"]) == ("a" * 40, 96, 32, False)
    assert main(["overlap", "me/none"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
