"""A checkpoint: every tensor of a model by name, whatever files it is spread over.

A folder on disk and a repository at the Hub are both trees of files, so one class serves both: the index json
says which shard holds a tensor, and only that shard's header is opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import ByteSource, FileTree, LocalTree, parsed_json
from llmprobe.weights.gguf import GgufFile
from llmprobe.weights.safetensors import SafetensorsFile
from llmprobe.weights.tensor import StoredTensor
from llmprobe.weights.torch_zip import TorchZipFile

JSON_LIMIT = 100 << 20


@runtime_checkable
class WeightFile(Protocol):
    """Tensors by name in one file; what a new format has to offer."""

    def names(self) -> list[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def read(self, name: str) -> StoredTensor: ...


# In transformers' order, so that the matrix read is the one a model would be loaded with: a file before the index of
# its shards, safetensors before .bin.
LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)(?P<suffix>\.\w+)")
OTHERS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "adapter_model.bin", "adapter_model.safetensors")
FORMATS: dict[str, Callable[[ByteSource], WeightFile]] = {".safetensors": SafetensorsFile, ".bin": TorchZipFile}


@runtime_checkable
class Checkpoint(Protocol):
    """Tensors by name.

    Attributes
    ----------
    label, revision
        What to call it in errors; the commit it stands at, empty for local files.
    config
        ``config.json``, or what stands for it; empty if there is none.
    bytes_read
        Bytes of weight files fetched so far.
    missing
        Parts of the model that are not here, in words; empty if it is whole.
    """

    label: str
    revision: str
    config: dict[str, Any]
    missing: str

    @property
    def bytes_read(self) -> int: ...
    def names(self) -> Sequence[str]: ...
    def shape(self, name: str) -> tuple[int, ...]: ...
    def read(self, name: str) -> StoredTensor: ...


class TreeCheckpoint:
    """A checkpoint in a tree of safetensors or .bin files, single or sharded.

    Raises
    ------
    SourceError
        The tree holds no weights, or an index names a file outside it.
    """

    def __init__(self, tree: FileTree) -> None:
        self.tree, self.label, self.revision = tree, tree.label, tree.revision
        self._present = set(tree.names())
        self._sources: list[ByteSource] = []
        self._open: dict[str, WeightFile] = {}
        self.config = self._json("config.json") if "config.json" in self._present else {}
        self.missing = ""
        self._where = self._locate()

    @property
    def bytes_read(self) -> int:
        return sum(source.bytes_read for source in self._sources)

    def names(self) -> Sequence[str]:
        return list(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file(self._where[name]).shape(name)

    def read(self, name: str) -> StoredTensor:
        file = self._file(self._where[name])
        if name not in file.names():
            raise SourceError(
                f"{self._where[name]} of {self.label} does not hold {name}",
                expected="what the index says",
                fix="the download is incomplete: fetch it again",
            )
        return file.read(name)

    def _locate(self) -> dict[str, str]:
        """Which file holds each tensor."""
        for single, index in self._layouts():
            if single in self._present and not single.endswith(".json"):
                return dict.fromkeys(self._file(single).names(), single)
            if index in self._present:
                return {name: self._inside(str(file)) for name, file in self._weight_map(index).items()}
        # Files without an index: as many as there are in the first format that has any.
        for suffix in FORMATS:
            loose = sorted(name for name in self._present if name.endswith(suffix) and not _is_other(name))
            if loose:
                _check_parts(self.label, loose)
                return {name: file for file in loose for name in self._file(file).names()}
        if ggufs := sorted(name for name in self._present if name.endswith(".gguf")):
            raise SourceError(
                f"{self.label} holds .gguf files only: {', '.join(ggufs[:4])}",
                expected="safetensors or .bin weights",
                fix="download the .gguf file that you want, and name that file",
            )
        raise SourceError(
            f"{self.label} holds no weights ({len(self._present)} files)",
            expected="model.safetensors, pytorch_model.bin, an index of shards, or a .gguf file",
            fix="name the folder or file that holds them",
        )

    def _layouts(self) -> list[tuple[str, str]]:
        """Pairs of a file and an index in the order to try; a configuration may name one of its own."""
        named = self.config.get("transformers_weights")
        return [(self._inside(named), self._inside(named))] if isinstance(named, str) else list(LAYOUTS)

    def _weight_map(self, index: str) -> Mapping[str, str]:
        table = self._json(index).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise SourceError(
                f"{index} of {self.label} has no weight_map", fix="the file is corrupt: download it again"
            )
        return table

    def _inside(self, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file or ":" in file:
            raise SourceError(
                f"the index of {self.label} names {file!r}, outside the checkpoint", fix="do not trust it"
            )
        return file

    def _file(self, name: str) -> WeightFile:
        if name not in self._open:
            if name not in self._present:
                raise SourceError(f"{self.label} lacks {name}, which its index names", fix="fetch it again")
            reader = FORMATS.get(PurePosixPath(name).suffix)
            if reader is None:
                raise SourceError(f"the index of {self.label} names {name}", expected=f"one of {', '.join(FORMATS)}")
            source = self.tree.open(name)
            self._sources.append(source)
            self._open[name] = reader(source)
        return self._open[name]

    def _json(self, name: str) -> dict[str, Any]:
        source = self.tree.open(name)
        if source.size > JSON_LIMIT:
            raise SourceError(f"{name} of {self.label} has {source.size} bytes", expected=f"at most {JSON_LIMIT}")
        table = parsed_json(source, source.read(0, source.size))
        if not isinstance(table, dict):
            raise SourceError(f"{name} of {self.label} is not a JSON object", fix="download it again")
        return table


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


def open_local(path: Path) -> Checkpoint:
    """The checkpoint in a local folder or file.

    Raises
    ------
    SourceError
        There is nothing there, or nothing that holds weights.
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist", expected="a folder, a .safetensors or a .gguf file")
    refuse_pointers(path)
    if path.is_dir():
        gguf = local_gguf(path)
        return TreeCheckpoint(LocalTree(path)) if gguf is None else GgufCheckpoint(gguf)
    if path.suffix == ".gguf":
        return GgufCheckpoint(path)
    if path.suffix in FORMATS:
        return _SingleFile(LocalTree(path))
    raise SourceError(f"{path} has an unknown file type", expected="a folder, a .safetensors, .bin or .gguf file")


class _SingleFile(TreeCheckpoint):
    """One weight file by itself, whatever its name."""

    def _locate(self) -> dict[str, str]:
        (name,) = self._present
        if (part := PART.fullmatch(name)) and int(part["count"]) > 1:
            self.missing = f"the other parts of {int(part['count'])}"
        return dict.fromkeys(self._file(name).names(), name)


def refuse_pointers(path: Path) -> None:
    """Refuse weights of which only the notes are here that Git LFS puts in their place.

    Raises
    ------
    SourceError
        A file of weights, or one in a folder, is such a note.
    """
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.suffix not in (*FORMATS, ".gguf") or not file.is_file() or file.stat().st_size > 1024:
            continue
        if file.read_bytes().startswith(b"version https://git-lfs"):
            raise SourceError(
                f"{file} is a Git LFS pointer, not the weights themselves",
                expected="the file that it stands for",
                fix="run git lfs pull in its repository",
            )


def _is_other(name: str) -> bool:
    """Whether a file of weights holds no model: training state, an adapter."""
    return PurePosixPath(name).name in OTHERS


def _check_parts(label: str, files: Sequence[str]) -> None:
    """Refuse numbered files that are not all there."""
    for part in filter(None, map(PART.fullmatch, files)):
        present = {int(other["number"]) for other in filter(None, map(PART.fullmatch, files))}
        absent = set(range(1, int(part["count"]) + 1)) - present
        if absent:
            raise SourceError(
                f"{label} has no index and lacks part {min(absent)} of {int(part['count'])}",
                expected="every part, or an index of them",
                fix="fetch the model again",
            )
