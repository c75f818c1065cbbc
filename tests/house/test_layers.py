"""The rooms import downwards only; the order is the table in docs/architecture.md."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "ownlatent"
FILES = sorted(PACKAGE.rglob("*.py"))
LAYERS = (  # from the top; a room may use its own layer and what is below it
    {"__init__", "__main__"},
    {"cli"},
    {"arguments"},
    {"api", "learner", "pretraining", "proof", "run", "log", "sklearn"},
    {"reporting", "export", "checks", "features"},
    {"recipes"},
    {"train"},
    {"evaluation", "diagnostics"},
    {"methods"},
    {"backbones", "nn", "losses", "augment", "data", "optim", "sound"},
    {"types", "errors", "machine", "files"},
)
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
ONLY_IN = {"lightning": {"train"}, "pytorch_lightning": set(), "timm": {"backbones", "export"}}
EMPTY_WORDS = {"util", "utils", "helper", "helpers", "common", "misc", "manager", "managers"}
MOST_LINES = 300


def room_of(path: Path) -> str:
    """The folder of the package that a file lies in, or its own name at the top."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full dotted name) of everything that a file imports, wherever in the file, for typing too."""
    package = ["ownlatent", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            for alias in node.names:
                yield node.lineno, ".".join([*above, *([node.module] if node.module else []), alias.name])


def rooms_used(path: Path) -> Iterator[tuple[int, str]]:
    """(line, room) of what a file imports from the package; `__init__` stands for its public names."""
    for line, name in imported(path):
        first, *rest = name.split(".")
        if first == "ownlatent" and rest != ["__version__"]:
            yield line, rest[0] if rest and rest[0] in DEPTH else "__init__"


def test_there_is_a_package_to_look_at() -> None:
    assert len(FILES) > 20
    assert {"cli", "train", "methods"} <= {room_of(path) for path in FILES}


def test_every_room_has_its_place_in_the_table() -> None:
    assert {room_of(path) for path in FILES} <= set(DEPTH), "a new room: give it a layer here and in the documentation"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    here = room_of(path)
    upwards = [f"line {line}: {here} imports {room}" for line, room in rooms_used(path) if DEPTH[room] < DEPTH[here]]
    assert not upwards


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {room_of(path): set() for path in FILES}
    for path in FILES:
        graph[room_of(path)] |= {room for _, room in rooms_used(path)} - {room_of(path)}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError and names the circle


@pytest.mark.parametrize("library", ONLY_IN)
def test_heavy_libraries_stay_in_their_rooms(library: str) -> None:
    strangers = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in FILES
        for line, name in imported(path)
        if name.split(".")[0] == library and room_of(path) not in ONLY_IN[library]
    ]
    assert not strangers


def test_nothing_has_an_empty_name() -> None:
    names = [
        path.relative_to(ROOT).as_posix()
        for folder in ("src", "tests", "examples", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    for path in FILES:
        defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        names += [f"{path.relative_to(ROOT)}/{node.name}" for node in nodes if isinstance(node, defined)]
    empty = [name for name in names if set(_words(name)) & EMPTY_WORDS]
    assert not empty


def test_files_stay_readable_in_one_sitting() -> None:
    lengths = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in FILES}
    assert not {name: lines for name, lines in lengths.items() if lines > MOST_LINES}


def _words(name: str) -> list[str]:
    """The words of a path or an identifier: my_utils/ViewManager gives my, utils, view, manager."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)]
