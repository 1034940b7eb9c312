"""Which reader opens which kind of weight file, by its suffix: the place where a new format is made known."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from llmprobe.errors import ConfigError
from llmprobe.weights.byte_source import ByteSource
from llmprobe.weights.safetensors import SafetensorsFile
from llmprobe.weights.tensor import StoredTensor
from llmprobe.weights.torch_zip import TorchZipFile

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\.\w+)")


@runtime_checkable
class WeightFile(Protocol):
    """Tensors by name in one file: what the reader of a format has to offer."""

    def names(self) -> list[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def read(self, name: str) -> StoredTensor: ...


FORMATS: dict[str, Callable[[ByteSource], WeightFile]] = {".safetensors": SafetensorsFile, ".bin": TorchZipFile}
"""Readers by suffix, in the order in which a folder without an index is searched."""


def register_format(suffix: str, reader: Callable[[ByteSource], WeightFile]) -> None:
    """Have files of a suffix opened by a reader, in folders, at the Hub and by themselves.

    Parameters
    ----------
    suffix
        With its dot: ``.json``.
    reader
        Opens a file: a class over a `ByteSource`.

    Raises
    ------
    ConfigError
        The suffix has no dot, or a reader already.
    """
    if not suffix.startswith("."):
        raise ConfigError(f"the suffix {suffix!r}", expected="a suffix with its dot, as .json")
    if suffix in (*FORMATS, ".gguf"):
        raise ConfigError(f"the suffix {suffix} has a reader already", fix="give your files another suffix")
    FORMATS[suffix] = reader
