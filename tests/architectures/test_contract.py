"""The contract of weights and losses, over every architecture of which transformers builds a tiny model.

The oracle is the model itself, from which the files are written: its output embedding, its logits of one window at a
time, and the rule that a file without one of its tensors is no file of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import make_tokenizer
from safetensors.torch import load_file, save_file
from tiny import CAUSAL, LOOKING_AHEAD, N, tiny_model
from vision_language import MODELS, tiny_vision_language

from llmprobe.errors import SourceError
from llmprobe.loss.language_model import LanguageModel
from llmprobe.loss.limits import positions_of
from llmprobe.loss.loading import load_config, load_whole, quiet
from llmprobe.loss.scoring import score_windows
from llmprobe.loss.windows import Window
from llmprobe.weights.unembedding import read_unembedding

TOKENIZER = make_tokenizer()
BUILDERS: dict[str, Callable[[], Any]] = {name: lambda name=name: tiny_model(name) for name in CAUSAL}
BUILDERS |= {f"{name}-vision": lambda name=name: tiny_vision_language(name) for name in MODELS}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    quiet()


HANDFUL = ("llama", "gpt2", "gemma2", "mixtral", "mamba", "youtu", "llava-vision")  # of the main suite
EVERY = [name if name in HANDFUL else pytest.param(name, marks=pytest.mark.architectures) for name in BUILDERS]


@pytest.mark.parametrize("architecture", EVERY)
def test_head_loss_and_every_weight(architecture: str, tmp_path: Path) -> None:
    model = BUILDERS[architecture]()
    model.save_pretrained(tmp_path)
    _head_is_the_models(model, tmp_path)
    loaded = load_whole(architecture, str(tmp_path), load_config(architecture, str(tmp_path), ""), dtype=torch.float32)
    _loss_is_the_models(architecture, model, loaded)
    _every_weight_counts(architecture, model, tmp_path)


def _head_is_the_models(model: Any, folder: Path) -> None:
    found, head = read_unembedding(str(folder)), model.get_output_embeddings().weight
    assert torch.equal(found.W, head)
    assert found.tied == (head.data_ptr() == model.get_input_embeddings().weight.data_ptr())


def _loss_is_the_models(architecture: str, model: Any, loaded: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    windows = [Window(i, (1, *_draw(n, draw)), n) for i, n in enumerate((20, 12, 20, 3))]
    scored = LanguageModel(loaded, TOKENIZER, architecture, "", "float32", "cpu", positions_of(loaded))
    if architecture in LOOKING_AHEAD:
        with pytest.raises(SourceError, match="looks ahead"):
            score_windows(scored, windows)
        return
    for window, nll in zip(windows, score_windows(scored, windows, batch_tokens=64).nll, strict=True):
        ids = torch.tensor([window.tokens])
        with torch.no_grad():
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0].double()
        expected = -torch.log_softmax(logits, -1).gather(1, ids[0, 1:, None]).sum()
        assert nll == pytest.approx(float(expected), rel=1e-5)
    if scored.positions is not None and architecture != "prophetnet":  # which looks up the position after the last
        with torch.no_grad():
            model(input_ids=torch.full((1, scored.positions), 5), use_cache=False)


def _every_weight_counts(architecture: str, model: Any, folder: Path) -> None:
    """Files without one tensor are refused; so is a file whose head has another name, as head and as model."""
    path = folder / "model.safetensors"
    table, config = load_file(path), load_config(architecture, str(folder), "")
    kinds = {re.sub(r"\d+", "0", name): name for name in table}  # layers are alike: one tensor of each kind
    head = read_unembedding(str(folder)).tensor
    for name in kinds.values():
        save_file({other: value for other, value in table.items() if other != name}, path, metadata={"format": "pt"})
        try:
            load_whole(architecture, str(folder), config, dtype=torch.float32)
        except SourceError as error:
            assert re.search("holds (no )?weights", str(error))  # noqa: PT017
        else:
            pytest.fail(f"{name} is missing, and the model was loaded")
    renamed = {"renamed.matrix" if name == head else name: value for name, value in table.items()}
    save_file(renamed, path, metadata={"format": "pt"})
    with pytest.raises(SourceError, match="does not hold the unembedding"):
        read_unembedding(str(folder))


def _draw(n: int, draw: torch.Generator) -> list[int]:
    return torch.randint(3, N - 16, (n,), generator=draw).tolist()
