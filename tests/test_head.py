"""The matrix measured is the one the model multiplies by, or none: oracles are transformers and the values written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_model, save
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llmprobe.errors import SourceError
from llmprobe.weights.unembedding import read_unembedding

DRAW = torch.Generator().manual_seed(0)
E, H = torch.randn(64, 16, generator=DRAW), torch.randn(64, 16, generator=DRAW) + 0.5
UNTIED, TIED = (
    {"model_type": "llama", "tie_word_embeddings": False},
    {"model_type": "llama", "tie_word_embeddings": True},
)
I32, ONE = torch.zeros(2, 64, dtype=torch.int32), torch.ones(64, 1)
EMBEDDING = {"model.embed_tokens.weight": E}
FP8 = torch.float8_e4m3fn


def put(folder: Path, tensors: dict[str, Any], config: Any = None, name: str = "model.safetensors") -> str:
    folder.mkdir(exist_ok=True)
    save_file({key: value.clone() for key, value in tensors.items()}, folder / name, metadata={"format": "pt"})
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


# What quantizers and adapters leave in the place of a head, or beside it.
STORED_OTHERWISE: dict[str, dict[str, torch.Tensor]] = {
    "gptq": {"lm_head.qweight": I32, "lm_head.qzeros": I32, "lm_head.scales": ONE, "lm_head.g_idx": I32[0]},
    "awq": {"lm_head.qweight": I32, "lm_head.qzeros": I32, "lm_head.scales": ONE},
    "compressed-tensors": {"lm_head.weight_packed": I32, "lm_head.weight_scale": ONE},
    "nvfp4": {"lm_head.weight": torch.zeros(64, 8, dtype=torch.uint8), "lm_head.weight_scale_2": ONE},
    "bitsandbytes": {
        "lm_head.weight": torch.zeros(512, 1, dtype=torch.uint8),
        "lm_head.weight.absmax": ONE,
        "lm_head.weight.quant_state.bitsandbytes__nf4": torch.zeros(80, dtype=torch.uint8),
    },
    "mlx": {"lm_head.weight": I32, "lm_head.scales": ONE, "lm_head.biases": ONE},
    "int8": {"lm_head.weight": torch.zeros(64, 16, dtype=torch.int8), "lm_head.weight_scale": ONE},
    "lora": {"base_model.model.lm_head.lora_A.weight": ONE.T.clone(), "base_model.model.lm_head.lora_B.weight": ONE},
    "lora beside the head": {"lm_head.weight": H, "lm_head.lora_A.default.weight": ONE.T.clone()},
    "modules to save": {"lm_head.modules_to_save.default.weight": H, "lm_head.original_module.weight": H},
    "two scales": {"lm_head.weight": H.to(FP8), "lm_head.weight_scale": ONE, "lm_head.weight_scale_inv": ONE},
    "scale without values": {"lm_head.weight_scale": ONE},
    "emptied": {"lm_head.weight": torch.empty(0)},
}


@pytest.mark.parametrize("known", [True, False], ids=["known architecture", "unknown architecture"])
@pytest.mark.parametrize("way", STORED_OTHERWISE)
def test_head_that_is_no_matrix_of_floats_is_refused(way: str, known: bool, tmp_path: Path) -> None:
    config = UNTIED if known else {"model_type": "of-no-one"}
    with pytest.raises(SourceError):
        read_unembedding(put(tmp_path / "m", EMBEDDING | STORED_OTHERWISE[way], config))


def test_tied_embedding_that_is_quantized_or_adapted_is_refused(tmp_path: Path) -> None:
    for number, beside in enumerate(("model.embed_tokens.scales", "model.embed_tokens.lora_embedding_A")):
        with pytest.raises(SourceError):
            read_unembedding(put(tmp_path / str(number), EMBEDDING | {beside: ONE}, TIED))


@pytest.mark.parametrize(
    "beside", [{"lm_head.weight_scale": ONE}, {"lm_head.weight_scale_inv": ONE}, {"q.weight_scale": ONE}]
)
def test_fp8_whose_scales_lie_elsewhere_is_refused(beside: dict[str, torch.Tensor], tmp_path: Path) -> None:
    folder = put(tmp_path / "m", EMBEDDING | {"lm_head.weight": H.to(FP8)} | beside, UNTIED)
    with pytest.raises(SourceError, match="take the unquantized model"):
        read_unembedding(folder)
    with pytest.raises(SourceError, match="take the unquantized model"):
        read_unembedding(folder, tensor="lm_head.weight")


OTHER_NAMES: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any]]] = {
    "chatglm": (
        {"transformer.embedding.word_embeddings.weight": E, "transformer.output_layer.weight": H},
        {"model_type": "chatglm", "tie_word_embeddings": False},
    ),
    "llada": ({"model.transformer.wte.weight": E, "model.transformer.ff_out.weight": H}, {"weight_tying": False}),
    "internlm2": ({"model.tok_embeddings.weight": E, "output.weight": H}, {"model_type": "internlm2"}),
    "inside a vision model": (
        {"language_model.model.tok_embeddings.weight": E, "language_model.output.weight": H},
        {"model_type": "internvl_chat"},
    ),
    "megatron": ({"module.embedding.word_embeddings.weight": E, "module.output_layer.weight": H}, {}),
    "compiled": ({"_orig_mod.model.embed_tokens.weight": E, "_orig_mod.lm_head.weight": H}, UNTIED),
    "under a prefix": ({"student.model.embed_tokens.weight": E, "student.lm_head.weight": H}, UNTIED),
    "data parallel": ({"module.model.embed_tokens.weight": E, "module.lm_head.weight": H}, UNTIED),
}


@pytest.mark.parametrize("case", OTHER_NAMES)
def test_heads_of_other_names_are_found(case: str, tmp_path: Path) -> None:
    tensors, config = OTHER_NAMES[case]
    found = read_unembedding(put(tmp_path / "m", tensors, config))
    assert torch.equal(found.W, H)
    assert not found.tied


ABSENT: dict[str, tuple[dict[str, torch.Tensor], Any]] = {
    "untied": (EMBEDDING, UNTIED),
    "untied, unknown": ({"transformer.wte.weight": E}, {"model_type": "of-no-one", "weight_tying": False}),
    "renamed": (EMBEDDING | {"my_head.weight": H}, UNTIED),
    "classifier": (EMBEDDING | {"score.weight": H[:1]}, UNTIED),
    "unsaid by a type that is untied": (EMBEDDING, {"model_type": "llama"}),
    "unsaid, and it cannot be built": (EMBEDDING, {"model_type": "llama", "hidden_size": "x"}),
    "unknown name": ({"wte.weight": E, "to_tokens.weight": H}, {"model_type": "of-no-one"}),
    "twice": (EMBEDDING | {"lm_head.weight": H, "_orig_mod.lm_head.weight": E}, UNTIED),
    "head of another shape": ({"wte.weight": E, "output.weight": H[:, :8]}, {"model_type": "of-no-one"}),
    "sizes of another model": (EMBEDDING, TIED | {"vocab_size": 64, "hidden_size": 32}),
}


@pytest.mark.parametrize("case", ABSENT)
def test_what_is_no_head_is_not_taken_for_one(case: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        read_unembedding(put(tmp_path / "m", *ABSENT[case]))


def test_a_projectors_output_is_no_head(tmp_path: Path) -> None:
    tensors = {"language_model.model.embed_tokens.weight": E, "multi_modal_projector.output.weight": H[:, :8]}
    for config in ({"model_type": "llava", "tie_word_embeddings": True}, {}):
        found = read_unembedding(put(tmp_path / "m", tensors, config))
        assert torch.equal(found.W, E)
        assert found.tied


def test_tied_is_what_the_file_says(tmp_path: Path) -> None:
    for name, head, tied in (("same", E, True), ("other", H, False)):
        folder = put(tmp_path / name, EMBEDDING | {"lm_head.weight": head}, TIED)
        found = read_unembedding(folder)
        assert (found.tensor, found.tied) == ("lm_head.weight", tied)
        assert torch.equal(found.W, head)


def test_parts_are_read_all_or_refused(tmp_path: Path) -> None:
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    folder = put(tmp_path / "m", EMBEDDING, TIED, first)
    with pytest.raises(SourceError, match="lacks part 2 of 2"):
        read_unembedding(folder)
    with pytest.raises(SourceError, match="lacks the other parts"):
        read_unembedding(f"{folder}/{first}")
    put(tmp_path / "m", {"lm_head.weight": H}, UNTIED, second)
    assert torch.equal(read_unembedding(folder).W, H)
    assert torch.equal(read_unembedding(f"{folder}/{second}").W, H)


def test_files_are_taken_in_transformers_order(tmp_path: Path) -> None:
    folder = save(make_model("llama", tied=False), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    old = dict(tensors, **{"lm_head.weight": tensors["lm_head.weight"] * 2 + 0.1})
    shard = "model-00001-of-00001.safetensors"
    put(folder, old, name=shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": dict.fromkeys(old, shard)})
    )
    torch.save({"lm_head.weight": H}, folder / "pytorch_model.bin")
    for gone in (None, "model.safetensors"):
        if gone:
            (folder / gone).unlink()
        head = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).get_output_embeddings().weight
        assert torch.equal(read_unembedding(str(folder)).W, head)


@pytest.mark.parametrize("architecture", ["gemma2", "qwen3_next", "nemotron", "llama", "gpt2", "opt", "mamba"])
def test_gain_is_added_to_as_the_norms_own_code_does(architecture: str, tmp_path: Path) -> None:
    """W diag(g) x for the normalized x equals the logits that the model's own norm and head give."""
    import transformers

    small = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "n_embd": 16}
    small |= {
        "num_key_value_heads": 2,
        "intermediate_size": 16,
        "ffn_dim": 16,
        "n_layer": 1,
        "n_head": 2,
        "head_dim": 8,
    }
    small |= {"word_embed_proj_dim": 16, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8}
    config = transformers.AutoConfig.for_model(architecture, **small)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    norm = model.get_submodule(NORMS.get(architecture, "model.norm"))
    with torch.no_grad():
        norm.weight.add_(torch.linspace(-0.3, 0.4, 16))
    model.save_pretrained(tmp_path)
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    folded = read_unembedding(str(tmp_path), fold_gain=True).W
    with torch.no_grad():
        without_bias = norm(x) - norm(torch.zeros(1, 16))
        logits = model.get_output_embeddings()(without_bias)
    torch.testing.assert_close(_plain(norm, x) @ folded.T, logits, rtol=1e-3, atol=1e-4)


NORMS = {"gpt2": "transformer.ln_f", "opt": "model.decoder.final_layer_norm", "mamba": "backbone.norm_f"}


def _plain(norm: Any, x: torch.Tensor) -> torch.Tensor:
    """The normalized x without any gain, from the definition."""
    centers = "LayerNorm" in type(norm).__name__
    x = x - x.mean(-1, keepdim=True) if centers else x
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt()


def test_gain_of_unknown_code_is_refused(tmp_path: Path) -> None:
    folder = put(tmp_path / "m", {"lm_head.weight": H, "model.norm.weight": torch.ones(16)})
    with pytest.raises(SourceError, match="cannot be shown"):
        read_unembedding(folder, fold_gain=True)
