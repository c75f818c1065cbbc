"""Files of features: one file is one format, and its name the suffix.

Each has `check()`, which raises OwnlatentError if a package is missing; `write(path, table)`, a table of any length in
little memory; and `read(path)`, which gives such a table back or raises OwnlatentError. What a format cannot hold goes
into files beside, whose names begin with the whole name of the first.
"""

import importlib
import json
import pkgutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ownlatent.errors import OwnlatentError
from ownlatent.features.table import FORMAT, Table

_NEEDED = {"weights", "layer", "dtype", "dimensions", "data", "name", "images"}


def endings() -> list[str]:
    """The endings of files that features can be written to.

    >>> endings()
    ['.csv', '.h5', '.npz', '.parquet']
    """
    return sorted(f".{module.name}" for module in pkgutil.iter_modules(__path__))


def format_of(path: Path) -> ModuleType:
    """The format that a file's ending names. Raises OwnlatentError if there is none, or if a package is missing."""
    ending = path.suffix.lower()
    if ending not in endings():
        raise OwnlatentError(f"{path} is no kind of file that holds features: end it in {', '.join(endings())}")
    found = importlib.import_module(f"{__name__}.{ending[1:]}")
    found.check()
    return found


def read(path: Path) -> Table:
    """The features in a file. Raises OwnlatentError if there are none, or if it is damaged or of a newer version."""
    if not path.is_file():
        raise OwnlatentError(f"there is no file {path}: write one by `ownlatent embed RUN DATA --out {path}`")
    return format_of(path).read(path)


def parsed(text: str | bytes | None, path: Path) -> Mapping[str, Any]:
    """What a file says about its features. Raises OwnlatentError if it says nothing that can be used."""
    try:
        about = json.loads(text or "null")
    except ValueError:
        about = None
    if not isinstance(about, dict) or not about.keys() >= _NEEDED:
        raise unfit(path, "it does not say whose they are")
    if about.get("format") != FORMAT:
        raise OwnlatentError(
            f"{path} has format {about.get('format')}, and this version reads {FORMAT}: update ownlatent"
        )
    return about


def unfit(path: Path, reason: object) -> OwnlatentError:
    """The answer to a file that was not written by `ownlatent embed`, or not as it is now."""
    return OwnlatentError(f"{path} holds no features that can be read ({reason}): write it by `ownlatent embed`")
