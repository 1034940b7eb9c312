"""A family's table from configurations and headers: equal to what transformers counts, and headers alone are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from checkpoints import make_model, make_tokenizer, save
from loopback_hub import LoopbackHub
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from llmprobe.cli import main
from llmprobe.families import load_families
from llmprobe.weights.safetensors import FRONT

KINDS = (
    "llama",
    "gpt2",
    "gpt_neox",
    "opt",
    "opt-350m",
    "qwen2",
    "gemma2",
    "olmo2",
    "bloom",
    "falcon",
    "mistral",
    "phi",
)


@pytest.mark.parametrize("kind", KINDS)
def test_facts_equal_those_of_the_loaded_model(
    kind: str, tmp_path: Path, hub: LoopbackHub, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model(kind)
    folder = save(model, tmp_path / "m")
    make_tokenizer().save_pretrained(folder)
    hub.add(f"me/{kind}", folder)
    assert main(["family", "mine", f"me/{kind}", "--output", str(tmp_path / "mine.toml"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    (member,) = load_families(str(tmp_path / "mine.toml"))["mine"].members
    head, embedding = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    total = sum(p.numel() for p in model.parameters())
    tied = head.data_ptr() == embedding.data_ptr()
    config = model.config.get_text_config()
    assert (member.rows, member.m) == tuple(head.shape)
    assert (member.layers, member.d_model or member.m) == (config.num_hidden_layers, config.hidden_size)
    assert (member.tied, member.params) == (tied, total)
    assert member.non_embedding == total - head.numel() - (0 if tied else embedding.numel())
    positions = [p.numel() for n, p in model.named_parameters() if "wpe" in n or "embed_positions" in n]
    assert member.position == sum(positions)
    assert load_families(str(tmp_path / "mine.toml"))["mine"].vocabulary == len(AutoTokenizer.from_pretrained(folder))
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert row["bytes_read"] <= max(FRONT, size - weights)


def test_what_cannot_be_known_is_refused(tmp_path: Path, empty_cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save(make_model("llama"), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "not_of_this_world"}))
    assert main(["family", "mine", str(folder)]) == 2
    assert "cannot be known" in capsys.readouterr().err
    (folder / "config.json").write_text(json.dumps(config))
    table = load_file(folder / "model.safetensors")
    del table["model.layers.1.mlp.up_proj.weight"]
    save_file(table, folder / "model.safetensors", {"format": "pt"})
    assert main(["family", "mine", str(folder)]) == 2
    assert "lack model.layers.1.mlp.up_proj.weight" in capsys.readouterr().err


def test_names_are_quoted_where_toml_wants_it(
    tmp_path: Path, empty_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save(make_model("llama"), tmp_path / 'a "b" c')
    assert main(["family", "my family", str(folder)]) == 0
    (tmp_path / "t.toml").write_text(capsys.readouterr().out)
    (member,) = load_families(str(tmp_path / "t.toml"))["my family"].members
    assert member.id == str(folder)
