"""What the extension guide says is done here, block by block, in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest
from checkpoints import make_model, make_tokenizer, save

import llmprobe.cli
import toymodels.cli
from llmprobe.errors import ConfigError
from llmprobe.weights import formats

GUIDE = Path(__file__).resolve().parents[1] / "EXTENDING.md"
BLOCK = re.compile(r"```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<body>.*?)```", re.S)
COMMANDS = {"llmprobe": llmprobe.cli.main, "toymodels": toymodels.cli.main}


def test_every_block_of_the_guide_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(formats.FORMATS, ".json", formats.FORMATS[".bin"])  # what the guide adds is taken out again
    del formats.FORMATS[".json"]
    for name, m in (("small", 32), ("large", 64)):
        save(make_model("llama", hidden_size=m), tmp_path / name)
        make_tokenizer().save_pretrained(tmp_path / name)
    (tmp_path / "text.jsonl").write_text('{"text": "the cat sat on the mat."}\n{"text": "a theory that fits."}\n')
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "train.jsonl").write_text((tmp_path / "text.jsonl").read_text())
    ran = []
    for block in BLOCK.finditer(GUIDE.read_text(encoding="utf-8")):
        kind, body = block["kind"], block["body"]
        if block["file"]:
            (tmp_path / block["file"]).write_text(body)
        elif kind == "python":
            exec(compile(body, str(GUIDE), "exec"), {"__name__": "guide"})
        elif kind == "sh":
            for line in body.strip().splitlines():
                command, *arguments = shlex.split(line)
                assert COMMANDS[command](arguments) == 0, (line, capsys.readouterr().err)
        ran.append(kind)
    assert (ran.count("sh"), ran.count("python"), ran.count("toml")) == (3, 3, 2)
    assert os.path.getsize(tmp_path / "runs" / "mine" / "report.html") > 10_000


def test_what_the_table_names_is_there() -> None:
    rows = [
        line
        for line in GUIDE.read_text(encoding="utf-8").splitlines()
        if line.startswith(("| a ", "| an ", "| another ", "| frequencies "))
    ]
    assert len(rows) == 9
    for row in rows:
        where = row.split("|")[2]
        names = re.findall(r"`([^`]+)`", where)
        files = [GUIDE.parent / name for name in names if "." in name]
        text = "".join(file.read_text(encoding="utf-8") for file in files)
        assert files
        assert all(re.search(rf"\b{name}\b", text) for name in names if "." not in name), row


@pytest.mark.parametrize("suffix", [".safetensors", ".gguf", "json"])
def test_a_suffix_has_one_reader_and_a_dot(suffix: str) -> None:
    with pytest.raises(ConfigError, match="suffix"):
        formats.register_format(suffix, formats.FORMATS[".bin"])
    assert list(formats.FORMATS) == [".safetensors", ".bin"]
