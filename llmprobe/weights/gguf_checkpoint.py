"""A checkpoint in one .gguf file, or in the parts that it was split into."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmprobe.errors import SourceError
from llmprobe.weights.formats import PART
from llmprobe.weights.gguf import GgufFile
from llmprobe.weights.tensor import StoredTensor


class GgufCheckpoint:
    """A checkpoint in one .gguf file, or in all the parts that it was split into.

    Raises
    ------
    SourceError
        A part is missing.
    """

    revision = missing = ""

    def __init__(self, path: Path) -> None:
        parts = [GgufFile(part) for part in gguf_parts(path)]
        self._where = {name: part for part in parts for name in part.names()}
        self._parts, self.label = parts, str(path)
        self.config: dict[str, Any] = {"model_type": parts[0].architecture, "format": "gguf"}

    @property
    def bytes_read(self) -> int:
        return sum(part.bytes_read for part in self._parts)

    def names(self) -> Sequence[str]:
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._where[name].shape(name)

    def read(self, name: str) -> StoredTensor:
        return self._where[name].read(name)


def gguf_parts(path: Path) -> list[Path]:
    """The files that a .gguf file belongs to, in order: itself, or all the parts that it is one of.

    Raises
    ------
    SourceError
        Not all of them are there.
    """
    match = PART.fullmatch(path.name)
    count = GgufFile(path).split_count
    if match is None or count < 2:
        if count > 1:
            raise SourceError(
                f"{path} is one of {count} parts",
                expected=f"a name that ends in -00001-of-{count:05}.gguf and all parts beside it",
                fix="give the parts the names they were published under",
            )
        return [path]
    width = len(match["number"])
    parts = [path.with_name(f"{match['stem']}-{i:0{width}}-of-{match['count']}.gguf") for i in range(1, count + 1)]
    absent = [part.name for part in parts if not part.is_file()]
    if absent:
        raise SourceError(f"{path} is one of {count} parts; {', '.join(absent[:3])} not there", fix="fetch every part")
    return parts


def local_gguf(path: Path) -> Path | None:
    """The .gguf model of a folder, by its first part; None where the folder holds other weights or no .gguf file.

    Raises
    ------
    SourceError
        It holds several models.
    """
    files = sorted(path.glob("*.gguf"))
    if not files or any(path.glob("*.safetensors")) or any(path.glob("*.bin")):
        return None
    models = {PART.sub(r"\g<stem>", file.name): file for file in reversed(files)}
    if len(models) > 1:
        raise SourceError(
            f"{path} holds {len(models)} .gguf models: {', '.join(sorted(file.name for file in models.values())[:4])}",
            expected="one",
            fix="name the file",
        )
    return files[0]
