"""HDF5: data sets features (N, D), path, label (empty where there is none), row, and metadata, a text of JSON."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.errors import OwnlatentError
from ownlatent.features.formats import parsed, unfit
from ownlatent.features.table import Chunk, Table, rows_at_once

_DAMAGE = (OSError, KeyError, ValueError, RuntimeError, TypeError)


def check() -> None:
    _h5py()


def write(path: Path, table: Table) -> None:
    h5py = _h5py()
    count, about, text = len(table), table.about, h5py.string_dtype("utf-8")
    with h5py.File(path, "w") as file:
        file.create_dataset("metadata", data=json.dumps(about), dtype=text)
        shapes = {"features": (count, about["dimensions"]), "row": (count,), "path": (count,), "label": (count,)}
        kinds = {"features": about["dtype"], "row": "int64", "path": text, "label": text}
        parts = {name: file.create_dataset(name, shapes[name], kinds[name]) for name in shapes}
        first = 0
        for chunk in table.chunks():
            here = slice(first, first + len(chunk.rows))
            parts["features"][here], parts["row"][here] = chunk.features, chunk.rows
            parts["path"][here] = np.array(chunk.paths, object)
            parts["label"][here] = np.array([label or "" for label in chunk.labels], object)
            first = here.stop


def read(path: Path) -> "_Hdf5":
    try:
        with _h5py().File(path, "r") as file:
            about = parsed(file["metadata"].asstr()[()], path)
            return _Hdf5(path, about, file["features"].shape[0])
    except _DAMAGE as error:
        raise unfit(path, error) from error


class _Hdf5:
    def __init__(self, path: Path, about: Mapping[str, Any], rows: int):
        self.path, self.about, self._rows = path, about, rows

    def __len__(self) -> int:
        return self._rows

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        size = rows_at_once(self.about)
        try:
            with _h5py().File(self.path, "r") as file:
                for first in range(0, len(self), size):
                    here = slice(first, min(first + size, len(self)))
                    rows = file["row"][here].tolist()
                    labels = [label or None for label in file["label"].asstr()[here]]
                    found = file["features"][here] if features else np.zeros((len(rows), 0), self.about["dtype"])
                    yield Chunk(rows, list(file["path"].asstr()[here]), labels, found)
        except _DAMAGE as error:
            raise unfit(self.path, error) from error


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise OwnlatentError("HDF5 files need one more package: pip install 'ownlatent[hdf5]'") from None
    return h5py
