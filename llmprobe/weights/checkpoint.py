"""A checkpoint: every tensor of a model by name, whatever files it is spread over.

A folder on disk and a repository at the Hub are both trees of files, so one class serves both: the index json
says which shard holds a tensor, and only that shard's header is opened.
"""

from __future__ import annotations

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


# In the order to try: an index, then the file it would index; safetensors before .bin.
LAYOUTS = (
    ("model.safetensors.index.json", "model.safetensors"),
    ("pytorch_model.bin.index.json", "pytorch_model.bin"),
)
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
    """

    label: str
    revision: str
    config: dict[str, Any]

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
        for index, single in LAYOUTS:
            if index in self._present:
                return {name: self._inside(str(file)) for name, file in self._weight_map(index).items()}
            if single in self._present:
                return dict.fromkeys(self._file(single).names(), single)
        loose = sorted(name for name in self._present if name.endswith(".safetensors"))
        if not loose:
            raise SourceError(
                f"{self.label} holds no weights ({len(self._present)} files)",
                expected="model.safetensors, pytorch_model.bin, an index of shards, or a .gguf file",
                fix="name the folder or file that holds them",
            )
        return {name: file for file in loose for name in self._file(file).names()}

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
            raise SourceError(f"{name} of {self.label} is no JSON object", fix="download it again")
        return table


class GgufCheckpoint:
    """A checkpoint in one .gguf file."""

    revision = ""

    def __init__(self, path: Path) -> None:
        self._file = GgufFile(path)
        self.label = str(path)
        self.config: dict[str, Any] = {"model_type": self._file.architecture, "format": "gguf"}
        self.names, self.shape, self.read = self._file.names, self._file.shape, self._file.read

    @property
    def bytes_read(self) -> int:
        return self._file.bytes_read


def open_local(path: Path) -> Checkpoint:
    """The checkpoint in a local folder or file.

    Raises
    ------
    SourceError
        There is nothing there, or nothing that holds weights.
    """
    if not path.exists():
        raise SourceError(f"{path} does not exist", expected="a folder, a .safetensors or a .gguf file")
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1 and not any(path.glob("*.safetensors")) and not any(path.glob("*.bin")):
            return GgufCheckpoint(files[0])
        return TreeCheckpoint(LocalTree(path))
    if path.suffix == ".gguf":
        return GgufCheckpoint(path)
    if path.suffix in FORMATS:
        return _SingleFile(LocalTree(path))
    raise SourceError(f"{path} is no known kind of file", expected="a folder, a .safetensors, .bin or .gguf file")


class _SingleFile(TreeCheckpoint):
    """One weight file by itself, whatever its name."""

    def _locate(self) -> dict[str, str]:
        (name,) = self._present
        return dict.fromkeys(self._file(name).names(), name)
