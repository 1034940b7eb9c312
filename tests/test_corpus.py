"""Corpora: the standard library's docstrings and files of three kinds."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from llmprobe.errors import CorpusError
from llmprobe.loss.corpus import open_corpus


def test_standard_library_is_large_deterministic_and_english() -> None:
    first = list(open_corpus("stdlib"))
    assert sum(len(d.text.encode()) for d in first) > 1_000_000
    assert [d.name for d in islice(open_corpus("stdlib"), 20)] == [d.name for d in first[:20]]
    assert len({d.name for d in first}) == len(first)
    assert "random" in " ".join(d.text for d in first if d.name == "random.py")
    assert not any("site-packages" in d.name for d in first)


def test_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("héllo\n\nworld", encoding="utf-8")
    assert [d.text for d in open_corpus(str(path))] == ["héllo\n\nworld"]


def test_jsonl_and_parquet_rows_are_documents(tmp_path: Path) -> None:
    import pandas as pd

    texts = ["one", "two", "  ", "three"]
    frame = pd.DataFrame({"text": texts, "other": range(4)})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    for name in ("a.parquet", "a.jsonl"):
        assert [d.text for d in open_corpus(str(tmp_path / name))] == ["one", "two", "three"]
    frame.rename(columns={"text": "words"}).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(CorpusError, match=r"columns words, other.*a column text"):
        open_corpus(str(tmp_path / "b.parquet"))


def test_version_changes_with_content(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = open_corpus(str(path)).version
    path.write_text("two")
    assert open_corpus(str(path)).version != before


def test_bad_corpora_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no corpus 'nothing'"):
        open_corpus("nothing")
    empty = tmp_path / "empty.txt"
    empty.write_text(" \n\n")
    with pytest.raises(CorpusError, match="holds no text"):
        open_corpus(str(empty))
    latin = tmp_path / "latin.txt"
    latin.write_bytes("é".encode("latin-1"))
    with pytest.raises(CorpusError, match="not UTF-8 text"):
        open_corpus(str(latin))
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "a"}\n{"words": "b"}\n')
    with pytest.raises(CorpusError, match="line 2 has no text"):
        list(open_corpus(str(broken)))
    parquet = tmp_path / "broken.parquet"
    parquet.write_bytes(b"PAR1 no")
    with pytest.raises(CorpusError, match="cannot be read as a parquet file"):
        open_corpus(str(parquet))
