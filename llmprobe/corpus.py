"""Texts by name, as documents in a fixed order.

``stdlib`` is the docstrings of the running Python's standard library, one document per module: real English and
code that every machine has, with no download. Anything else is a file: UTF-8 text (one document), JSONL or
parquet (one document per row, column ``text``).
"""

from __future__ import annotations

import ast
import hashlib
import json
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llmprobe.errors import CorpusError

SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3", "turtledemo"}


@dataclass(frozen=True)
class Document:
    """One text; `name` says which."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents, read as they are asked for.

    Attributes
    ----------
    name
        What observations call it.
    version
        What else fixes its content: the Python version, the file's sha256.
    """

    name: str
    version: str
    path: Path | None = None

    def __iter__(self) -> Iterator[Document]:
        documents = _docstrings() if self.path is None else READERS.get(self.path.suffix, _text)(self.path)
        return (document for document in documents if document.text.strip())


def open_corpus(name: str) -> Corpus:
    """The corpus of that name, or in that file.

    Raises
    ------
    CorpusError
        There is no such file, it cannot be read, or it is empty.
    """
    if name == "stdlib":
        return Corpus("stdlib", f"python {platform.python_version()}")
    path = Path(name).expanduser()
    if not path.is_file():
        raise CorpusError(f"there is no corpus {name!r}", expected="stdlib, or a .txt, .jsonl or .parquet file")
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror}") from error
    corpus = Corpus(path.name, digest[:16], path)
    if next(iter(corpus), None) is None:
        raise CorpusError(f"{path} holds no text", expected="at least one document that is not blank")
    return corpus


def _docstrings() -> Iterator[Document]:
    """Modules in the order of a hash of their path, so that the first few are a fair sample of all."""
    root = Path(sysconfig.get_path("stdlib"))
    modules = (path.relative_to(root) for path in root.rglob("*.py"))
    kept = (path for path in modules if not SKIPPED & set(path.parts))
    for path in sorted(kept, key=lambda p: hashlib.sha256(p.as_posix().encode()).digest()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's modules
            try:
                tree = ast.parse((root / path).read_bytes())
            except SyntaxError:  # deliberately broken modules exist
                continue
        holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, holders))
        yield Document(path.as_posix(), "\n\n".join(text for text in found if text))


def _text(path: Path) -> Iterator[Document]:
    try:
        yield Document(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{path} is not UTF-8 text (byte {error.start})", fix="convert it, for instance with iconv"
        ) from error


def _jsonl(path: Path) -> Iterator[Document]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield Document(f"{path.name}:{number}", str(json.loads(line)["text"]))
            except (ValueError, KeyError, TypeError) as error:
                raise CorpusError(f"{path} line {number} has no text ({error})", expected='{"text": "..."}') from error


def _parquet(path: Path) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if "text" not in file.schema_arrow.names:
            raise CorpusError(f"{path} has columns {', '.join(file.schema_arrow.names)}", expected="a column text")
        for batch in file.iter_batches(batch_size=256, columns=["text"]):
            for number, value in enumerate(batch.column(0).to_pylist()):
                yield Document(f"{path.name}:{number}", value or "")
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path} is no readable parquet file: {error}") from error


READERS = {".jsonl": _jsonl, ".parquet": _parquet}
