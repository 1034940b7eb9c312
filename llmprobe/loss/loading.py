"""Load a model whole or not at all: every weight from the checkpoint, every weight of the checkpoint in the model.

transformers draws what a checkpoint lacks at random and passes over what it does not know. Here both are refused,
and names that a training wrapper has prefixed are mended. No code of a repository is run.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from llmprobe.errors import SourceError, first_line
from llmprobe.weights.architecture import WRAPPERS, Architecture, common_prefix, text_model, unwrapped
from llmprobe.weights.checkpoint import Checkpoint, open_local

log = logging.getLogger(__name__)
# Buffers that models once stored and now make themselves: rotary tables, causal masks, version marks.
REMADE = re.compile(
    r"(^|\.)(inv_freq|position_ids|masked_bias|causal_mask|(cos|sin)_cached|(attn|attention|self_attn)\.bias|version)$"
)
KERNEL_KEYS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")


def load_config(source: str, place: str, revision: str) -> PreTrainedConfig:
    """The configuration of a model.

    Raises
    ------
    SourceError
        There is none that transformers knows, or it asks for code of a repository.
    """
    at = {"revision": revision} if revision else {}
    try:
        path = cached_file(place, "config.json", **at)
        table = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError) as error:
        raise not_a_model(source, error) from error
    foreign = sorted(_kernels(table))
    if Path(place, "adapter_config.json").is_file():
        raise SourceError(
            f"{source} holds an adapter beside its weights",
            expected="the weights of one model",
            fix="merge the adapter into its model, or measure the model without it from a folder of its own",
        )
    if foreign:
        raise SourceError(
            f"{source} asks for the kernel {foreign[0]} of a repository, which is not run",
            expected="an attention of transformers' own",
            fix="take it out of config.json",
        )
    if "auto_map" in table:
        log.warning("%s brings code of its own, which is not run: what transformers has for it is used", source)
    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=False, **at)
    except Exception as error:  # whatever a configuration of any kind raises, it is this file that is wrong
        raise not_a_model(source, error) from error


def load_whole(source: str, place: str, config: PreTrainedConfig, **options: Any) -> PreTrainedModel:
    """The model, if the checkpoint holds exactly its weights.

    Parameters
    ----------
    source
        What to call it in errors.
    place
        Folder or repository, as `from_pretrained` takes it.
    options
        Passed on to `from_pretrained`.

    Raises
    ------
    SourceError
        It does not load; weights are missing, of other shapes or left over; or it gives no logits for text.
    """
    found = text_model(config)
    if found is None:
        raise SourceError(
            f"{source} is a {config.model_type}, which gives no next-token logits for text",
            expected="a causal language model, or a vision–language model that transformers knows",
        )
    kind, config = found
    options |= {"config": config, "trust_remote_code": False, "output_loading_info": True}
    model, report = _load(source, kind, place, **options)
    checkpoint = _checkpoint(place, options.get("revision", ""))
    if mends := _mends(report["unexpected_keys"], checkpoint):
        model, report = _load(source, kind, place, key_mapping=dict.fromkeys(mends, ""), **options)
    check_whole(source, report)
    _restore_embeddings(model, checkpoint)
    return model


def check_whole(source: str, report: Mapping[str, Any]) -> None:
    """Refuse a model that loading has not filled exactly; `report` is transformers' ``output_loading_info``.

    Raises
    ------
    SourceError
        Weights are missing, of another shape, or left over.
    """
    left_over = {name for name in report["unexpected_keys"] if not REMADE.search(name)}
    mismatched = {name if isinstance(name, str) else name[0] for name in report["mismatched_keys"]}
    for names, problem in (
        (mismatched, "weights of other shapes than its configuration gives"),
        (set(report["missing_keys"]) - mismatched, "no weights for"),
        (left_over, "weights that its architecture has no place for"),
    ):
        if names:
            raise SourceError(
                f"{source} holds {problem}{':' if problem.startswith('weights') else ''} {_some(names)}",
                expected="exactly the weights of its model: the rest would be random or unused",
                fix="check that files and config.json belong together; merge adapters; take unquantized weights",
            )


def not_a_model(source: str, error: Exception) -> SourceError:
    """The error for what does not load."""
    if "conversion of the weights" in str(error):
        return SourceError(
            f"{source} holds weights that do not make up those of its model, such as experts of which some are missing",
            expected="exactly the weights of its model",
            fix="fetch it again",
        )
    if "trust_remote_code" in str(error):
        return SourceError(
            f"{source} needs code of its own repository, which is never run",
            expected="a model that transformers has itself",
        )
    return SourceError(
        f"{source} does not load as a language model: {first_line(error)}",
        expected="a causal model with config.json and weights that transformers knows",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Leave stderr to our own progress and warnings while a model loads: what is reported is checked instead."""
    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _mends(strays: Iterable[str], checkpoint: Checkpoint | None) -> list[str]:
    """Patterns to take out of stored names: of wrappers, and a prefix that all share; none where two would collide."""
    names = list(checkpoint.names()) if checkpoint else []
    bare = [unwrapped(name) for name in names]
    if not strays or len(set(bare)) < len(bare):
        return []
    prefix = common_prefix(bare)
    return [*WRAPPERS, *([f"^{re.escape(prefix)}"] if prefix else [])] if bare != names or prefix else []


def _checkpoint(place: str, revision: str) -> Checkpoint | None:
    """The files that a model is loaded from; None for torch's oldest format, which loads and is not read by parts."""
    config = cached_file(place, "config.json", **({"revision": revision} if revision else {}))
    try:
        return open_local(Path(str(config)).parent)
    except SourceError as error:
        log.warning("names and padding rows are taken as transformers loads them: %s", error)
        return None


def _restore_embeddings(model: PreTrainedModel, checkpoint: Checkpoint | None) -> None:
    """Make embeddings again what the file holds: some models zero the row of the padding token when they are loaded."""
    padded = [
        (name, m) for name, m in model.named_modules() if isinstance(m, nn.Embedding) and m.padding_idx is not None
    ]
    if not padded or checkpoint is None:
        return
    stored = {parameter: name for name, parameter in Architecture(model).parameters_of(checkpoint.names()).items()}
    for name, module in padded:
        table = f"{name}.weight"
        if table in stored and not module.weight.is_meta:
            values = checkpoint.read(stored[table]).values.to(module.weight)
            if values.shape == module.weight.shape and not torch.equal(values, module.weight):
                log.info("%s is put back as it is in the file", table)
                module.weight.data.copy_(values)


def _load(source: str, kind: type[PreTrainedModel], place: str, **options: Any) -> tuple[PreTrainedModel, Any]:
    try:
        loaded: Any = kind.from_pretrained(place, ignore_mismatched_sizes=True, **options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # quantizers, configurations and files each raise errors of their own
        raise not_a_model(source, error) from error
    return loaded[0], loaded[1]


def _kernels(table: Any) -> Iterable[str]:
    """Repositories that a configuration, at any depth, names as the implementation of a layer."""
    if isinstance(table, dict):
        for key, value in table.items():
            if key in KERNEL_KEYS:
                yield from (name for name in _strings(value) if "/" in name)
            else:
                yield from _kernels(value)


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _strings(part)


def _some(names: Iterable[str], most: int = 4) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:most]) + (f" and {len(ordered) - most} more" if len(ordered) > most else "")
