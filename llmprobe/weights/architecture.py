"""What transformers knows of an architecture: the parameters a checkpoint must fill, and which of them is the head.

The model is built from its configuration on the ``meta`` device, where tensors have shapes and no memory, and the
names of a file are taken through the same renamings that loading applies. Nothing of it is guessed from a name.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

log = logging.getLogger(__name__)
# What training wrappers put into the names of what they wrap: data parallelism, compilation, sharding.
WRAPPERS = (
    r"^module\.",
    r"^_forward_module\.",
    r"_orig_mod\.",
    r"_fsdp_wrapped_module\.",
    r"_checkpoint_wrapped_module\.",
)
# What building or running a model raises when its configuration is wrong, or asks for what is not here.
UNBUILDABLE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    RuntimeError,
    ImportError,
    ArithmeticError,
    StrictDataclassError,
)


def text_model(config: PreTrainedConfig) -> tuple[type[PreTrainedModel], PreTrainedConfig] | None:
    """The class that gives next-token logits for text, the one the configuration names or else the causal model.

    With it comes the configuration that it is built from, which may be the text's part of a larger one.
    Vision–language models count where text alone is an input of theirs. None where transformers has neither.
    """
    known: list[Any] = []
    for mapping in (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING):
        if type(config) in mapping:
            found = mapping[type(config)]
            known.extend(found if isinstance(found, tuple) else (found,))
    named = config.architectures or []
    kind = next((kind for kind in known if kind.__name__ in named), known[0] if known else None)
    if kind is None:
        return None
    text = config.get_text_config(decoder=True)
    return kind, text if kind.config_class is type(text) else config


def unwrapped(name: str) -> str:
    """A stored name without what training wrappers put into it."""
    while (bare := re.sub("|".join(WRAPPERS), "", name)) != name:
        name = bare
    return name


def common_prefix(names: Iterable[str]) -> str:
    """The modules that every name begins with, with the dot after them; empty if there are none."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{level[0]}." for level in takewhile(lambda level: len(set(level)) == 1, levels))


@dataclass(frozen=True)
class Architecture:
    """A model without weights.

    Attributes
    ----------
    model
        On the ``meta`` device.
    """

    model: PreTrainedModel

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Architecture | None:
        """The architecture that a ``config.json`` describes; None where transformers does not know or build it."""
        if table.get("model_type") not in CONFIG_MAPPING:
            return None
        try:
            with tempfile.TemporaryDirectory() as folder:  # its own reader knows how it writes infinities
                Path(folder, "config.json").write_text(json.dumps(dict(table)))
                config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
            found = text_model(config)
            if found is None:
                return None
            kind, config = found
            with torch.device("meta"):
                return cls(kind._from_config(config, dtype=torch.bfloat16).eval())
        except UNBUILDABLE as error:
            log.debug("no model can be built from the configuration: %s", error)
            return None

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter and stored buffer by name."""
        return {name: tuple(value.shape) for name, value in self.model.state_dict().items()}

    @cached_property
    def head(self) -> str:
        """Name of the parameter that is the unembedding; empty where the model does not say."""
        return self._weight_of(self.model.get_output_embeddings())

    @cached_property
    def embedding(self) -> str:
        """Name of the parameter that is the input embedding; empty where the model does not say."""
        try:
            return self._weight_of(self.model.get_input_embeddings())
        except NotImplementedError:
            return ""

    @cached_property
    def twins(self) -> frozenset[str]:
        """Parameters that loading ties to the head, the head among them: any one in the file gives them all."""
        ties = self.model.all_tied_weights_keys
        source = ties.get(self.head, self.head)
        return frozenset({self.head, source, *(target for target, other in ties.items() if other == source)})

    def parameters_of(self, names: Iterable[str]) -> dict[str, str]:
        """Which parameter (or its first part) each stored name is loaded into; other names stay as they are."""
        names = list(names)
        prefix = common_prefix(map(unwrapped, names))
        return {name: self._found(name, unwrapped(name), unwrapped(name).removeprefix(prefix)) for name in names}

    def _found(self, *names: str) -> str:
        """The parameter of the first of these names that has one; else what the first becomes."""
        parameters = [self._parameter_of(name) for name in dict.fromkeys(names)]
        return next((parameter for parameter in parameters if parameter in self.shapes), parameters[0])

    def _parameter_of(self, name: str) -> str:
        renamings, converters = self._conversions
        found, _ = rename_source_key(name, renamings, converters, self.model.base_model_prefix, self._state)
        if found not in self.shapes and name in self.shapes:  # as loading does
            found, _ = rename_source_key(name, [], [], self.model.base_model_prefix, self._state)
        return found

    @cached_property
    def _state(self) -> dict[str, torch.Tensor]:
        return self.model.state_dict()

    @cached_property
    def _conversions(self) -> tuple[list[WeightRenaming], list[WeightConverter]]:
        every = get_model_conversion_mapping(self.model)
        return (
            [entry for entry in every if isinstance(entry, WeightRenaming)],
            [entry for entry in every if isinstance(entry, WeightConverter)],
        )

    def _weight_of(self, module: nn.Module | None) -> str:
        names = [name for name, other in self.model.named_modules(remove_duplicate=False) if other is module]
        return f"{names[0]}.weight" if names and f"{names[0]}.weight" in self.shapes else ""
