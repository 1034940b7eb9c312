"""Corpora by name: the table, a user's own, and rows streamed by `datasets` from the Hub of these tests."""

from __future__ import annotations

import gzip
import json
import sys
from itertools import islice
from pathlib import Path

import pandas as pd
import pytest
from checkpoints import make_model, make_tokenizer, save
from loopback_hub import LoopbackHub

from llmprobe.cli import main
from llmprobe.errors import ConfigError, CorpusError
from llmprobe.loss.corpus import open_corpus
from llmprobe.loss.hub_corpora import NamedCorpus, load_corpora, stream

ROWS = ["", " = One = \n", "", " a b \n", " = = Early = = \n", " c \n", " = Two = \n", " d = e \n"]


def table(folder: Path, text: str) -> str:
    """A user's own table of corpora."""
    path = folder / "corpora.toml"
    path.write_text(text)
    return str(path)


def test_built_in_corpora_are_pinned() -> None:
    corpora = load_corpora()
    assert list(corpora) == ["wikitext", "c4", "pile"]
    assert {len(corpus.revision) for corpus in corpora.values()} == {40}
    found = open_corpus("wikitext")  # opening asks nothing of the Hub
    assert found.version == f"Salesforce/wikitext@{corpora['wikitext'].revision}"


def test_rows_are_streamed_and_joined_to_documents(tmp_path: Path, hub: LoopbackHub) -> None:
    pd.DataFrame({"text": ROWS}).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    hub.add("me/rows", tmp_path)
    begins = load_corpora()["wikitext"].begins
    own = table(
        tmp_path,
        f"[rows]\nid = 'me/rows'\nsplit = 'test'\n[articles]\nid = 'me/rows'\nsplit = 'test'\nbegins = '{begins}'",
    )
    rows = open_corpus("rows", own)
    assert rows.version == "me/rows@" + "a" * 40  # the newest commit, and which that was
    assert [d.text for d in rows] == [row for row in ROWS if row.strip()]
    articles = list(open_corpus("articles", own))
    assert [d.text for d in articles] == ["".join(r or "\n" for r in ROWS[1:6]), "".join(ROWS[6:])]
    assert articles[0].name == "articles:1"


def test_compressed_json_of_a_named_config_stops_where_reading_stops(tmp_path: Path, hub: LoopbackHub) -> None:
    card = "---\nconfigs:\n- config_name: en\n  data_files:\n  - split: validation\n    path: v*.json.gz\n---\n"
    (tmp_path / "README.md").write_text(card)
    for part in range(2):
        lines = "".join(json.dumps({"words": f"text {part} {k}"}) + "\n" for k in range(3))
        (tmp_path / f"v{part}.json.gz").write_bytes(gzip.compress(lines.encode()))
    hub.add("me/texts", tmp_path)
    own = table(
        tmp_path,
        f"[mine]\nid = 'me/texts'\nconfig = 'en'\nsplit = 'validation'\ncolumn = 'words'\nrevision = '{'a' * 40}'",
    )
    corpus = open_corpus("mine", own)
    assert [d.text for d in islice(corpus, 2)] == ["text 0 0", "text 0 1"]
    assert not any("v1.json.gz" in path for path in hub.paths)
    assert len(list(corpus)) == 6


def test_local_folder_and_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    pd.DataFrame({"text": ["the cat sat", "on the mat"]}).to_parquet(folder / "train.parquet")
    own = table(tmp_path, f"[mine]\nid = '{folder}'")
    assert [d.text for d in open_corpus("mine", own)] == ["the cat sat", "on the mat"]
    save(make_model("llama"), tmp_path / "m")
    make_tokenizer().save_pretrained(tmp_path / "m")
    line = ["loss", str(tmp_path / "m"), "--corpus", "mine", "--corpora", own, "--json"]
    assert main(line) == 0
    assert json.loads(capsys.readouterr().out)["corpus"] == "mine"


def test_bad_tables_and_data_sets_are_named(tmp_path: Path, hub: LoopbackHub) -> None:
    for text, match in (
        ("[mine]\nname = 'x'", r"\[mine\] has the unknown key name; expected among id, title"),
        ("[mine]\ntitle = 'x'", r"\[mine\] lacks id"),
        ("[mine]\nid = 3", r"id = 3; expected of type str"),
        ("[mine]\nid = 'me/x'\nbegins = '('", "is not a valid regular expression"),
        ("mine = 3", "expected a table"),
        ("[mine", "is not valid TOML"),
    ):
        with pytest.raises(ConfigError, match=match):
            load_corpora(table(tmp_path, text))
    with pytest.raises(ConfigError, match="cannot read"):
        load_corpora(tmp_path / "nowhere.toml")
    with pytest.raises(CorpusError, match=r"the corpus mine, me/gone \(train\), cannot be read"):
        open_corpus("mine", table(tmp_path, "[mine]\nid = 'me/gone'"))
    pd.DataFrame({"words": ["a"]}).to_parquet(tmp_path / "train.parquet")
    hub.add("me/words", tmp_path)
    with pytest.raises(CorpusError, match="columns words; expected text in the column text"):
        list(open_corpus("mine", table(tmp_path, "[mine]\nid = 'me/words'")))
    with pytest.raises(CorpusError, match="cannot be read"):
        list(open_corpus("mine", table(tmp_path, "[mine]\nid = 'me/words'\nsplit = 'other'")))
    with pytest.raises(CorpusError, match="expected stdlib, stdlib-sources, wikitext, c4, pile"):
        open_corpus("nothing")


def test_pyarrow_that_refuses_this_numpy_is_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(CorpusError, match="a pyarrow made for this one"):
        next(stream(NamedCorpus(name="mine", id="me/texts"), ""))
