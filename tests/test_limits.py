"""What a loss asks of a model: no look ahead, positions that are there, windows that do not see their neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoints import make_model, make_tokenizer, save

from llmprobe.cli import main
from llmprobe.errors import SourceError
from llmprobe.loss.corpus import Document
from llmprobe.loss.language_model import LanguageModel
from llmprobe.loss.limits import check_causal, positions_of
from llmprobe.loss.scoring import score_windows
from llmprobe.loss.windows import Window, cut_windows

SMALL: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def build(model_type: str, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**SMALL, **settings})
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def wrap(model: Any, positions: int | None = None) -> LanguageModel:
    return LanguageModel(model, make_tokenizer(), "tiny", "", "float32", "cpu", positions)


def windows_of(*lengths: int) -> list[Window]:
    draw = torch.Generator().manual_seed(1)
    return [Window(i, (1, *torch.randint(3, 90, (n,), generator=draw).tolist()), n) for i, n in enumerate(lengths)]


LOOKS_AHEAD = {
    "bert": {},
    "roberta": {"max_position_embeddings": 66},
    "xlnet": {"d_model": 32, "n_layer": 1, "n_head": 4, "d_inner": 32},
}


@pytest.mark.parametrize("model_type", LOOKS_AHEAD)
def test_models_that_look_ahead_are_refused(model_type: str) -> None:
    with pytest.raises(SourceError, match="looks ahead"):
        score_windows(wrap(build(model_type, **LOOKS_AHEAD[model_type])), windows_of(20))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_causal_models_pass_and_decoders_among_encoders_too(dtype: torch.dtype) -> None:
    ids = torch.arange(3, 60)
    for model in (build("llama"), build("bert", is_decoder=True), build("mamba", state_size=4)):
        assert check_causal(model.to(dtype), ids, "tiny")
    assert check_causal(build("bert"), ids[:1], "one token cannot look ahead")


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "original_max_position_embeddings": 16}
ROTARY: dict[str, tuple[str, dict[str, Any]]] = {
    "longrope": (
        "phi3",
        {"max_position_embeddings": 64, "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, **FACTORS}},
    ),
    "dynamic": (
        "llama",
        {"max_position_embeddings": 16, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
}


@pytest.mark.parametrize("kind", ROTARY)
def test_windows_do_not_depend_on_their_neighbours(kind: str) -> None:
    """Each window by itself in a new model is the oracle: lengths on both sides of what the frequencies change at."""
    model_type, settings = ROTARY[kind]
    windows = windows_of(40, 24, 12, 24, 5)
    expected = []
    for window in windows:
        ids = torch.tensor([window.tokens])
        with torch.no_grad():
            logits = build(model_type, **settings)(input_ids=ids[:, :-1], use_cache=False).logits[0].double()
        expected.append(float(-torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum()))
    for budget in (1, 60, 10_000):
        found = score_windows(wrap(build(model_type, **settings)), windows, batch_tokens=budget)
        np.testing.assert_allclose(found.nll, expected, rtol=1e-5)


POSITIONS: dict[str, tuple[str, dict[str, Any], int | None]] = {
    "offset of two": ("opt", {"max_position_embeddings": 40, "ffn_dim": 48, "word_embed_proj_dim": 32}, 40),
    "offset of padding": ("roberta", {"max_position_embeddings": 42, "pad_token_id": 1, "is_decoder": True}, 40),
    "n_positions": ("gpt2", {"n_positions": 40, "n_embd": 32, "n_layer": 1, "n_head": 4}, 40),
    "max_seq_len": ("mpt", {"max_seq_len": 40, "d_model": 32, "n_layers": 1, "n_heads": 4}, 40),
    "none": ("mamba", {"state_size": 4}, None),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_positions_are_those_the_model_has(case: str) -> None:
    model_type, settings, positions = POSITIONS[case]
    model = build(model_type, **settings)
    assert positions_of(model) == positions
    length = positions or 50
    with torch.no_grad():
        assert model(input_ids=torch.full((1, length), 5), use_cache=False).logits.shape[1] == length


def test_positions_beyond_a_table_end_in_a_line() -> None:
    model = build("gpt2", n_positions=40, n_embd=32, n_layer=1, n_head=4)
    with pytest.raises(SourceError, match="does not take 50 tokens"):
        score_windows(wrap(model), windows_of(50))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_loss_that_is_no_number_is_an_error(value: float, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = make_model("llama")
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight *= value
    save(model, tmp_path / "m")
    make_tokenizer().save_pretrained(tmp_path / "m")
    (tmp_path / "t.txt").write_text("the cat sat on the mat. " * 9)
    for _ in range(2):  # nothing of it is kept to go on from
        assert main(["loss", str(tmp_path / "m"), "--corpus", str(tmp_path / "t.txt"), "--json"]) == 2
        captured = capsys.readouterr()
        assert "expected a finite number" in captured.err
        assert not captured.out


def test_control_tokens_written_in_a_text_are_text() -> None:
    tokenizer = make_tokenizer()
    (window,) = cut_windows([Document("0", "the cat</s> sat<s> on <pad>")], tokenizer, context=64)
    assert window.tokens[0] == tokenizer.bos_token_id
    assert not set(window.tokens[1:]) & set(tokenizer.all_special_ids)
    assert window.n_bytes == len("the cat</s> sat<s> on <pad>")
