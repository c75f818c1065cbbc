"""The recipe that a run begins with, before anything given beside it."""

from pathlib import Path
from typing import Any

from ownlatent.errors import OwnlatentError, nearest
from ownlatent.train.recipe import Recipe, edit


def begin(recipe: str | Path | Recipe | None, method: str | None) -> tuple[Recipe, dict[str, Any]]:
    """A recipe as given, from a file, or a method's own by its name; and what it changes of the views.

    method: the one asked for beside it, if any. Raises OwnlatentError if there is no such recipe.
    """
    if recipe is None or isinstance(recipe, Recipe):
        return recipe or Recipe(), {}
    if Path(recipe).suffix == ".json":
        return Recipe.load(Path(recipe)), {}
    from ownlatent import methods  # brings torch, which help and errors about options do not need

    method, name = method or Recipe().method, str(recipe)
    rows = methods.named_recipes(method)
    if name not in rows:
        known = f": {nearest(name, rows)}" if rows else ""
        raise OwnlatentError(f"{method} has no recipe {name!r}{known}; a file to start from is a recipe.json of a run")
    early, late = apart(rows[name])
    return edit(Recipe(method=method), early), late


def apart(fields: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The recipe's fields, and the changes to views, which can only be made once the views are chosen."""
    late = {name: value for name, value in fields.items() if name.startswith("views.")}
    return {name: value for name, value in fields.items() if name not in late}, late
