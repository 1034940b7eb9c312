"""Every public name says what it is, and the package exports on purpose."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import ModuleType

import pytest
from checkpoints import make_model, make_tokenizer, save

import llmprobe
import toymodels

MODULES = [
    importlib.import_module(info.name)
    for package in (llmprobe, toymodels)
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_public_names_are_documented(module: ModuleType) -> None:
    assert module.__doc__
    assert module.__doc__.strip()
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing) or inspect.isfunction(thing):
            own = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
            generated = inspect.isclass(thing) and (own or "").startswith(f"{name}(")
            assert own, f"{module.__name__}.{name} has no docstring"
            assert not generated, f"{module.__name__}.{name} has no docstring of its own"


@pytest.mark.parametrize("name", llmprobe.__all__)
def test_exports_say_what_they_take_return_and_raise(name: str) -> None:
    thing = getattr(llmprobe, name)
    entries = set(re.findall(r"^(\w+)$", inspect.getdoc(thing) or "", re.M))
    if inspect.isfunction(thing):
        parameters = set(inspect.signature(thing).parameters)
        assert parameters <= entries, f"{name} has no entry for {sorted(parameters - entries)}"
        assert {"Returns", "Raises"} <= entries
    elif is_dataclass(thing):
        missing = {field.name for field in fields(thing)} - entries
        assert not missing, f"{name} has no entry for {sorted(missing)}"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the examples run in: a model of random weights, and a text."""
    folder = tmp_path_factory.mktemp("examples")
    save(make_model("llama", tied=False), folder / "tiny")
    make_tokenizer().save_pretrained(folder / "tiny")
    (folder / "text.txt").write_text("the cat sat on the mat. " * 10)
    return folder


@pytest.mark.parametrize("name", llmprobe.__all__)
def test_examples_of_the_exports_run(name: str, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tiny)
    thing = getattr(llmprobe, name)
    (test,) = doctest.DocTestFinder(recurse=False).find(thing, name, globs=vars(inspect.getmodule(thing)).copy())
    assert test.examples, f"{name} has no example"
    transcript: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=transcript.append)
    assert not transcript, "".join(transcript)


def test_exports_are_on_purpose() -> None:
    assert llmprobe.__all__ == sorted(set(llmprobe.__all__))
    assert set(llmprobe.__all__) <= set(dir(llmprobe))
    for name in llmprobe.__all__:
        assert not inspect.ismodule(getattr(llmprobe, name)), f"{name} is a module too: the import order would decide"
