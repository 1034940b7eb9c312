"""Public corpora by name, as data: `corpora.toml` here, and a user's own file of the same form, which wins.

    [mine]
    id = "me/texts"          # at the Hub, or a local folder of parquet or JSON files
    split = "validation"

Rows are streamed with `datasets`, so that no more is fetched than is read. No repository's own code is run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmprobe.errors import ConfigError, CorpusError, first_line
from llmprobe.loss.text import text_of
from llmprobe.tables import checked_row, load_tables

BUILT_IN = Path(__file__).with_name("hub_corpora.toml")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class NamedCorpus:
    """Where a corpus is found.

    Attributes
    ----------
    name, title
        Short name, and the name for people.
    id
        Data set at the Hub, or a local folder.
    config, split
        Which part of it.
    revision
        Commit that is read; without one it is the newest, and which that was is recorded.
    column
        Column of the text.
    begins
        Pattern of the row that a new document begins with; without one every row is a document.
    """

    name: str
    id: str
    title: str = ""
    config: str = ""
    split: str = "train"
    revision: str = ""
    column: str = "text"
    begins: str = ""


def load_corpora(*files: str | Path) -> dict[str, NamedCorpus]:
    """The built-in corpora, then those of each file in turn; a later corpus of the same name replaces an earlier.

    Raises
    ------
    ConfigError
        A file is not there or not TOML, or holds a key, a type or a pattern that is not right.
    """
    return load_tables(_corpus, "corpora", BUILT_IN, *files)


def pinned(corpus: NamedCorpus) -> str:
    """The commit that a corpus is read at, asked of the Hub where the table does not give it; empty for a folder.

    Raises
    ------
    CorpusError
        There is no such data set, or the Hub is out of reach.
    """
    if COMMIT.fullmatch(corpus.revision):
        return corpus.revision
    if Path(corpus.id).expanduser().is_dir():
        return ""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(corpus.id, revision=corpus.revision or None).sha)
    except _trouble() as error:
        raise _unreadable(corpus, error) from error


def stream(corpus: NamedCorpus, commit: str) -> Iterator[tuple[str, str]]:
    """Name and text of each document, from the front.

    Parameters
    ----------
    commit
        As `pinned` gives it.

    Raises
    ------
    CorpusError
        The corpus cannot be read, or has no such part or column.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:  # a pyarrow newer than numpy 1 is installed beside it without complaint
        raise CorpusError(
            f"data sets cannot be read: {first_line(error)}",
            fix="install a newer numpy, or a pyarrow made for this one",
        ) from error

    folder = Path(corpus.id).expanduser()
    where = str(folder) if folder.is_dir() else corpus.id
    at = {"name": corpus.config or None, "split": corpus.split, "revision": commit or None}
    try:
        rows = load_dataset(where, **at, streaming=True, trust_remote_code=False)
        texts = _texts(corpus, rows)
        documents = _joined(texts, re.compile(corpus.begins)) if corpus.begins else texts
        for number, text in enumerate(documents):
            yield f"{corpus.name}:{number}", text
    except _trouble() as error:
        raise _unreadable(corpus, error) from error


def _texts(corpus: NamedCorpus, rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    for number, row in enumerate(rows, start=1):
        if corpus.column not in row:
            raise CorpusError(
                f"{corpus.id} has columns {', '.join(row)}",
                expected=f"text in the column {corpus.column}",
                fix="name the column of the text in the table of corpora",
            )
        if (text := text_of(row[corpus.column], f"{corpus.id}, column {corpus.column}, row {number}")) is not None:
            yield text


def _joined(rows: Iterable[str], begins: re.Pattern[str]) -> Iterator[str]:
    """Rows put together, a document from each row that begins one to the next."""
    document: list[str] = []
    for row in rows:
        if begins.match(row.rstrip("\n")) and document:
            yield "".join(document)
            document = []
        document.append(row if row.endswith("\n") else row + "\n")
    yield "".join(document)


def _trouble() -> tuple[type[Exception], ...]:
    """What the readers raise when a data set is missing, damaged or out of reach."""
    import pyarrow as pa
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    from llmprobe.weights.http_client import httpx

    return (OSError, ValueError, RuntimeError, pa.ArrowException, httpx.HTTPError, HfHubHTTPError, DatasetsError)


def _unreadable(corpus: NamedCorpus, error: Exception) -> CorpusError:
    part = f" ({', '.join(filter(None, (corpus.config, corpus.split)))})"
    return CorpusError(
        f"the corpus {corpus.name}, {corpus.id}{part}, cannot be read: {first_line(error)}",
        expected="a data set of parquet or JSON files at the Hub, or a folder of such files",
        fix="check the name and the connection; run the same command to resume",
    )


def _corpus(where: str, name: str, row: Any) -> NamedCorpus:
    corpus = checked_row(NamedCorpus, where, row, name=name)
    try:
        re.compile(corpus.begins)
    except re.error as error:
        raise ConfigError(f"{where}: begins = {corpus.begins!r} is not a valid regular expression: {error}") from error
    return corpus
