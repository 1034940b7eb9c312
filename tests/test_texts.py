"""A text is the text: the same in every format, and what is no text is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from checkpoints import make_tokenizer

from llmprobe.errors import CorpusError
from llmprobe.loss.corpus import Document, open_corpus
from llmprobe.loss.windows import cut_windows

TRICKY = {
    "byte-order mark": ("\ufeffone", "one"),
    "line ends": ("one\r\ntwo\rthree\n", "one\r\ntwo\rthree\n"),
    "unusual separators": ("one\x0btwo\x85three\u2028four", "one\x0btwo\x85three\u2028four"),
    "special token": ("<|endoftext|> </s>", "<|endoftext|> </s>"),
    "zero": ("a\x00b", "a\x00b"),
}


def written(folder: Path, kind: str, values: list[Any]) -> str:
    path = folder / f"t.{kind}"
    if kind == "txt":
        path.write_bytes(values[0].encode())
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values), encoding="utf-8")
    else:
        pq.write_table(pa.table({"text": values}), path)
    return str(path)


@pytest.mark.parametrize("name", TRICKY)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "parquet"])
def test_the_same_text_in_every_format(tmp_path: Path, kind: str, name: str) -> None:
    given, expected = TRICKY[name]
    assert [d.text for d in open_corpus(written(tmp_path, kind, [given]))] == [expected]


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_null_is_no_document_and_rows_keep_their_numbers(tmp_path: Path, kind: str) -> None:
    found = list(open_corpus(written(tmp_path, kind, [None, "one", None, "two"])))
    assert [(d.name, d.text) for d in found] == [(f"t.{kind}:2", "one"), (f"t.{kind}:4", "two")]


@pytest.mark.parametrize("value", [12345, 1.5, True, ["a", "b"], {"a": "b"}])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_what_is_no_text_is_refused(tmp_path: Path, kind: str, value: Any) -> None:
    with pytest.raises(CorpusError, match=r"(line|row) 1 has a text that is of type (int|float|bool|list|dict)"):
        list(open_corpus(written(tmp_path, kind, [value])))


def test_bytes_are_decoded_or_refused(tmp_path: Path) -> None:
    assert [d.text for d in open_corpus(written(tmp_path, "parquet", ["é".encode()]))] == ["é"]
    with pytest.raises(CorpusError, match=r"row 1 is not UTF-8 text \(byte 0\)"):
        list(open_corpus(written(tmp_path, "parquet", ["é".encode("latin-1")])))


def test_half_a_surrogate_pair_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b\\ud800"}\n')
    with pytest.raises(CorpusError, match="line 2 holds half of a surrogate pair at character 1"):
        list(open_corpus(str(path)))


BROKEN = {
    "latin": (b'{"text": "\xe9"}\n', "line 1 is not JSON"),
    "array": (b'["text"]\n', "line 1 has no text"),
    "deep": (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "line 1 is not JSON"),
    "torn": (b'{"text": "a"}\n{"text": "b', "line 2 is not JSON"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_jsonl_is_a_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "t.jsonl"
    content, message = BROKEN[kind]
    path.write_bytes(content)
    with pytest.raises(CorpusError, match=message):
        list(open_corpus(str(path)))


@pytest.mark.parametrize("name", ["t.json", "t.csv", "t.jsonl.gz"])
def test_rows_and_packed_files_are_not_scored_as_markup(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('[{"text": "a"}]')
    with pytest.raises(CorpusError, match="may hold rows or be compressed"):
        open_corpus(str(tmp_path / name))


def test_a_document_longer_than_the_models_positions_is_cut_without_a_warning() -> None:
    tokenizer = make_tokenizer()
    tokenizer.model_max_length = 16
    document = Document("long", "the cat sat on the mat. " * 20)
    assert len(list(cut_windows([document], tokenizer, context=16))) > 1
    assert not tokenizer.deprecation_warnings
