"""A checkpoint: every tensor of a model by name, whatever files it is spread over.

A folder on disk and a repository at the Hub are both trees of files, so one class serves both: the index json
says which shard holds a tensor, and only that shard's header is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

from llmprobe.errors import SourceError
from llmprobe.weights.byte_source import ByteSource, FileTree, LocalTree, parsed_json
from llmprobe.weights.formats import FORMATS, PART, WeightFile
from llmprobe.weights.gguf_checkpoint import GgufCheckpoint, local_gguf
from llmprobe.weights.tensor import StoredTensor

JSON_LIMIT = 100 << 20


# In transformers' order, so that the matrix read is the one a model would be loaded with: a file before the index of
# its shards, safetensors before .bin.
LAYOUTS = (
    ("model.safetensors", "model.safetensors.index.json"),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
OTHERS = ("training_args.bin", "optimizer.bin", "scheduler.bin", "adapter_model.bin", "adapter_model.safetensors")


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
                f"the index of {self.label} names {file!r}, outside the checkpoint",
                fix="do not open it, take the model from its publisher",
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
