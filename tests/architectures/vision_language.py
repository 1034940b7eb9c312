"""Tiny vision–language models: a text model and a vision model of few parameters under one configuration."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny import M, tiny_config
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from llmprobe.weights.architecture import text_model

# model type -> the text model inside, and settings of its own
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llava": ("llama", {"image_token_index": 90}),
    "llava_next": ("mistral", {"image_token_index": 90}),
    "llava_onevision": ("qwen2", {"image_token_index": 90, "video_token_index": 91}),
    "vipllava": ("llama", {"image_token_index": 90}),
    "internvl": ("qwen2", {"image_token_id": 90}),
    "gemma3": ("gemma3_text", {"image_token_index": 90}),
    "paligemma": ("gemma", {"image_token_index": 90}),
    "mistral3": ("mistral", {"image_token_index": 90}),
    "idefics3": ("llama", {"image_token_id": 90}),
    "smolvlm": ("llama", {"image_token_id": 90}),
    "aya_vision": ("cohere2", {"image_token_index": 90}),
    "cohere2_vision": ("cohere2", {"image_token_id": 90}),
    "qwen2_vl": ("qwen2_vl_text", {"image_token_id": 90, "video_token_id": 91}),
    "qwen2_5_vl": ("qwen2_5_vl_text", {"image_token_id": 90, "video_token_id": 91}),
    "qwen3_vl": ("qwen3_vl_text", {"image_token_id": 90, "video_token_id": 91}),
    "qwen3_vl_moe": ("qwen3_vl_moe_text", {"image_token_id": 90, "video_token_id": 91}),
    "qwen3_5": ("qwen3_5_text", {"image_token_id": 90, "video_token_id": 91}),
    "glm4v": ("glm4v_text", {"image_token_id": 90, "video_token_id": 91}),
    "lighton_ocr": ("qwen3", {"image_token_id": 90}),
    "lfm2_vl": ("lfm2", {"image_token_id": 90}),
    "llama4": ("llama4_text", {"image_token_index": 90}),
}
VISION: dict[str, Any] = {
    "hidden_size": M,
    "embed_dim": M,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_layers": 1,
    "depth": 1,
    "num_attention_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "image_size": 32,
    "patch_size": 8,
    "out_hidden_size": M,
    "vision_output_dim": M,
    "projector_input_dim": M,
    "projector_output_dim": M,
}
# Text models whose rotary positions are split in sections of time, height and width.
SECTIONED = ("qwen2_vl_text", "qwen2_5_vl_text", "qwen3_vl_text", "qwen3_vl_moe_text", "glm4v_text")
SECTIONS = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}


def tiny_vision_language(model_type: str) -> Any:
    """A random vision–language model in evaluation mode."""
    text_type, settings = MODELS[model_type]
    rope = {"rope_parameters": SECTIONS} if text_type in SECTIONED else {}
    text = tiny_config(text_type, **rope).to_dict()
    kind = transformers.CONFIG_MAPPING[model_type]
    known = vars(kind().vision_config)
    vision = {name: value for name, value in VISION.items() if name in known or name in kind.attribute_map}
    vision["model_type"] = kind().vision_config.model_type
    config = kind(text_config=text, vision_config=vision, pad_token_id=0, **settings)
    config.architectures = [MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES[model_type]]
    torch.manual_seed(0)
    found = text_model(config)
    assert found is not None
    model = found[0]._from_config(found[1], dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.tie_weights()
    return model.eval()
