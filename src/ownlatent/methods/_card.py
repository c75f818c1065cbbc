"""What a method's file says about itself, read without running it: no torch is loaded."""

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_NEEDS = ("batch", "memory", "negatives", "momentum", "predictor")
_HEADS = ("Idea", "Equation", "Needs", "Pick it", "Goes wrong")


@dataclass(frozen=True)
class Card:
    """A method in words, from the docstrings of its file.

    title, paper, year: from the module's first line, "Title (Authors year, ...)". summary: the class's first
    line. idea, equation, pick, wrong: its sections. needs: "batch", "memory", "negatives", "momentum" and
    "predictor" in a few words each. settings: what the constructor's keywords mean, and defaults: their
    values. recipes: the file's RECIPES.
    """

    name: str
    title: str
    paper: str
    year: int | None
    summary: str
    idea: str
    equation: str
    needs: dict[str, str]
    pick: str
    wrong: str
    settings: str
    defaults: dict[str, Any]
    recipes: dict[str, dict[str, Any]]


def card(name: str) -> Card:
    """The card of the method in the file of this name. Raises ValueError if a section is missing."""
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text(encoding="utf-8"))
    title, paper = re.fullmatch(r"(.+?) \((.+)\)\.", ast.get_docstring(tree) or "").groups()  # type: ignore[union-attr]
    method = next(node for node in tree.body if isinstance(node, ast.ClassDef) and _is_method(node))
    summary, *paragraphs = (ast.get_docstring(method) or "").split("\n\n")
    sections = {}
    for head in _HEADS:
        found = next((text for text in paragraphs if text.startswith(head + ": ")), None)
        if found is None:
            raise ValueError(f"the docstring of {method.name} has no paragraph that begins with {head!r}")
        paragraphs.remove(found)
        sections[head] = found.removeprefix(head + ": ")
    year = re.search(r"\b(19|20)\d\d\b", paper)
    return Card(
        name=name,
        title=title,
        paper=paper,
        year=int(year[0]) if year else None,
        summary=_joined(summary),
        idea=_joined(sections["Idea"]),
        equation=sections["Equation"],
        needs=_needs(_joined(sections["Needs"])),
        pick=_joined(sections["Pick it"]),
        wrong=_joined(sections["Goes wrong"]),
        settings=_joined("\n".join(paragraphs)),
        defaults=_defaults(method),
        recipes=_recipes(tree),
    )


def _is_method(node: ast.ClassDef) -> bool:
    return any(isinstance(base, ast.Name) and base.id == "Method" for base in node.bases)


def _needs(text: str) -> dict[str, str]:
    """ "batch 64 or more; memory two networks; ..." by the first word of each part."""
    parts = dict(part.split(" ", 1) for part in text.rstrip(".").split("; "))
    if missing := set(_NEEDS) - set(parts):
        raise ValueError(f"the paragraph of needs says nothing of {', '.join(sorted(missing))}")
    return parts


def _defaults(method: ast.ClassDef) -> dict[str, Any]:
    made = next(node for node in method.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    pairs = zip(made.args.kwonlyargs, made.args.kw_defaults, strict=True)
    return {keyword.arg: ast.literal_eval(default) for keyword, default in pairs if default is not None}


def _recipes(tree: ast.Module) -> dict[str, dict[str, Any]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "RECIPES":
            return ast.literal_eval(node.value)
    return {}


def _joined(text: str) -> str:
    return " ".join(text.split())
