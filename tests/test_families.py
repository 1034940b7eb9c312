"""Families as data: the built-in table against published figures, and a user's own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from llmprobe.errors import ConfigError
from llmprobe.families import find_member, load_families, schedule, vocabulary


def test_built_in_table_equals_the_reference(shared_data: Path) -> None:
    with (shared_data / "families.tsv").open() as file:
        reference = {row["hub_id"]: row for row in csv.DictReader(file, delimiter="\t")}
    members = {m.id: m for family in load_families().values() for m in family.members}
    assert set(members) == set(reference)
    for name, row in reference.items():
        m = members[name]
        assert (m.m, m.d_model or m.m, m.layers, m.rows) == tuple(
            int(row[k]) for k in ("unembedding_width", "d_model", "n_layers", "vocab_rows")
        )
        assert str(m.tied) == row["tied"]
        assert (m.params, m.non_embedding, m.position) == tuple(
            int(row[k]) for k in ("params_total", "params_non_embedding", "params_position")
        )


def test_the_papers_27_models() -> None:
    families = load_families()
    paper = [(f.name, m.id) for f in families.values() for m in f.members if (f.paper if m.paper is None else m.paper)]
    counts = {name: sum(1 for f, _ in paper if f == name) for name, _ in paper}
    assert counts == {"opt": 8, "qwen2.5": 7, "gpt2": 4, "pythia": 8}


def test_vocabulary_never_exceeds_the_rows() -> None:
    for family in load_families().values():
        for member in family.members:
            known = vocabulary(family, member)
            assert known is None or member.rows is None or known <= member.rows or family.name == "gemma3", member.id


def test_a_users_family_needs_no_code_and_wins(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[mine]\nmembers = [{ id = "me/small", m = 256 }]\n[gpt2]\nmembers = [{ id = "gpt2", m = 3 }]\n')
    families = load_families(path)
    found = find_member(families, "me/small@step10")
    assert found is not None
    assert (found[0].name, found[1].m) == ("mine", 256)
    assert [m.id for m in families["gpt2"].members] == ["gpt2"]
    assert "opt" in families
    assert find_member(families, "nobody/knows") is None


def test_schedules_stand_in_the_table(tmp_path: Path) -> None:
    pythia = load_families()["pythia"]
    rates = {member.id.rpartition("-")[2]: plan.peak for member in pythia.members if (plan := schedule(pythia, member))}
    names = ("14m", "31m", "70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
    assert rates == dict(zip(names, (1e-3, 1e-3, 1e-3, 6e-4, 3e-4, 2.5e-4, 2e-4, 1.6e-4, 1.2e-4, 1.2e-4), strict=True))
    plan = schedule(pythia, pythia.members[2])
    assert plan is not None
    assert (plan.steps, plan.warmup, plan.final) == (143_000, 1430, 0.1)
    path = tmp_path / "mine.toml"
    path.write_text('[mine]\nsteps = 10\nwarmup_steps = 10\nmembers = [{ id = "me/a", m = 2, peak_rate = 0.1 }]\n')
    mine = load_families(path)["mine"]
    with pytest.raises(ConfigError, match="warm-up"):
        schedule(mine, mine.members[0])
    opt = load_families()["opt"]
    assert schedule(opt, opt.members[0]) is None


BAD = {
    "unknown key bananas": '[f]\nmembers = [{ id = "a/b", m = 2, bananas = 3 }]',
    "unknown key color": '[f]\ncolor = "red"\nmembers = [{ id = "a/b", m = 2 }]',
    "m = '12'": '[f]\nmembers = [{ id = "a/b", m = "12" }]',
    "m = -4": '[f]\nmembers = [{ id = "a/b", m = -4 }]',
    "lacks m": '[f]\nmembers = [{ id = "a/b" }]',
    "no members": "[f]\ntitle = 'x'",
    "twice": '[f]\nmembers = [{ id = "a/b", m = 2 }, { id = "a/b", m = 2 }]',
    "not valid TOML": "[f\n",
}


@pytest.mark.parametrize("message", BAD)
def test_mistakes_in_a_users_file_are_named(message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(BAD[message])
    with pytest.raises(ConfigError, match=message):
        load_families(path)
