"""What a file of features holds, whatever its format."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ownlatent.data.sources.folder import printable

FORMAT = 1
"""Of what is said about the features; grows when an older version could not read it."""
_CHUNK_BYTES = 16 << 20  # of features in memory at a time
_MOST_ROWS = 1 << 16


class Chunk(NamedTuple):
    """Some images, one after the other.

    rows: their numbers in the data. paths: their names, each in one line. labels: the names of their classes, or None.
    features: (n, D) float32 or float16; (n, 0) where they were not asked for.
    """

    rows: Sequence[int]
    paths: Sequence[str]
    labels: Sequence[str | None]
    features: np.ndarray


class Table(Protocol):
    """Features and whose they are.

    about: format, ownlatent (the version), encoder, weights (a fingerprint), layer or None, normalised, dtype,
    dimensions, data (what opens it again, or None), name (of the data), images (how many it holds), skipped (how many
    of these cannot be read) and unreadable (names and reasons of the first of them).
    """

    about: Mapping[str, Any]

    def __len__(self) -> int: ...

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        """All of it in order, never more than some megabytes at a time."""


def rows_at_once(about: Mapping[str, Any]) -> int:
    """How many images make a chunk."""
    width = about["dimensions"] * np.dtype(about["dtype"]).itemsize
    return max(1, min(_MOST_ROWS, _CHUNK_BYTES // width))


def one_line(name: str) -> str:
    r"""A name as it can be shown on one line and stored anywhere.

    >>> print(one_line("a\nb"), one_line("caf\udce9"), one_line("é,😀"))
    a\nb caf\xe9 é,😀
    """
    if name.isprintable():
        return name
    try:
        raw = os.fsencode(name)
    except UnicodeEncodeError:  # half of a character, which no file name holds
        raw = name.encode("utf-8", "surrogatepass")
    return printable(raw)
