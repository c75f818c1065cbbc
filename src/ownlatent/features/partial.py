"""Features on their way into a file: a folder beside it, to which whole batches are appended."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from ownlatent.data.reading import Batch
from ownlatent.errors import OwnlatentError
from ownlatent.features.formats import format_of
from ownlatent.features.table import Chunk, one_line, rows_at_once
from ownlatent.files import flush_folder, write_json

_LISTED = 1000  # unreadable images that are named in the file
_NAMES = {
    **{"weights": "encoder", "images": "number of images", "layer": "--layer", "normalised": "--normalise"},
    **{"dtype": "--dtype", "ownlatent": "version of ownlatent"},
}


class Partial:
    """A table that grows by batches. What a killed process left of one is taken away when it is gone on with.

    header: what is known of the features before the first of them, and `classes`, which the labels number, or None.
    stop: how many images of the data are done. skipped: how many of these cannot be read.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]):
        self.folder, self.header = folder, header
        self._width = header["dimensions"] * np.dtype(header["dtype"]).itemsize
        self.stop, self.skipped, self._rows = 0, 0, 0
        self.unreadable: dict[str, str] = {}
        length = self._take_stock()
        # Features first, then the line that makes them count.
        self._features = _cut(folder / "features.bin", self._rows * self._width)
        self._batches = _cut(folder / "batches.jsonl", length)

    def _take_stock(self) -> int:
        """Count what is there of whole batches; the bytes of their lines."""
        length, features = 0, _size(self.folder / "features.bin")
        for line in self._lines():
            try:
                entry = json.loads(line) if line.endswith(b"\n") else {}
            except ValueError:
                entry = {}
            if entry.get("first") != self.stop or (self._rows + len(entry["names"])) * self._width > features:
                break
            self._count(entry)
            length += len(line)
        return length

    @property
    def about(self) -> dict[str, Any]:
        known = {name: value for name, value in self.header.items() if name != "classes"}
        return known | {"skipped": self.skipped, "unreadable": self.unreadable}

    def __len__(self) -> int:
        return self._rows

    def add(self, batch: Batch, features: np.ndarray) -> None:
        """Append a batch, whose features are (B, D) of the header's type. Raises OSError."""
        entry = {
            "first": batch.first,
            "stop": batch.stop,
            "names": list(map(one_line, batch.names)),
            "labels": [None if label is None else int(label) for label in batch.labels],
            "skipped": [[place, one_line(name), reason] for place, name, reason in batch.skipped],
        }
        self._features.write(np.ascontiguousarray(features).data)
        self._features.flush()
        self._batches.write(json.dumps(entry).encode() + b"\n")
        self._batches.flush()
        self._count(entry)

    def _count(self, entry: Mapping[str, Any]) -> None:
        self.stop = entry["stop"]
        self._rows += len(entry["names"])
        self.skipped += len(entry["skipped"])
        for _, name, reason in entry["skipped"][: _LISTED - len(self.unreadable)]:
            self.unreadable[name] = reason

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        size, dimensions = rows_at_once(self.header), self.header["dimensions"]
        classes = self.header["classes"]
        rows: list[int] = []
        paths: list[str] = []
        labels: list[str | None] = []
        with (self.folder / "features.bin").open("rb") as file:

            def take(count: int) -> Chunk:
                found = np.zeros((count, 0), self.header["dtype"])
                if features:
                    found = np.frombuffer(file.read(count * self._width), found.dtype).reshape(count, dimensions)
                chunk = Chunk(rows[:count], paths[:count], labels[:count], found)
                del rows[:count], paths[:count], labels[:count]
                return chunk

            for line in self._lines():
                entry = json.loads(line)
                absent = {place for place, _, _ in entry["skipped"]}
                rows += (place for place in range(entry["first"], entry["stop"]) if place not in absent)
                paths += entry["names"]
                labels += (None if classes is None else classes[label] for label in entry["labels"])
                while len(rows) >= size:
                    yield take(size)
            if rows:
                yield take(len(rows))

    def _lines(self) -> Iterator[bytes]:
        path = self.folder / "batches.jsonl"
        if path.exists():
            with path.open("rb") as file:
                yield from file

    def finish(self, out: Path) -> None:
        """Write the file from what was gathered, and move it into its place when it is whole. Raises OSError."""
        made = self.folder / f"whole{out.suffix.lower()}"
        format_of(out).write(made, self)
        beside = sorted(self.folder.glob(f"{made.name}.*"))  # what a format cannot hold itself
        for path in (*beside, made):
            with path.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(path, out.with_name(out.name + path.name.removeprefix(made.name)))
        flush_folder(out.parent)

    def close(self) -> None:
        self._features.close()
        self._batches.close()


@contextmanager
def partial_of(out: Path, header: Mapping[str, Any], overwrite: bool) -> Iterator[Partial]:
    """What has been gathered for the file `out`, which nobody else adds to meanwhile.

    It stays for the next time, unless it is empty or `out` was finished. Raises OwnlatentError if `out` is there and is
    not to be overwritten, if something else was gathered for it, or if it cannot be written.
    """
    folder = out.with_name(out.name + ".partial")
    lock = FileLock(folder / ".lock", blocking=False)
    with telling(out):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:  # an OSError as well
            raise OwnlatentError(f"another process is writing {out}: wait until it has ended") from None
    try:
        check_free(out, overwrite)
        with telling(out):
            header = json.loads(json.dumps(header))  # as it will be read
            _begin(folder, header, overwrite)
            partial = Partial(folder, header)
        done = False
        try:
            yield partial
            done = True
        finally:
            partial.close()
            if done or not len(partial):
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        lock.release()


def check_free(out: Path, overwrite: bool) -> None:
    """Raise OwnlatentError if there is a file that would be lost."""
    if out.is_dir():
        raise OwnlatentError(f"{out} is a folder: give the name of a file as --out")
    if out.exists() and not overwrite:
        raise OwnlatentError(f"{out} is already there: replace it by --overwrite, or give another --out")


@contextmanager
def telling(out: Path) -> Iterator[None]:
    """What the system says against writing becomes one sentence; what was gathered stays."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OwnlatentError(
            f"cannot write {out} ({reason}): make room or give another --out; the same command goes on where it stopped"
        ) from error


def _begin(folder: Path, header: Mapping[str, Any], overwrite: bool) -> None:
    """See to it that the folder is this header's. Raises OwnlatentError and OSError."""
    path = folder / "header.json"
    try:
        kept = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        kept = None
    if kept == header:
        return
    if kept is not None and not overwrite:
        changed = [_NAMES.get(name, name) for name in header if kept.get(name) != header[name]]
        raise OwnlatentError(
            f"{folder} was begun with another {', '.join(changed)}: finish it by the command that began it, begin "
            "again by --overwrite, or give another --out"
        )
    for old in folder.iterdir():
        if old.name != ".lock":
            old.unlink()
    write_json(path, header)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cut(path: Path, size: int) -> Any:
    """A file to append to, shortened to a size first."""
    file = path.open("ab")
    file.truncate(size)
    return file
