"""Images inside tables: Parquet files, and what Hugging Face's `save_to_disk` writes, each found by its number."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.data.decode import Unreadable
from ownlatent.data.index.tables import as_values, column_of, describe, is_image, mappable_copy, split_images
from ownlatent.data.labels import Label, find_column, number_labels, read_classes
from ownlatent.data.probe import format_of_files
from ownlatent.data.reasons import shown
from ownlatent.data.source import EncodedSource
from ownlatent.errors import OwnlatentError
from ownlatent.types import NOUNS, Modality

COLUMNS: dict[Modality, tuple[str, ...]] = {
    "image": ("image", "img", "images", "picture", "photo", "jpg", "jpeg", "png", "bytes", "data"),
    "audio": ("audio", "sound", "wav", "flac", "mp3", "ogg", "bytes", "data"),
}
"""What a column of them is called, the surest name first."""
KINDS: dict[Modality, str] = {"image": "Image", "audio": "Audio"}
"""What Hugging Face calls such a column's type."""


class Parquet(EncodedSource):
    """The image files in a column of one or more tables, in the order of the tables and of their rows.

    The column holds the bytes of image files, or a struct with such `bytes` and perhaps a `path`, as
    Hugging Face stores images. What is small is read into memory; what is larger is copied once to an
    Arrow file in the cache folder, which is mapped. .arrow files are mapped as they are.

    labelled: the labels are in the column `label`, or in the only one that says that it holds classes.
    Names of classes come from the table's own description or from a classes.txt beside it.

    Raises OwnlatentError if there is no such column or it cannot be read, or if labels are missing.
    """

    def __init__(self, paths: Sequence[Path], name: str, labelled: bool = False, modality: Modality = "image"):
        self.name, self._paths = name, list(paths)
        schemas, rows = zip(*map(describe, paths), strict=True)
        self._rows = np.cumsum([0, *rows])  # (tables + 1,): number of each one's first row
        if not len(self):
            raise OwnlatentError(f"{name} has no rows: give tables that hold {NOUNS[modality]}")
        features = _features(schemas[0])
        self._column = _find_images(schemas[0], features, name, modality)
        for path, schema in zip(paths, schemas, strict=True):
            if self._column not in schema.names or not is_image(schema.field(self._column).type):
                raise _unlike(path, paths[0], self._column)
        self._copy = mappable_copy(self._paths, self._column, name)
        self._load()
        self._labels: np.ndarray | None = None
        if labelled:
            self._labels, self.classes = self._number_labels(schemas, features)
        self.format = format_of_files(self)

    def __len__(self) -> int:
        return int(self._rows[-1])

    def encoded(self, index: int) -> bytes:
        data, paths, row = self._at(index)
        if data[row].is_valid:
            return data[row].as_py()
        path = paths[row].as_py() if paths is not None else None
        raise Unreadable(f"its row holds no image but the path {path}" if path else "its row holds no image")

    def title(self, index: int) -> str:
        _, paths, row = self._at(index)
        path = paths[row].as_py() if paths is not None else None
        index = range(len(self))[index]
        table = int(np.searchsorted(self._rows, index, side="right")) - 1
        place = f"row {index - self._rows[table]} of {self._paths[table].name}"
        return shown(f"{path} ({place})" if path else place)

    def label(self, index: int) -> int | None:
        return None if self._labels is None else int(self._labels[index])

    def _at(self, index: int) -> tuple[Any, Any, int]:
        """The bytes and the paths of the chunk that holds an image, and its row in the chunk."""
        index = range(len(self))[index]
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        return *self._chunks[chunk], index - int(self._starts[chunk])

    def _load(self) -> None:
        paths = [self._copy] if self._copy else self._paths
        chunks = (chunk for path in paths for chunk in column_of(path, self._column))
        self._chunks = [split_images(chunk) for chunk in chunks if len(chunk)]
        self._starts = np.cumsum([0, *(len(data) for data, _ in self._chunks)])

    def _number_labels(self, schemas: Sequence[Any], features: Mapping[str, Any]) -> tuple[np.ndarray, list[str]]:
        others = [name for name in schemas[0].names if name != self._column]
        column = find_column({name: _names_of(features, name) is not None for name in others}, self.name)
        values: list[Label] = []
        for path, schema in zip(self._paths, schemas, strict=True):
            if column not in schema.names:
                raise _unlike(path, self._paths[0], column)
            for chunk in column_of(path, column):
                values += as_values(chunk, f"the column `{column}` of {path}")
        names = _names_of(features, column) or read_classes(self._paths[0].parent)
        return number_labels(values, names, self.name, f"fill in its column `{column}`")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_chunks": None}  # a worker process reads or maps the files by itself

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load()


def _unlike(path: Path, first: Path, column: str) -> OwnlatentError:
    return OwnlatentError(f"{path} has no such column `{column}` as {first} has: give tables of one kind")


def _features(schema: Any) -> Mapping[str, Any]:
    """What Hugging Face wrote about the columns, by their names; empty where it did not."""
    try:
        return json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}


def _names_of(features: Mapping[str, Any], column: str) -> list[str] | None:
    """The names of the classes that a column is said to hold."""
    feature = features.get(column)
    names = feature.get("names") if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel" else None
    return list(names.values() if isinstance(names, Mapping) else names) if names else None


def _find_images(schema: Any, features: Mapping[str, Any], name: str, modality: Modality) -> str:
    """The name of the column of images. Raises OwnlatentError, with all columns, if it is none or could be several."""
    able = [field.name for field in schema if is_image(field.type)]
    declared = [column for column in able if isinstance(features.get(column), Mapping)]
    found = [column for column in declared if features[column].get("_type") == KINDS[modality]] or able
    named = [column for column in COLUMNS[modality] if column in found]
    if len(found) == 1 or named:
        return (named or found)[0]
    if found:
        raise OwnlatentError(
            f"{name} has several columns that may hold {NOUNS[modality]}, {', '.join(found)}: rename the one to use to "
            f"`{modality}`"
        )
    columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
    raise OwnlatentError(
        f"{name} has no column of {NOUNS[modality]} but {columns}: one of them must hold the "
        f"bytes of {modality} files (binary)"
    )
