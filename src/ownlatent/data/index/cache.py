"""The user's cache folder: what can be made again, kept because making it takes time."""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

SETTLED = 2 * 10**9  # ns; the coarsest clock of a file system: two changes in less may leave the same time


def cache_folder() -> Path | None:
    """$OWNLATENT_CACHE, else ownlatent in $XDG_CACHE_HOME or ~/.cache; None for a user without a home."""
    asked = os.environ.get("OWNLATENT_CACHE")
    if asked:
        return Path(asked)
    above = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(above if os.path.isabs(above) else os.path.expanduser("~/.cache"), "ownlatent")
    return folder if folder.is_absolute() else None


def key_of(paths: list[str], *more: object) -> str:
    """A file name that changes when one of the files does: where it lies, its size and its time. Raises OSError."""
    facts = [(os.path.abspath(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]
    return hashlib.sha256(repr((facts, more)).encode("utf-8", "surrogatepass")).hexdigest()[:32]


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its place only when it is whole: no reader meets half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with open(handle, "wb") as file:
            yield file
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise
