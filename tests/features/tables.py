"""A table of features in memory, to be written by every format."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from ownlatent.features.table import FORMAT, Chunk

HOSTILE = (
    "plain.png",
    'a,"b";c.png',
    "tab\\tand\\nnewline.png",  # as a folder's titles have them
    "café/日本語.png",
    "👩‍🔬😀.png",
    "= 1 + 1, # comment",
    " both ends ",
    "'); DROP TABLE images; --",
)


class InMemory:
    """Features (N, D) with names and labels, a few at a time."""

    def __init__(self, features: np.ndarray, labels: list[str | None] | None = None, at_once: int = 3, **about: Any):
        self.features, self.at_once = features, at_once
        count = len(features)
        self.rows = [2 * row for row in range(count)]
        self.paths = [HOSTILE[row] if row < len(HOSTILE) else f"{row:06d}.jpg" for row in range(count)]
        self.labels = labels or [None] * count
        self.about: dict[str, Any] = {
            **{"format": FORMAT, "ownlatent": "0", "encoder": "small", "weights": "0123456789abcdef", "layer": None},
            **{"normalised": False, "dtype": str(features.dtype), "dimensions": features.shape[1]},
            **{"data": "photos", "name": "photos", "images": 2 * count, "skipped": 1},
            **{"unreadable": {"häßlich 😀.png": "damaged JPEG data"}, **about},
        }

    def __len__(self) -> int:
        return len(self.features)

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        for first in range(0, len(self), self.at_once):
            here = slice(first, first + self.at_once)
            found = self.features[here] if features else self.features[here, :0]
            yield Chunk(self.rows[here], self.paths[here], self.labels[here], found)


def whole(table: Any, features: bool = True) -> Chunk:
    """All chunks of a table as one."""
    chunks = list(table.chunks(features))
    rows, paths, labels = ([value for chunk in chunks for value in chunk[column]] for column in range(3))
    return Chunk(rows, paths, labels, np.concatenate([chunk.features for chunk in chunks]))
