"""Files that are whole whatever happens: written beside their place, flushed to disk and moved there."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO


def write_json(path: Path, content: Any) -> None:
    """Write JSON as `replace_file` does."""
    replace_file(path, as_json(content))


def as_json(content: Any) -> bytes:
    """Indented, for people too."""
    return (json.dumps(content, indent=2) + "\n").encode()


def replace_file(path: Path, content: bytes) -> None:
    """Put a file with this content in the place of the one that may be there. Raises OSError, and leaves that one."""
    write_beside(path.with_name(path.name + ".tmp"), lambda file: file.write(content), lambda: path)


def write_beside(beside: Path, write: Callable[[BinaryIO], Any], place: Callable[[], Path]) -> Path:
    """Write a file and move it to the place that is then asked for, which it returns.

    A power failure leaves the old file or the new one. What was written in vain is removed: it may be what fills the
    disk. Raises what `write` raises, and OSError.
    """
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        path = place()
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    flush_folder(path.parent)
    return path


def flush_folder(folder: Path) -> None:
    """Bring the names in a folder to disk, where the system lets a folder be opened."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems have no such thing
        pass
    finally:
        os.close(descriptor)
