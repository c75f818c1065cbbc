"""Text, for everything else: columns row, path, label and f0, f1, ...; what they are stands beside in a .csv.json."""

import csv
import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.features.formats import parsed, unfit
from ownlatent.features.table import Chunk, Table, rows_at_once

_DIGITS = {"float32": "%.9g", "float16": "%.5g"}  # enough for every number to come back as it was
_COLUMNS = ["row", "path", "label"]


def check() -> None:
    """Python reads and writes it."""


def write(path: Path, table: Table) -> None:
    """Label is empty where there is none. A text has no place for metadata, which are written beside it."""
    dimensions = table.about["dimensions"]
    digits = ",".join([_DIGITS[table.about["dtype"]]] * dimensions)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(f"f{number}" for number in range(dimensions))])
        for chunk in table.chunks():
            for row, name, label, values in zip(*chunk[:3], chunk.features.tolist(), strict=True):
                writer.writerow([row, name, label, *(digits % tuple(values)).split(",")])
    about = {**table.about, "rows": len(table), "bytes": path.stat().st_size}
    _beside(path).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def read(path: Path) -> "_Csv":
    try:
        about = parsed(_beside(path).read_bytes(), path)
    except OSError:
        raise unfit(path, f"{_beside(path).name} is missing beside it") from None
    if about.get("bytes") != path.stat().st_size:
        raise unfit(path, f"it is not the one that {_beside(path).name} describes")
    return _Csv(path, about)


class _Csv:
    def __init__(self, path: Path, about: Mapping[str, Any]):
        self.path, self.about = path, about

    def __len__(self) -> int:
        return self.about["rows"]

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        size = rows_at_once(self.about)
        try:
            with self.path.open(newline="", encoding="utf-8") as file:
                lines = csv.reader(file)
                next(lines, None)
                while some := [self._parsed(line, features) for line in islice(lines, size)]:
                    rows, paths, labels, values = zip(*some, strict=True)
                    yield Chunk(rows, paths, labels, np.stack(values))
        except (OSError, ValueError, IndexError, csv.Error) as error:
            raise unfit(self.path, error) from error

    def _parsed(self, line: list[str], features: bool) -> tuple[int, str, str | None, np.ndarray]:
        numbers = map(float, line[3:] if features else ())  # at once: as words they take twenty times the memory
        values = np.fromiter(numbers, self.about["dtype"], self.about["dimensions"] if features else 0)
        return int(line[0]), line[1], line[2] or None, values


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".json")
