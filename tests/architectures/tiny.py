"""A tiny model of every causal architecture that transformers knows, from its mapping and default configurations."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

N, M, LAYERS, POSITIONS = 96, 32, 2, 64
# Every name that a configuration has for a size, and the size it gets; names a configuration lacks are left out.
SIZES: dict[str, Any] = (
    dict.fromkeys(("vocab_size", "pad_vocab_size", "vocab_size_per_layer_input"), N)
    | dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "word_embed_proj_dim", "embedding_size"), M
    )
    | dict.fromkeys(("embedding_dim", "model_dim", "emb_dim", "input_hidden_size"), M)
    | dict.fromkeys(
        ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers"), LAYERS
    )
    | dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads"), 4)
    | dict.fromkeys(("encoder_attention_heads",), 4)
    | dict.fromkeys(("num_key_value_heads", "num_kv_heads", "n_kv_heads"), 2)
    | dict.fromkeys(
        ("head_dim", "d_kv", "v_head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "attention_head_size"), 8
    )
    | dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "d_ff", "decoder_ffn_dim", "encoder_ffn_dim"), 48)
    | dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "ffn_hidden_size"), 16)
    | dict.fromkeys(("n_positions", "max_position_embeddings", "n_ctx", "max_sequence_length"), POSITIONS)
    | dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
    | dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk"), 2)
    | dict.fromkeys(("q_lora_rank", "kv_lora_rank", "o_lora_rank"), 8)
    | dict.fromkeys(("state_size", "mamba_d_state", "ssm_state_size"), 8)
)
# What an architecture asks for besides.
SAME_KEYS = {"num_key_value_heads": 4}
EXTRA: dict[str, dict[str, Any]] = {
    "axk2": SAME_KEYS,
    "deepseek_v2": SAME_KEYS,
    "deepseek_v3": SAME_KEYS,
    "deepseek_v32": SAME_KEYS,
    "glm4_moe_lite": SAME_KEYS,
    "glm_moe_dsa": SAME_KEYS,
    "longcat_flash": SAME_KEYS,
    "minicpm3": SAME_KEYS,
    "youtu": SAME_KEYS,
    "codegen": {"rotary_dim": 4},
    "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "mamba2": {"num_heads": 8},
    "bamba": {"attn_layer_indices": [1], "mamba_n_heads": 8},
    "granitemoehybrid": {"mamba_n_heads": 8, "layer_types": ["mamba", "attention"]},
}
SPECIALS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


# Of which sizes alone make no tiny model: they need several parts, packages, or settings that hang together.
NOT_TINY = [
    "axk1",
    "blt",
    "cohere_compass_text",
    "dbrx",
    "dots1",
    "dots3_note",
    "dots3_note_text",
    "emu3",
    "fuyu",
    "gemma3",
    "gemma3n",
    "gemma3n_text",
    "gemma4",
    "gemma4_assistant",
    "gemma4_unified",
    "gemma4_unified_assistant",
    "git",
    "got_ocr2",
    "kimi_linear",
    "lfm2_moe",
    "llama4",
    "mllama",
    "moss_transcribe_diarize",
    "musicgen",
    "musicgen_melody",
    "phi4_multimodal",
    "qwen3_5",
    "qwen3_5_moe",
    "qwen4_exp",
    "reformer",
    "roc_bert",
    "xmod",
    "zamba",
    "zamba2",
    "zaya",
]
# Encoders and the like, which have a causal class and look ahead by default.
LOOKING_AHEAD = [
    "bert",
    "bert-generation",
    "big_bird",
    "camembert",
    "cpmant",
    "data2vec-text",
    "electra",
    "ernie",
    "megatron-bert",
    "paligemma-vision",
    "rembert",
    "roberta",
    "roberta-prelayernorm",
    "roformer",
    "xlm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xlnet",
]
CAUSAL = sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(NOT_TINY))


def tiny_config(model_type: str, **changes: Any) -> Any:
    """The default configuration of an architecture, every size in it made small."""
    kind = transformers.CONFIG_MAPPING[model_type]
    wanted = SIZES | SPECIALS | EXTRA.get(model_type, {}) | changes
    return kind(**{name: value for name, value in wanted.items() if name in _arguments(kind)})


def _arguments(kind: Any) -> set[str]:
    names = set(inspect.signature(kind.__init__).parameters) | set(kind.attribute_map)
    return names | {name for cls in kind.__mro__ for name in getattr(cls, "__annotations__", {})}


def tiny_model(model_type: str, **changes: Any) -> Any:
    """A random model of the architecture in evaluation mode; no two of its tensors alike."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(tiny_config(model_type, **changes), dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.tie_weights()
    return model.eval()
