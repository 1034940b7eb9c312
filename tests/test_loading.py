"""A model is loaded whole from its checkpoint or refused in a line, and no code of a repository is run."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_model, make_tokenizer, save
from safetensors.torch import load_file, save_file

from llmprobe.cli import main
from llmprobe.errors import SourceError
from llmprobe.loss.language_model import load_model, load_tokenizer

Tensors = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An untied model with its tokenizer."""
    save(make_model("llama", tied=False), tmp_path / "m")
    make_tokenizer().save_pretrained(tmp_path / "m")
    return tmp_path / "m"


def rewrite(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file({k: v.clone() for k, v in change(load_file(path)).items()}, path, metadata={"format": "pt"})


def configure(folder: Path, **settings: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda table: {name: value for name, value in table.items() if part not in name}


def with_beside(**extra: torch.Tensor) -> Callable[[Tensors], Tensors]:
    return lambda table: table | {name.replace("__", "."): value for name, value in extra.items()}


ONE = torch.ones(1, 32)
NOT_WHOLE: dict[str, Callable[[Tensors], Tensors]] = {
    "no head": without("lm_head"),
    "no layer": without("layers.1"),
    "no norm": without("layers.0.input_layernorm"),
    "a classifier": lambda table: without("lm_head")(table) | {"score.weight": ONE},
    "a second head": with_beside(v_head__weight=ONE),
    "a quantizer's scale": with_beside(model__layers__0__mlp__up_proj__weight_scale=ONE),
    "an adapter": with_beside(model__layers__0__mlp__up_proj__lora_A__weight=ONE),
    "a third layer": lambda table: table | {k.replace("layers.1", "layers.2"): v for k, v in table.items()},
    "a shape": lambda table: table | {"model.norm.weight": torch.ones(16)},
    "the same twice": lambda table: table | {f"_orig_mod.{k}": 2 * v for k, v in table.items()},
    "a wrapper around some": lambda table: {k.replace("layers.0", "layers.0.inner"): v for k, v in table.items()},
}


@pytest.mark.parametrize("case", NOT_WHOLE)
def test_what_is_not_whole_is_refused(case: str, folder: Path) -> None:
    rewrite(folder, NOT_WHOLE[case])
    with pytest.raises(SourceError, match=r"holds (no )?weights"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("layers", [1, 3])
def test_layers_of_configuration_and_file_agree(layers: int, folder: Path) -> None:
    configure(folder, num_hidden_layers=layers)
    with pytest.raises(SourceError, match=r"layers\.[12]"):
        load_model(str(folder), device="cpu")


PREFIXES: dict[str, Callable[[str], str]] = {
    "compiled": lambda name: f"_orig_mod.{name}",
    "data parallel": lambda name: f"module.{name}",
    "compiled in data parallel": lambda name: f"module._orig_mod.{name}",
    "layers compiled one by one": lambda name: name.replace("layers.0", "layers.0._orig_mod"),
    "inside another module": lambda name: f"student.net.{name}",
    "sharded": lambda name: f"_fsdp_wrapped_module.{name}",
}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("case", PREFIXES)
def test_names_of_training_wrappers_are_mended(case: str, tied: bool, tmp_path: Path) -> None:
    model = make_model("llama", tied=tied)
    save(model, tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    rewrite(tmp_path, lambda table: {PREFIXES[case](name): value for name, value in table.items()})
    loaded = load_model(str(tmp_path), device="cpu").model.state_dict()
    assert loaded.keys() == model.state_dict().keys()
    assert all(torch.equal(value, loaded[name]) for name, value in model.state_dict().items())


def test_buffers_of_older_versions_are_no_weights(tmp_path: Path) -> None:
    """Causal masks and rotary tables that models once stored do not stand in the way."""
    save(make_model("gpt2"), tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    masks = {
        "transformer.h.0.attn.bias": torch.ones(1, 1, 8, 8),
        "transformer.h.0.attn.masked_bias": torch.tensor(-1e4),
    }
    rewrite(tmp_path, lambda table: table | masks)
    load_model(str(tmp_path), device="cpu")


def test_adapter_beside_the_weights_is_named(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(SourceError, match="adapter"):
        load_model(str(folder), device="cpu")


def test_kernels_of_a_repository_are_refused(folder: Path) -> None:
    configure(folder, attn_implementation="someone/attention-kernel")
    with pytest.raises(SourceError, match="someone/attention-kernel"):
        load_model(str(folder), device="cpu")


BAD_CONFIGURATIONS: list[dict[str, Any]] = [
    {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    {"quantization_config": 3},
    {"hidden_size": "32"},
    {"num_attention_heads": 5},
    {"num_hidden_layers": None},
    {"dtype": "float99"},
    {"model_type": "t5"},
    {"model_type": "clip"},
    {"model_type": "of-no-one"},
    {"model_type": 7},
]


@pytest.mark.parametrize("settings", BAD_CONFIGURATIONS, ids=str)
def test_configurations_that_do_not_load_end_in_a_line(settings: dict[str, Any], folder: Path) -> None:
    configure(folder, **settings)
    with pytest.raises(SourceError):
        load_model(str(folder), device="cpu")


CODE = "open({mark!r}, 'w').close()\nfrom transformers import {base}\nclass Mine({base}):\n    model_type = 'mine'\n"


def poisoned(folder: Path, mark: Path) -> None:
    """A repository with code for configuration, model and tokenizer, each of which leaves a mark when it runs."""
    bases = {"AutoConfig": "LlamaConfig", "AutoModelForCausalLM": "LlamaForCausalLM"}
    for name, base in {**bases, "AutoTokenizer": "PreTrainedTokenizerFast"}.items():
        (folder / f"{name.lower()}.py").write_text(CODE.format(mark=str(mark), base=base))
    configure(folder, model_type="mine", architectures=["Mine"], auto_map={k: f"{k.lower()}.Mine" for k in bases})
    path = folder / "tokenizer_config.json"
    table = json.loads(path.read_text()) | {"tokenizer_class": "Mine"}
    path.write_text(json.dumps(table | {"auto_map": {"AutoTokenizer": ["autotokenizer.Mine", None]}}))


@pytest.mark.parametrize("command", ["loss", "geometry", "overlap"])
def test_no_code_of_a_repository_runs(
    command: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mark = tmp_path / "ran"
    poisoned(folder, mark)
    answers = io.StringIO("y\n" * 9)
    monkeypatch.setattr(sys, "stdin", answers)
    (tmp_path / "t.txt").write_text("the cat sat on the mat. " * 9)
    corpus = [] if command == "overlap" else ["--corpus", str(tmp_path / "t.txt")]
    status = main([command, str(folder), *corpus, "--json"])
    out = capsys.readouterr().out
    assert not mark.exists()
    assert answers.tell() == 0
    assert "custom code" not in out
    assert status == (0 if command == "overlap" else 2)
    with pytest.raises(SourceError, match="never run"):
        load_tokenizer(str(folder))
