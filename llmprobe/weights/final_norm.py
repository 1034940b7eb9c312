"""The gain of the final norm by the model's own code: which module's output the head is given, how it is multiplied.

The model runs once on the ``meta`` device, where nothing is computed, up to its head. The norm's code, run on a few
numbers, says whether the gain is stored as it is or minus one.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmprobe.weights.architecture import UNBUILDABLE, Architecture

TOKENS = 8


class _ReachedHead(Exception):  # noqa: N818 - a signal, not an error
    """The forward pass has come to the head."""


def final_norm(architecture: Architecture) -> tuple[str, nn.Module] | None:
    """Name and module of the norm whose output is the head's input; None where that cannot be shown."""
    mask = torch.ones(1, 1, TOKENS, TOKENS, dtype=torch.bool, device="meta")  # without one, some look into its values
    masked = {"attention_mask": mask}
    # Before transformers 5.20, OPT counts positions in the mask, which must have two dimensions then, or gets them.
    placed = masked | {"position_ids": torch.arange(TOKENS, device="meta")[None]}
    for dtype, given in ((torch.bfloat16, masked), (torch.bfloat16, {}), (torch.float32, {}), (torch.bfloat16, placed)):
        try:
            torch.nn.Module.to(architecture.model, dtype)
            calls = _calls_before_head(architecture.model, given)
        except UNBUILDABLE:
            continue
        found = _last_norm(calls)
        if found is not None:
            return found
    return None


def _last_norm(calls: list[tuple[str, nn.Module, Any]]) -> tuple[str, nn.Module] | None:
    """The last module with a gain, if what it gave is what the head was given."""
    for name, module, output in reversed(calls[:-1]):
        gain = getattr(module, "weight", None)
        if isinstance(gain, Tensor) and gain.ndim == 1 and isinstance(output, Tensor):
            return (name, module) if _same(calls[-1][2], output) else None
    return None


def gain_offset(norm: nn.Module) -> float | None:
    """What the norm's code adds to its stored gain: 0, 1 where the gain is stored minus one; None if neither."""
    norm = copy.deepcopy(norm).to_empty(device="cpu").float()
    gain = norm.get_parameter("weight")
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.zero_()
        x = torch.linspace(-1.5, 2.0, gain.numel())[None]
        at_zero = norm(x)
        gain.fill_(1.0)
        at_one = norm(x)
    for offset in (0.0, 1.0):
        if torch.allclose(at_zero * (1 + offset), at_one * offset, rtol=1e-4, atol=1e-6) and at_one.any():
            return offset
    return None


def _same(given: Tensor, output: Tensor) -> bool:
    """Whether one is the other, or both are views of one tensor."""
    root = given if given._base is None else given._base
    return root is (output if output._base is None else output._base)


def _calls_before_head(model: PreTrainedModel, given: dict[str, Tensor]) -> list[tuple[str, nn.Module, Any]]:
    """Modules in the order they were run, with what each gave; the last is the head with what it was given."""
    calls: list[tuple[str, nn.Module, Any]] = []

    def given_to_head(head: nn.Module, inputs: tuple[Any, ...]) -> None:
        calls.append(("", head, inputs[0]))
        raise _ReachedHead

    hooks = [
        module.register_forward_hook(lambda m, _, output, name=name: calls.append((name, m, output)))
        for name, module in model.named_modules()
    ]
    hooks.append(model.get_output_embeddings().register_forward_pre_hook(given_to_head))
    ids = torch.zeros(1, TOKENS, dtype=torch.long, device="meta")
    try:
        with torch.no_grad():
            model(input_ids=ids, use_cache=False, **given)
    except _ReachedHead:
        return calls
    finally:
        for hook in hooks:
            hook.remove()
    raise ValueError("the model does not call its head")
