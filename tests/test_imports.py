"""Imports go one way: recipes to toymodels to llmprobe, and in llmprobe from the commands down to the errors.

Every import counts, also those inside functions and under TYPE_CHECKING, as they tie two modules all the same. That a
module runs its package's ``__init__`` first does not count: a door imports what stands behind it.
"""

from __future__ import annotations

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# From the top down; what is not named stands on the ground floor, above the errors.
FLOORS = (
    {"cli"},
    {"commands"},
    {"study", "measurements", "plan", "interactive", "facts"},
    {"weights", "overlap", "loss", "report"},
)
GROUND, ERRORS = len(FLOORS), len(FLOORS) + 1
# `FitResult.plot` is a convenience for notebooks: the figure takes a result, and a result knows how it is drawn.
EXCEPTED = {("llmprobe.fitting.result", "llmprobe.fitting.figure")}
PLAIN = {"numpy", "scipy", "jaxtyping", "matplotlib", "pandas", "llmprobe"}
"""What fitting may be made of, the standard library aside: neither torch nor transformers."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for top in ("llmprobe", "toymodels") for path in (ROOT / top).rglob("*.py")}


def imported(path: Path) -> set[str]:
    """Names of all modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in whole}
    return found


ARROWS = sorted(
    (name, other)
    for name, path in MODULES.items()
    for other in imported(path)
    if other in MODULES and (name, other) not in EXCEPTED
)


def floor(module: str) -> int:
    """0 for the highest floor of llmprobe; toymodels stands above all of them."""
    package, _, rest = module.partition(".")
    if package == "toymodels":
        return -1
    station = rest.partition(".")[0]
    if station == "errors":
        return ERRORS
    return next((i for i, names in enumerate(FLOORS) if station in names), GROUND)


def station(module: str) -> str:
    """A folder of llmprobe, or a module beside the folders."""
    return ".".join(module.split(".")[:2])


def test_no_arrow_points_upwards() -> None:
    assert len(ARROWS) > 300
    assert not [arrow for arrow in ARROWS if floor(arrow[0]) > floor(arrow[1])]


@pytest.mark.parametrize("of", [str, station], ids=["modules", "folders"])
def test_no_circle(of: type[str]) -> None:
    graph: dict[str, set[str]] = {}
    for name, other in ARROWS:
        if of(name) != of(other):
            graph.setdefault(of(name), set()).add(of(other))
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_no_recipe_is_imported_from_below() -> None:
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.py")}
    assert len(recipes) > 10
    assert not [(name, other) for name, path in MODULES.items() for other in imported(path) & recipes]


def test_fitting_needs_neither_torch_nor_transformers() -> None:
    for name in (name for name in MODULES if name.startswith("llmprobe.fitting")):
        tops = {other.partition(".")[0] for other in imported(MODULES[name])}
        assert tops - sys.stdlib_module_names <= PLAIN, name


def test_exceptions_are_still_needed() -> None:
    for name, other in EXCEPTED:
        assert other in imported(MODULES[name])
