"""Every public name says what it is, and the package exports on purpose."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest

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
def test_exported_functions_say_what_they_take_and_raise(name: str) -> None:
    thing = getattr(llmprobe, name)
    text = inspect.getdoc(thing) or ""
    assert len(text) > 20
    if inspect.isfunction(thing):
        for parameter in list(inspect.signature(thing).parameters)[1:]:
            assert parameter in text, f"{name} does not explain {parameter}"
        assert "Raises" in text or "Error" not in inspect.getsource(thing)


def test_exports_are_on_purpose() -> None:
    assert llmprobe.__all__ == sorted(set(llmprobe.__all__))
    assert set(llmprobe.__all__) <= set(dir(llmprobe))
    for name in llmprobe.__all__:
        assert not inspect.ismodule(getattr(llmprobe, name)), f"{name} is a module too: the import order would decide"
