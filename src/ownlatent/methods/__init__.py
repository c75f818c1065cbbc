"""One file is one method; the file's name is the method's public name."""

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError, nearest

if TYPE_CHECKING:
    from ownlatent.backbones import Backbone
    from ownlatent.methods._base import Method


UNASKED = ("default", "small", "processor", "short", "long")
"""The recipes that apply by themselves, each over the one before."""


def names() -> list[str]:
    """Every method's name, found by listing the files, without importing them."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get(name: str) -> "type[Method]":
    """The class of a method. Raises OwnlatentError with the nearest names if there is none."""
    if name not in names():
        raise OwnlatentError(f"there is no method {name!r}: {nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    from ownlatent.methods._base import Method

    own = [c for c in vars(module).values() if inspect.isclass(c) and c.__module__ == module.__name__]
    return next(c for c in own if issubclass(c, Method))


def recipes(name: str) -> dict[str, dict[str, Any]]:
    """A method's recipes: settings by the command line's dotted names, with an "about" in words.

    Five of them apply unasked, in this order: "default", "small" (images of up to 64 px), "processor" (no
    accelerator), "short" (up to an hour on a processor) and "long" (more than 300 epochs). The others are asked for
    by name.
    """
    return getattr(importlib.import_module(get(name).__module__), "RECIPES", {})


def named_recipes(name: str) -> dict[str, dict[str, Any]]:
    """Those of a method's recipes that are asked for by name, as changes to a recipe.

    What an unasked one would change of the method is given too, as its constructor has it: a named recipe is the
    same on every machine.
    """
    known = settings(name)
    unasked = {key for row in UNASKED for key in recipes(name).get(row, {}) if key.startswith("method.")}
    fixed = {key: known[key.removeprefix("method.")] for key in unasked}
    named = {row: {**fixed, **changes} for row, changes in recipes(name).items() if row not in UNASKED}
    for changes in named.values():
        changes.pop("about", None)
    return named


def usual(name: str, *, small: bool, processor: bool, short: bool, long: bool) -> dict[str, Any]:
    """The settings that a method's recipes make usual under these circumstances."""
    found: dict[str, Any] = {}
    for row, applies in zip(UNASKED, (True, small, processor, short, long), strict=True):
        if applies:
            found |= recipes(name).get(row, {})
    return found


def settings(name: str) -> dict[str, Any]:
    """The keywords that a method's constructor takes, with their defaults."""
    parameters = inspect.signature(get(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def create(name: str, backbone: "Backbone", **keywords: Any) -> "Method":
    """Build a method around a backbone. Raises OwnlatentError for an unknown method or keyword."""
    method = get(name)
    for keyword in keywords:
        if keyword not in settings(name):
            raise OwnlatentError(f"{name} takes no setting {keyword!r}: {nearest(keyword, settings(name))}")
    return method(backbone, **keywords)
