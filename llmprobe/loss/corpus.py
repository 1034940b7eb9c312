"""Texts by name, as documents in a fixed order.

``stdlib`` is the docstrings of the running Python's standard library, one document per module: real English that
every machine has, with no download; ``stdlib-sources`` is the same modules whole. Other names are those of
`llmprobe.loss.hub_corpora`. Anything else is a file: UTF-8 text (one document), JSONL or parquet (one document per
row, column ``text``).

A text is the text: its line ends, control characters and written-out special tokens are kept, in every format alike
(`llmprobe.loss.text`).
"""

from __future__ import annotations

import ast
import codecs
import hashlib
import json
import platform
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from llmprobe.errors import CorpusError
from llmprobe.loss.hub_corpora import NamedCorpus, load_corpora, pinned, stream
from llmprobe.loss.text import text_of

SKIPPED = {"site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib", "lib2to3", "turtledemo"}


@dataclass(frozen=True)
class Document:
    """One text; `name` says which."""

    name: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Documents, read as they are asked for; `open_corpus` makes it.

    Attributes
    ----------
    name
        What observations call it.
    version
        What else fixes its content: the Python version, the file's sha256.
    read
        Reads all documents, from the front, each time it is called.

    Examples
    --------
    >>> from llmprobe.loss.corpus import Document
    >>> corpus = Corpus("two", "1", lambda: iter([Document("a", "the cat sat"), Document("blank", " ")]))
    >>> [document.text for document in corpus]
    ['the cat sat']
    """

    name: str
    version: str
    read: Callable[[], Iterator[Document]]

    def __iter__(self) -> Iterator[Document]:
        return (document for document in self.read() if document.text.strip())


def open_corpus(name: str, *tables: str | Path) -> Corpus:
    """The corpus of that name, or in that file.

    Parameters
    ----------
    name
        ``stdlib``, ``stdlib-sources``, a name in a table of corpora, or the path of a .txt, .jsonl or .parquet file.
    tables
        TOML files of a user's own corpora; see `llmprobe.loss.hub_corpora`. None by default.

    Returns
    -------
    The corpus; a data set at the Hub is streamed when it is read, and pinned to the commit it stands at now.

    Raises
    ------
    CorpusError
        There is no such file, it cannot be read, or it is empty.
    ConfigError
        A table is not right.

    Examples
    --------
    >>> corpus = open_corpus("stdlib")
    >>> document = next(iter(corpus))
    >>> document.name.endswith(".py")
    True
    """
    if name in LIBRARY:
        return Corpus(name, f"python {platform.python_version()}", LIBRARY[name])
    known = load_corpora(*tables)
    if name in known:
        named = known[name]
        commit = pinned(named)
        return Corpus(name, f"{named.id}@{commit}" if commit else named.id, partial(_stream, named, commit))
    path = Path(name).expanduser()
    if not path.is_file():
        names = ", ".join((*LIBRARY, *known))
        raise CorpusError(f"there is no corpus {name!r}", expected=f"{names}, or a .txt, .jsonl or .parquet file")
    if path.suffix.lower() in ROWS_OR_PACKED:
        raise CorpusError(
            f"{path} may hold rows or be compressed",
            expected="UTF-8 text, or JSONL or parquet with a column text",
            fix="convert it, or rename it to .txt to score its bytes as they stand",
        )
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CorpusError(f"cannot read {path}: {error.strerror}") from error
    corpus = Corpus(path.name, digest[:16], partial(READERS.get(path.suffix.lower(), _plain), path))
    if next(iter(corpus), None) is None:
        raise CorpusError(f"{path} holds no text", expected="at least one document that is not blank")
    return corpus


def _modules() -> Iterator[tuple[str, bytes]]:
    """Modules in the order of a hash of their path, so that the first few are a fair sample of all."""
    root = Path(sysconfig.get_path("stdlib"))
    modules = (path.relative_to(root) for path in root.rglob("*.py"))
    kept = (path for path in modules if not SKIPPED & set(path.parts))
    for path in sorted(kept, key=lambda p: hashlib.sha256(p.as_posix().encode()).digest()):
        yield path.as_posix(), (root / path).read_bytes()


def _docstrings() -> Iterator[Document]:
    for name, source in _modules():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old escapes in other people's modules
            try:
                tree = ast.parse(source)
            except SyntaxError:  # deliberately broken modules exist
                continue
        holders = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        found = (ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, holders))
        yield Document(name, "\n\n".join(text for text in found if text))


def _sources() -> Iterator[Document]:
    for name, source in _modules():
        try:
            yield Document(name, source.decode("utf-8"))
        except UnicodeDecodeError:  # a few declare another encoding
            continue


def _stream(named: NamedCorpus, commit: str) -> Iterator[Document]:
    return (Document(name, text) for name, text in stream(named, commit))


def _plain(path: Path) -> Iterator[Document]:
    yield Document(path.name, text_of(path.read_bytes(), str(path)) or "")


def _jsonl(path: Path) -> Iterator[Document]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not (line := line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).strip():
                continue
            where = f"{path} line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise CorpusError(f"{where} is not JSON ({error})", expected='{"text": "..."}') from error
            if not isinstance(row, dict) or "text" not in row:
                raise CorpusError(f"{where} has no text", expected='{"text": "..."}')
            if (text := text_of(row["text"], where)) is not None:
                yield Document(f"{path.name}:{number}", text)


def _parquet(path: Path) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if "text" not in file.schema_arrow.names:
            raise CorpusError(f"{path} has columns {', '.join(file.schema_arrow.names)}", expected="a column text")
        number = 0
        for batch in file.iter_batches(batch_size=256, columns=["text"]):
            for value in batch.column(0).to_pylist():
                number += 1
                if (text := text_of(value, f"{path} row {number}")) is not None:
                    yield Document(f"{path.name}:{number}", text)
    except (pa.ArrowException, OSError) as error:
        raise CorpusError(f"{path} cannot be read as a parquet file: {error}") from error


# columns of rows that would be scored as markup, and bytes that are no text
ROWS_OR_PACKED = {".json", ".csv", ".tsv", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".arrow", ".pdf"}
LIBRARY = {"stdlib": _docstrings, "stdlib-sources": _sources}
READERS = {".jsonl": _jsonl, ".ndjson": _jsonl, ".parquet": _parquet}
