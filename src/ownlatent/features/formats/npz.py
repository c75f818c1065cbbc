"""NumPy's .npz: arrays features (N, D), path, label (empty where there is none), row, and metadata, a text of JSON."""

import json
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from ownlatent.features.formats import parsed, unfit
from ownlatent.features.table import Chunk, Table, rows_at_once

_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_BEGINNING = (1980, 1, 1, 0, 0, 0)  # of the time in archives: the same features make the same file


def check() -> None:
    """NumPy is always there."""


def write(path: Path, table: Table) -> None:
    """Array after array, each in chunks: NumPy itself would want them whole."""
    count, about = len(table), table.about
    text = np.array(json.dumps(about))
    with zipfile.ZipFile(path, "w") as archive:
        shape = count, about["dimensions"]
        _add(archive, "features", np.dtype(about["dtype"]), shape, (chunk.features for chunk in table.chunks()))
        _add(archive, "row", np.dtype(np.int64), (count,), (np.array(c.rows) for c in table.chunks(features=False)))
        for name in ("path", "label"):
            width = max((len(value) for values in _texts(table, name) for value in values), default=0)
            kind = np.dtype(f"U{max(1, width)}")
            _add(archive, name, kind, (count,), (np.array(values) for values in _texts(table, name)))
        _add(archive, "metadata", text.dtype, (), [text])


def _texts(table: Table, name: str) -> Iterator[list[str]]:
    for chunk in table.chunks(features=False):
        yield [value or "" for value in (chunk.paths if name == "path" else chunk.labels)]


def _add(
    archive: zipfile.ZipFile, name: str, kind: np.dtype, shape: tuple[int, ...], parts: Iterable[np.ndarray]
) -> None:
    entry = zipfile.ZipInfo(f"{name}.npy", _BEGINNING)
    entry.external_attr = 0o600 << 16
    entry.compress_type = zipfile.ZIP_DEFLATED if kind.kind == "U" else zipfile.ZIP_STORED
    with archive.open(entry, "w", force_zip64=True) as file:
        facts = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, facts)
        for part in parts:
            file.write(part.astype(kind, order="C", copy=False).tobytes())


def read(path: Path) -> "_Npz":
    try:
        with zipfile.ZipFile(path) as archive, archive.open("metadata.npy") as file:
            kind, _ = _head(file)
            about = parsed(str(np.frombuffer(file.read(), kind)[0]), path)
        with zipfile.ZipFile(path) as archive, archive.open("features.npy") as file:
            _, shape = _head(file)
    except _DAMAGE as error:
        raise unfit(path, error) from error
    return _Npz(path, about, shape[0])


class _Npz:
    def __init__(self, path: Path, about: Mapping[str, Any], rows: int):
        self.path, self.about, self._rows = path, about, rows

    def __len__(self) -> int:
        return self._rows

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        names = ("row", "path", "label", *(["features"] if features else []))
        size = rows_at_once(self.about)
        try:
            with zipfile.ZipFile(self.path) as archive:
                files = [archive.open(f"{name}.npy") for name in names]
                heads = [_head(file) for file in files]
                for first in range(0, len(self), size):
                    count = min(size, len(self) - first)
                    parts = [_next(file, *head, count) for file, head in zip(files, heads, strict=True)]
                    rows, paths, labels = (part.tolist() for part in parts[:3])
                    found = parts[3] if features else np.zeros((count, 0), self.about["dtype"])
                    yield Chunk(rows, paths, [label or None for label in labels], found)
        except _DAMAGE as error:
            raise unfit(self.path, error) from error


def _head(file: IO[bytes]) -> tuple[np.dtype, tuple[int, ...]]:
    """The type and the shape of an array, whose content is then next in the file."""
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("arrays of another layout")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    return kind, shape


def _next(file: IO[bytes], kind: np.dtype, shape: tuple[int, ...], count: int) -> np.ndarray:
    each = shape[1:]
    content = file.read(count * kind.itemsize * int(np.prod(each, dtype=np.int64)))
    return np.frombuffer(content, kind).reshape(count, *each)
