"""Tiny random checkpoints of every architecture, saved by transformers itself, and tiny tokenizers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

N, M = 96, 32
SMALL: dict[str, Any] = {
    "vocab_size": N,
    "hidden_size": M,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}


def _small(*without: str, **more: Any) -> dict[str, Any]:
    return {**{k: v for k, v in SMALL.items() if k not in without}, **more}


NO_GQA = ("num_key_value_heads", "head_dim")
# name -> configuration class and its arguments; "tied" is added where the test asks for it
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "opt": ("OPTConfig", _small(*NO_GQA, "intermediate_size", ffn_dim=48, word_embed_proj_dim=M)),
    "opt-350m": (
        "OPTConfig",
        _small(*NO_GQA, "intermediate_size", ffn_dim=48, word_embed_proj_dim=16, do_layer_norm_before=False),
    ),
    "gpt2": ("GPT2Config", {"vocab_size": N, "n_embd": M, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt_neox": ("GPTNeoXConfig", _small(*NO_GQA)),
    "qwen2": ("Qwen2Config", _small("head_dim")),
    "qwen3": ("Qwen3Config", _small()),
    "llama": ("LlamaConfig", _small()),
    "gemma2": ("Gemma2Config", _small(final_logit_softcapping=5.0, attn_logit_softcapping=5.0)),
    "gemma3": ("Gemma3TextConfig", _small()),
    "olmo2": ("Olmo2Config", _small("head_dim")),
    "bloom": ("BloomConfig", {"vocab_size": N, "hidden_size": M, "n_layer": 2, "n_head": 4}),
    "gpt_neo": (
        "GPTNeoConfig",
        {
            "vocab_size": N,
            "hidden_size": M,
            "num_layers": 2,
            "num_heads": 4,
            "attention_types": [[["global", "local"], 1]],
            "max_position_embeddings": 64,
        },
    ),
    "falcon": ("FalconConfig", _small(*NO_GQA, "intermediate_size")),
    "mistral": ("MistralConfig", _small()),
    "phi": ("PhiConfig", _small(*NO_GQA)),
    "mamba": ("MambaConfig", {"vocab_size": N, "hidden_size": M, "num_hidden_layers": 2, "state_size": 4}),
}


def make_model(architecture: str, *, tied: bool | None = None, seed: int = 0, **changes: Any) -> Any:
    """A random model; `tied` overrides the architecture's default."""
    kind, arguments = ARCHITECTURES[architecture]
    arguments = {**arguments, **changes, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    if tied is not None:
        arguments["tie_word_embeddings"] = tied
    torch.manual_seed(seed)
    config = getattr(transformers, kind)(**arguments)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # some architectures start biases at zero
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.tie_weights()
    return model.eval()


def save(model: Any, folder: Path, *, sharded: bool = False, pickled: bool = False) -> Path:
    """Save as transformers does; `pickled` rewrites the same tensors as torch .bin files."""
    model.save_pretrained(folder, max_shard_size="8KB" if sharded else "1GB")
    if pickled:
        for path in sorted(folder.glob("*.safetensors")):
            torch.save(load_file(path), _bin(path))
            path.unlink()
        index = folder / "model.safetensors.index.json"
        if index.exists():
            table = json.loads(index.read_text())
            table["weight_map"] = {k: _bin(Path(v)).name for k, v in table["weight_map"].items()}
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps(table))
            index.unlink()
    return folder


def _bin(path: Path) -> Path:
    return path.with_name(path.name.replace("model", "pytorch_model", 1)).with_suffix(".bin")


def make_tokenizer(*, bos: bool = True, eos: bool = True, size: int = N) -> Any:
    """A byte-level tokenizer of at most `size` tokens: bytes that are not in its alphabet are dropped."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = [chr(c) for c in range(97, 123)] + ["Ġ", "Ċ", ".", ",", "T", "é", "Ã", "©"]
    specials = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(["the cat sat on the mat. " * 5, "a theory that fits, at last. é " * 5], trainer)
    special = {"pad_token": "<pad>"} | ({"bos_token": "<s>"} if bos else {}) | ({"eos_token": "</s>"} if eos else {})
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
