"""What a loss asks of a model: it does not look ahead, it has the positions, and no window sees its neighbours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from llmprobe.errors import SourceError

# Names that configurations have for the longest input.
STATED = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "max_target_positions",
    "context_length",
    "seq_length",
    "n_ctx",
)
TABLE = re.compile(r"(^|\.)(wpe|embed_positions|positions_embed|pos_embed\w*|position_embed\w*)$")
OTHER_SENSES = re.compile(r"vision|visual|image|audio|speech")
GROWING = ("dynamic", "longrope")  # rotary kinds whose frequencies depend on the longest row of a batch
PROBE = 32  # tokens that the look ahead is tried with
LOOKAHEAD = {torch.float32: 1e-5}  # of the largest logit; sums in another order stay well below
COARSE = 2e-2  # the same for bfloat16 and float16


def positions_of(network: PreTrainedModel) -> int | None:
    """Tokens of the longest input: the least of what the configuration states and the position tables hold."""
    config = network.config.get_text_config(decoder=True)
    stated = [value for name in STATED if isinstance(value := getattr(config, name, None), int) and value > 0]
    return min([*stated, *_tables(network)], default=None)


def depends_on_length(network: PreTrainedModel) -> bool:
    """Whether, by its configuration, tokens get other logits in a longer row: at lengths that no try would see."""
    return any(kind in rope for rope in _rope_kinds(network.config.to_dict()) for kind in GROWING)


def position_reset(network: PreTrainedModel) -> Callable[[], None]:
    """A function that forgets how long earlier inputs were: rotary tables as they are now."""
    state = {
        module: {name: value.clone() if isinstance(value, Tensor) else value for name, value in _rotary(module)}
        for module in network.modules()
        if hasattr(module, "rope_type")
    }

    def reset() -> None:
        for module, values in state.items():
            for name, value in values.items():
                setattr(module, name, value.clone() if isinstance(value, Tensor) else value)

    return reset


def check_causal(network: PreTrainedModel, ids: Int[Tensor, " t"], source: str) -> bool:
    """Refuse a model whose earlier logits change with a later token; say whether they stay when there is none.

    Parameters
    ----------
    ids
        Tokens of a text, on the model's device.
    source
        What to call the model.

    Returns
    -------
    bool
        False if tokens get other logits in a longer row: windows of different lengths must not share a batch.

    Raises
    ------
    SourceError
        They change: its next-token loss would be that of a model that has seen the answer.
    """
    ids = ids[:PROBE]
    half = len(ids) // 2
    if not half:
        return True
    later = _other(ids[half:], ids[0])
    with torch.inference_mode():
        whole, changed, alone = (
            network(input_ids=row[None], use_cache=False).logits[0, :half].float()
            for row in (ids, torch.cat([ids[:half], later]), ids[:half])
        )
    if _differ(whole, changed, network.dtype):
        raise SourceError(
            f"{source} looks ahead: a later token changes an earlier logit",
            expected="a causal language model",
            fix="an encoder or masked model has no next-token loss",
        )
    return not _differ(whole, alone, network.dtype)


def _other(ids: Int[Tensor, " t"], first: Tensor) -> Int[Tensor, " t"]:
    """Other tokens in their place, of the same text where it has any: some tokens do not stand for text."""
    ways = (ids.flip(0), ids.roll(1), first.expand(len(ids)), ids - 1)
    return next((way for way in ways if not torch.equal(way, ids)), ids).abs()


def _differ(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether finite logits differ by more than rounding; a loss that is not finite is refused where it arises."""
    finite = a.isfinite() & b.isfinite()
    if not finite.any():
        return False
    allowed = LOOKAHEAD.get(dtype, COARSE) * float(a[finite].abs().max())
    return float((a - b)[finite].abs().max()) > allowed


def _tables(network: PreTrainedModel) -> Iterator[int]:
    """Positions in each table of learned position embeddings; some begin with rows that no position uses."""
    for name, module in network.named_modules():
        if isinstance(module, nn.Embedding) and TABLE.search(name) and not OTHER_SENSES.search(name):
            unused = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            yield module.num_embeddings - int(unused)


def _rope_kinds(table: Any) -> Iterator[str]:
    if isinstance(table, Mapping):
        for key, value in table.items():
            if key in ("rope_type", "type") and isinstance(value, str):
                yield value
            else:
                yield from _rope_kinds(value)


def _rotary(module: nn.Module) -> list[tuple[str, Any]]:
    """What a rotary embedding changes as inputs grow."""
    names = [*vars(module), *module._buffers]
    return [
        (name, getattr(module, name))
        for name in dict.fromkeys(names)
        if name.endswith(("inv_freq", "max_seq_len_cached", "attention_scaling"))
    ]
