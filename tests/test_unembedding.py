"""The one tensor, from every kind of file and every architecture, equals what transformers holds bit for bit."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import ARCHITECTURES, make_model, save
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file

from llmprobe.errors import SourceError
from llmprobe.overlap.statistics import overlap_statistics
from llmprobe.settings import SettingError
from llmprobe.weights.checkpoint import open_local
from llmprobe.weights.unembedding import read_unembedding


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_bit_for_bit(architecture: str, sharded: bool, pickled: bool, tmp_path: Path) -> None:
    for tied in (True, False):
        model = make_model(architecture, tied=tied)
        folder = save(model, tmp_path / f"{tied}", sharded=sharded, pickled=pickled)
        found = read_unembedding(str(folder))
        expected = model.get_output_embeddings().weight.detach()
        assert torch.equal(found.W, expected), (architecture, tied)
        in_memory_tied = expected.data_ptr() == model.get_input_embeddings().weight.data_ptr()
        assert found.tied == in_memory_tied
        assert found.dtype == "float32"


def test_prefixless_gpt2(tmp_path: Path) -> None:
    W = torch.randn(20, 4)
    save_file({"wte.weight": W, "wpe.weight": torch.randn(8, 4)}, tmp_path / "model.safetensors")
    found = read_unembedding(str(tmp_path))
    assert (found.tensor, found.tied) == ("wte.weight", True)
    assert torch.equal(found.W, W)


def test_nested_model_is_found_by_suffix(tmp_path: Path) -> None:
    W = torch.randn(20, 4)
    tensors = {"language_model.model.embed_tokens.weight": W, "vision_tower.patch.weight": torch.randn(8, 4)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert torch.equal(read_unembedding(str(tmp_path)).W, W)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_stored_types_are_kept(dtype: torch.dtype, tmp_path: Path) -> None:
    W = torch.randn(40, 8).to(dtype)
    save_file({"lm_head.weight": W}, tmp_path / "one.safetensors")
    found = read_unembedding(str(tmp_path / "one.safetensors"))
    assert found.W.dtype == dtype
    assert torch.equal(found.W.float(), W.float())
    expected = overlap_statistics(W.float(), method="exact")
    assert overlap_statistics(found.W, method="exact") == expected


def test_only_the_one_tensor_is_read(tmp_path: Path) -> None:
    W = torch.randn(100, 16)
    others = {f"layer{i}.weight": torch.randn(512, 512) for i in range(4)}
    save_file({"lm_head.weight": W, **others}, tmp_path / "model.safetensors")
    assert read_unembedding(str(tmp_path)).bytes_read <= W.nbytes + (64 << 10)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"lm_head.weight": W, **others}, tmp_path / "pytorch_model.bin")
    assert read_unembedding(str(tmp_path)).bytes_read <= W.nbytes + (320 << 10)


def test_bin_views_and_transposes(tmp_path: Path) -> None:
    base = torch.arange(60.0)
    tensors = {"lm_head.weight": base[12:52].view(8, 5), "wte.weight": base[:40].view(5, 8).T}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    checkpoint = open_local(tmp_path)
    for name, expected in tensors.items():
        assert torch.equal(checkpoint.read(name).values, expected)


class _Malice:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (Path("pwned"),))


def test_malicious_pickle_is_refused_and_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"lm_head.weight": torch.randn(4, 2), "x": _Malice()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(SourceError, match="asks for more than tensors; it was not run"):
        read_unembedding(str(tmp_path))
    assert not (tmp_path / "pwned").exists()


def _gguf(path: Path, W: np.ndarray, kind: GGMLQuantizationType, name: str = "token_embd.weight") -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_tensor(name, quantize(W, kind), raw_dtype=kind)
    writer.add_tensor("output_norm.weight", np.arange(1, W.shape[1] + 1, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


QUANTIZABLE = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "TQ1_0", "TQ2_0"]


@pytest.mark.parametrize("kind", QUANTIZABLE)
def test_gguf_is_dequantized(kind: str, tmp_path: Path) -> None:
    W = np.random.default_rng(0).normal(size=(9, 256)).astype(np.float32)
    quantization = GGMLQuantizationType[kind]
    _gguf(tmp_path / "m.gguf", W, quantization)
    found = read_unembedding(str(tmp_path / "m.gguf"))
    np.testing.assert_array_equal(found.W.numpy(), dequantize(quantize(W, quantization), quantization))
    assert (found.dtype, found.tied) == (kind, True)
    folded = read_unembedding(str(tmp_path / "m.gguf"), fold_gain=True, rows=5)
    np.testing.assert_allclose(folded.W.numpy(), found.W.numpy()[:5] * np.arange(1, 257), rtol=1e-6)


def test_gguf_kinds_the_package_only_reads(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL"):
        quantization = GGMLQuantizationType[kind]
        from gguf.constants import GGML_QUANT_SIZES

        block, size = GGML_QUANT_SIZES[quantization]
        raw = rng.integers(0, 60, size=(3, 256 // block * size), dtype=np.uint8)
        path = tmp_path / f"{kind}.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_tensor("output.weight", raw, raw_dtype=quantization)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found = read_unembedding(str(path))
        np.testing.assert_array_equal(found.W.numpy(), dequantize(raw, quantization))
        assert not found.tied


@pytest.mark.parametrize("architecture", ["gemma2", "llama", "gpt_neox", "opt"])
def test_folded_gain_is_the_final_norms(architecture: str, tmp_path: Path) -> None:
    model = make_model(architecture)
    folder = save(model, tmp_path)
    plain, folded = read_unembedding(str(folder)), read_unembedding(str(folder), fold_gain=True)
    gain = model.get_submodule(FINAL_NORM[architecture]).weight.detach() + (1 if architecture == "gemma2" else 0)
    torch.testing.assert_close(folded.W, plain.W * gain)


FINAL_NORM = {
    "gemma2": "model.norm",
    "llama": "model.norm",
    "gpt_neox": "gpt_neox.final_layer_norm",
    "opt": "model.decoder.final_layer_norm",
}


def _safetensors(folder: Path) -> Path:
    save_file({"lm_head.weight": torch.randn(30, 8)}, folder / "model.safetensors")
    return folder / "model.safetensors"


DAMAGE = {
    "empty": lambda b: b"",
    "half": lambda b: b[: len(b) // 2],
    "header length": lambda b: struct.pack("<Q", 2**60) + b[8:],
    "header text": lambda b: b[:8] + b"#" * 20 + b[28:],
    "offsets": lambda b: b.replace(b"960", b"990"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_safetensors_is_one_clear_error(damage: str, tmp_path: Path) -> None:
    path = _safetensors(tmp_path)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(SourceError, match=r"model\.safetensors.*download it again"):
        read_unembedding(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 3, 100, 2000])
def test_truncated_gguf_and_bin_are_one_clear_error(keep: int, tmp_path: Path) -> None:
    W = np.ones((64, 256), dtype=np.float32)
    _gguf(tmp_path / "m.gguf", W, GGMLQuantizationType.F32)
    torch.save({"lm_head.weight": torch.randn(64, 64)}, tmp_path / "m.bin")
    for name in ("m.gguf", "m.bin"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(SourceError, match=name.replace(".", r"\.")):
            read_unembedding(str(path))


def test_missing_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="neither a file or folder here nor the name of a model"):
        read_unembedding(str(tmp_path / "nowhere"))
    with pytest.raises(SourceError, match="holds no weights"):
        read_unembedding(str(tmp_path))
    with pytest.raises(SourceError, match="there is no sample 'nothing'"):
        read_unembedding("sample:nothing")
    save_file({"head_of_mine.weight": torch.randn(4, 2)}, tmp_path / "model.safetensors")
    with pytest.raises(SourceError, match=r"--tensor; there are, for example: head_of_mine\.weight"):
        read_unembedding(str(tmp_path))
    assert read_unembedding(str(tmp_path), tensor="head_of_mine.weight").W.shape == (4, 2)
    with pytest.raises(SettingError, match=r"vocabulary = 9.*between 2 and the 4 rows"):
        read_unembedding(str(tmp_path), tensor="head_of_mine.weight", rows=9)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(SourceError, match="has an unknown file type"):
        read_unembedding(str(tmp_path / "notes.txt"))


@pytest.mark.parametrize(
    "escape", ["../secret.safetensors", "/etc/passwd", "a/../../x.safetensors", "C:\\x.safetensors"]
)
def test_index_that_points_outside_is_refused(escape: str, tmp_path: Path) -> None:
    index = {"weight_map": {"lm_head.weight": escape}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match="outside the checkpoint"):
        read_unembedding(str(tmp_path))


def test_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"lacks model-00001-of-00002\.safetensors"):
        read_unembedding(str(tmp_path))


def test_zip_that_is_no_torch_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([1, 2]))
    with pytest.raises(SourceError):
        read_unembedding(str(tmp_path))


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "m.gguf"])
def test_pointers_of_git_lfs_are_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n")
    for source in (tmp_path, tmp_path / name):
        with pytest.raises(SourceError, match="Git LFS pointer"):
            read_unembedding(str(source))


def _part(path: Path, tensors: dict[str, np.ndarray], number: int, count: int) -> None:
    writer = GGUFWriter(path, "llama")
    writer.add_uint16("split.no", number)
    writer.add_uint16("split.count", count)
    for name, values in tensors.items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_split_gguf_is_read_from_all_its_parts_or_refused(tmp_path: Path) -> None:
    E, H = (np.random.default_rng(i).normal(size=(9, 32)).astype(np.float32) for i in range(2))
    parts = [tmp_path / f"m-0000{i}-of-00002.gguf" for i in (1, 2)]
    _part(parts[0], {"token_embd.weight": E}, 0, 2)
    with pytest.raises(SourceError, match=r"one of 2 parts; m-00002-of-00002\.gguf not there"):
        read_unembedding(str(parts[0]))
    _part(parts[1], {"output.weight": H}, 1, 2)
    for source in (*parts, tmp_path):
        found = read_unembedding(str(source))
        np.testing.assert_array_equal(found.W.numpy(), H)
        assert not found.tied
    parts[0].rename(tmp_path / "first.gguf")
    with pytest.raises(SourceError, match="a name that ends in"):
        read_unembedding(str(tmp_path / "first.gguf"))
