"""Load a causal language model and its tokenizer with transformers, from any source.

A GGUF file is dequantized once and kept as safetensors in the cache, so that it loads in a moment afterwards.
No repository's own code is ever run (`trust_remote_code` stays off).
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import cached_file

from llmprobe.cache import cache_dir
from llmprobe.conversions import build_once
from llmprobe.device import pick_device
from llmprobe.errors import ConfigError, SourceError, first_line
from llmprobe.loss.limits import positions_of
from llmprobe.loss.loading import check_whole, load_config, load_whole, quiet
from llmprobe.weights.checkpoint import refuse_pointers
from llmprobe.weights.fingerprint import fingerprint
from llmprobe.weights.gguf_checkpoint import gguf_parts, local_gguf
from llmprobe.weights.gguf_header import read_header
from llmprobe.weights.source import Source, parse_source

log = logging.getLogger(__name__)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Has a GGUF file read into plain weights; before 5.17, transformers knew no other way to read one.
PLAIN: dict[str, Any] = (
    {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
)


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model ready to be evaluated; `load_model` makes it.

    Attributes
    ----------
    model
        As transformers loads it, in evaluation mode.
    tokenizer
        Its tokenizer, as transformers loads it.
    source
        As asked for.
    revision
        The commit that was read, empty for local files.
    dtype
        Name of the type it computes in.
    device
        Name of the device it computes on.
    positions
        Longest input it takes, in tokens, or None if nothing bounds it.

    Examples
    --------
    >>> from llmprobe import load_model
    >>> model = load_model("tiny", device="cpu")
    >>> model.width, model.positions
    (32, 64)
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    source: str
    revision: str
    dtype: str
    device: str
    positions: int | None

    @property
    def width(self) -> int:
        """Width m of its unembedding (OPT-350m's is 512 where its layers are 1024 wide)."""
        return int(self.model.get_output_embeddings().weight.shape[1])


def load_model(source: str, *, dtype: str = "float32", device: str = "auto") -> LanguageModel:
    """Load a model and its tokenizer.

    Parameters
    ----------
    source
        As for `read_unembedding`; a bare weight file other than GGUF has no tokenizer and is refused.
    dtype
        ``float32`` for figures that are reported; ``bfloat16`` and ``float16`` are faster and less exact.
    device
        ``auto``, ``cpu``, ``cuda``, ``mps``; with several GPUs ``auto`` spreads the model over them.

    Returns
    -------
    The model in evaluation mode, with every weight loaded from the checkpoint.

    Raises
    ------
    SourceError
        Model or tokenizer cannot be found or read.
    ConfigError
        Unknown dtype or device.

    Examples
    --------
    >>> load_model("tiny", device="cpu").dtype
    'float32'
    """
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype}", expected=f"one of {', '.join(DTYPES)}")
    place, parsed = pick_device(device), parse_source(source)
    folder, revision = _folder(parsed)
    spread = {"device_map": "auto"} if place == "cuda" and torch.cuda.device_count() > 1 else {}
    at = {"revision": revision} if revision else {}
    with quiet():
        config = load_config(source, folder, revision)
        model = load_whole(source, folder, config, dtype=DTYPES[dtype], **at, **spread)
        tokenizer = _tokenizer(source, folder, revision)
    if not spread:
        torch.nn.Module.to(model, place)
    return LanguageModel(
        model=model.eval(),
        tokenizer=tokenizer,
        source=source,
        revision=_commit(folder, revision),
        dtype=dtype,
        device=place,
        positions=positions_of(model),
    )


def load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, without its weights.

    Raises
    ------
    SourceError
        There is none, or it cannot be read.
    """
    return _tokenizer(source, *_folder(parse_source(source)))


def _tokenizer(source: str, folder: str, revision: str) -> PreTrainedTokenizerBase:
    at = {"revision": revision} if revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **at)
        empty = not tokenizer("the quick brown fox", add_special_tokens=False)["input_ids"]
    except Exception as error:  # tokenizers' own errors have no common base
        if "trust_remote_code" in str(error):
            raise SourceError(
                f"the tokenizer of {source} needs code of its own repository, which is never run",
                expected="a tokenizer that transformers has itself",
            ) from error
        raise SourceError(f"{source} has no tokenizer that loads: {first_line(error)}") from error
    if empty:  # transformers makes one out of nothing where files are missing
        raise SourceError(f"{source} has no tokenizer that splits text", fix="save its tokenizer beside the weights")
    tokenizer.model_max_length = int(1e30)  # windows are cut here, so its warning about length would mislead
    return tokenizer


def _commit(folder: str, revision: str) -> str:
    """The commit that a revision stood for when it was read: the name of its folder in the Hub's cache."""
    config = cached_file(folder, "config.json", revision=revision) if revision else None
    return Path(config).parent.name if config else revision


def _folder(source: Source) -> tuple[str, str]:
    """What transformers loads from: a folder on disk, or a repository and its revision."""
    path = source.path
    if path is None:
        return source.repo, source.revision
    refuse_pointers(path)
    if path.is_dir() and (path / "config.json").is_file():
        return str(path), ""
    gguf = local_gguf(path) if path.is_dir() else path
    if gguf is not None and gguf.suffix == ".gguf":
        return str(_converted(gguf)), ""
    raise SourceError(
        f"{path} is not a complete model", expected="a folder with config.json and weights, or a .gguf file"
    )


def _converted(gguf: Path) -> Path:
    """The model in a .gguf file as a folder of float32 safetensors, made at first use."""
    read_header(gguf)  # what is damaged is refused here, before another reader believes it
    identity = f"{gguf.resolve()}|{fingerprint(str(gguf))}"
    folder = cache_dir() / "gguf" / f"{gguf.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    if not folder.exists():
        log.warning("converting %s once; it loads in a second from then on", gguf.name)
    with quiet():
        return build_once(folder, lambda target: _convert(gguf, target))


def _convert(gguf: Path, target: Path) -> None:
    if len(gguf_parts(gguf)) > 1:
        raise SourceError(
            f"{gguf} is split into parts, which no model is loaded from",
            expected="one .gguf file",
            fix="join the parts with llama.cpp's llama-gguf-split --merge",
        )
    where: dict[str, Any] = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    where["trust_remote_code"] = False
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            **where,
            dtype=torch.float32,
            **PLAIN,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(**where)
    except Exception as error:  # readers of a damaged file raise what they will
        raise SourceError(
            f"{gguf} does not load: {first_line(error)}", fix="the file is corrupt or its kind unknown"
        ) from error
    quantized, report = loaded
    check_whole(str(gguf), report)
    # transformers will not save what it loaded as GGUF; the same weights in a plain model it will.
    config = quantized.config
    vars(config).pop("quantization_config", None)
    with torch.device("meta"):
        plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)
