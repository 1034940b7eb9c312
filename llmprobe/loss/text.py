"""What counts as the text of a row, the same for every format."""

from __future__ import annotations

from llmprobe.errors import CorpusError

BOM = "\ufeff"


def text_of(value: object, where: str) -> str | None:
    """A row's value as text; None where the row has none (a null), which is not a document.

    Bytes are decoded as UTF-8, a byte-order mark in front is not text, and line ends stay as they are.

    Raises
    ------
    CorpusError
        The value is a number, a list or a table, its bytes are not UTF-8, or it holds half of a surrogate pair, which
        is not a character; `where` says which row.
    """
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise CorpusError(
                f"{where} is not UTF-8 text (byte {error.start})", fix="convert it, for instance with iconv"
            ) from error
    if not isinstance(value, str):
        raise CorpusError(f"{where} has a text that is of type {type(value).__name__}", expected="a string or null")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where} holds half of a surrogate pair at character {error.start}",
            expected="text that UTF-8 can write",
            fix="write the file again with errors='replace'",
        ) from error
    return value.removeprefix(BOM)
