"""What the package imports is what it declares."""

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {
    "PIL": "pillow",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "faiss": "faiss-cpu",
    "umap": "umap-learn",
}
DERIVED = {"sklearn.py": {"scikit-learn"}}  # a class of a library's kind is there only where the library is
FOR_DEVELOPERS = {"test", "lint", "bench"}


def names(requirements: list[str]) -> set[str]:
    return {re.match(r"[\w-]+", requirement)[0].lower() for requirement in requirements}  # type: ignore[index]


def imported(tree: ast.AST) -> set[str]:
    """The distributions of others that are imported anywhere below a node."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            used.add(node.module.split(".")[0])
    return {DISTRIBUTIONS.get(name, name) for name in used - set(sys.stdlib_module_names) - {"ownlatent"}}


def outside_functions(path: Path) -> ast.Module:
    """What runs when a file is imported, as opposed to when its functions are called or types are checked."""
    kept = []
    for node in ast.parse(path.read_text()).body:
        checking = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) and not checking:
            kept.append(node)
    return ast.Module(kept, [])


def test_every_third_party_import_is_a_declared_dependency():
    """Those of the extras are imported inside functions, where their absence can be explained."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = names(project["dependencies"])
    optional = [v for extra, v in project["optional-dependencies"].items() if extra not in FOR_DEVELOPERS]
    every = needed.union(*map(names, optional))
    for path in (ROOT / "src").rglob("*.py"):
        assert imported(outside_functions(path)) <= needed | DERIVED.get(path.name, set()), path
        assert imported(ast.parse(path.read_text())) <= every, path


def test_the_metadata_are_complete():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for key in ("description", "readme", "requires-python", "license", "authors", "keywords", "classifiers", "scripts"):
        assert project[key], key
    assert project["license"] == "Apache-2.0" and (ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
