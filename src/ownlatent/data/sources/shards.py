"""Images, or sounds, in tar files, as WebDataset keeps them, each found by its number.

The tar files are never read from end to end: their headers are walked once, and an image is then one
read at a known place. Order, exact resuming and the division of the images among workers and processes
stay what they are for every other source, and no image can be lost or seen twice.
"""

import json
import logging
import os
from collections.abc import Sequence
from functools import lru_cache
from io import FileIO
from pathlib import Path

import numpy as np

from ownlatent.data.decode import Unreadable
from ownlatent.data.index.shard_index import index_all
from ownlatent.data.labels import NAMES, Label, number_labels, read_classes
from ownlatent.data.probe import format_of_files
from ownlatent.data.reasons import brief, shown
from ownlatent.data.source import EncodedSource
from ownlatent.errors import OwnlatentError
from ownlatent.types import Modality

log = logging.getLogger("ownlatent")

_LARGEST = 2 << 30  # bytes of an image file; what is larger is no image, and one read does not give more
_OPEN = 64  # tar files held open: well below what a process may have


class Shards(EncodedSource):
    """The image files in tar files, in the order of the tar files and of the images in each.

    labelled: each image's class is in a file of the same name up to its first dot, KEY.cls (a number
    or a word) or KEY.json (an object with "label"). classes.txt beside the tar files names the numbers.
    skipped: (name, reason) of what a tar file names and does not hold, because it is cut off or damaged.

    Raises OwnlatentError if nothing can be read or, if asked for, if labels are missing.
    """

    def __init__(self, paths: Sequence[Path], name: str, labelled: bool = False, modality: Modality = "image"):
        self.name = name
        self._paths = [os.fspath(path) for path in paths]
        indexes = index_all(self._paths, modality)
        self.skipped = [
            (f"{path.name}/{what}" if what else path.name, reason)
            for path, index in zip(paths, indexes, strict=True)
            for what, reason in index.skipped
        ]
        self._states = [(index.size, index.mtime) for index in indexes]
        counts = [len(index.offsets) for index in indexes]
        self._first = np.cumsum([0, *counts])  # (shards + 1,): number of each one's first image
        if not self._first[-1]:
            raise OwnlatentError(_nothing_in(name, len(paths), self.skipped))
        lengths = [len(index.names) for index in indexes]
        shifts = np.repeat(np.cumsum([0, *lengths[:-1]]), counts)
        self._names = np.concatenate([index.names for index in indexes])
        self._ends = np.concatenate([index.ends for index in indexes]) + shifts
        self._offsets = np.concatenate([index.offsets for index in indexes])
        self._sizes = np.concatenate([index.sizes for index in indexes])
        if passed_over := sum(index.passed_over for index in indexes):
            log.info(
                "data       %d images are left out that only go with another one, as x.mask.png with x.jpg", passed_over
            )
        self._labels: np.ndarray | None = None
        if labelled:
            columns = [
                np.concatenate([getattr(index, f"label_{part}") for index in indexes]).tolist()
                for part in ("offsets", "sizes", "json")
            ]
            values = [self._read_label(number, *place) for number, place in enumerate(zip(*columns, strict=True))]
            remedy = 'beside each image KEY.jpg there must be a KEY.cls or a KEY.json with "label"'
            self._labels, self.classes = number_labels(values, read_classes(paths[0].parent), name, remedy)
        self.format = format_of_files(self)

    def __len__(self) -> int:
        return len(self._offsets)

    def encoded(self, index: int) -> bytes:
        index = range(len(self))[index]
        if self._sizes[index] > _LARGEST:
            raise Unreadable(f"larger than {_LARGEST >> 30} GiB")
        return self._read(self._shard(index), int(self._offsets[index]), int(self._sizes[index]))

    def title(self, index: int) -> str:
        index = range(len(self))[index]
        begin = self._ends[index - 1] if index else 0
        name = shown(self._names[begin : self._ends[index]].tobytes())
        return f"{os.path.basename(self._paths[self._shard(index)])}/{name}"

    def label(self, index: int) -> int | None:
        return None if self._labels is None else int(self._labels[index])

    def _shard(self, index: int) -> int:
        return int(np.searchsorted(self._first, index, side="right")) - 1

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        try:
            file = _opened(self._paths[shard], *self._states[shard])
            status = os.fstat(file.fileno())
            data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise Unreadable(brief(error)) from None
        if len(data) < size or (status.st_size, status.st_mtime_ns) != self._states[shard]:
            raise Unreadable("the tar file has changed since it was listed")
        return data

    def _read_label(self, index: int, offset: int, size: int, is_json: bool) -> Label:
        """What a sample's .cls or .json file says, or None where there is none. Raises OwnlatentError."""
        if offset < 0:
            return None
        try:
            text = self._read(self._shard(index), offset, size).decode()
            value = json.loads(text) if is_json else text.strip()
        except (Unreadable, ValueError) as error:
            raise OwnlatentError(
                f"the label of {self.title(index)} cannot be read ({error}): repair its file"
            ) from None
        if is_json:
            value = next((value[name] for name in NAMES if name in value), None) if isinstance(value, dict) else None
        return value if value is None or isinstance(value, int) else str(value)


@lru_cache(_OPEN)
def _opened(path: str, size: int, mtime: int) -> FileIO:
    """The tar file, open. size, mtime: of the one that is wanted, should another have taken its place. Raises OSError.

    Whoever reads holds the file object, so it is closed only after the last read even if it has left the
    cache; and reading at a place needs no common position, so threads and forked processes may share it.
    """
    return open(path, "rb", buffering=0)


def _nothing_in(name: str, count: int, skipped: list[tuple[str, str]]) -> str:
    what = "the tar file" if count == 1 else f"the {count} tar files of"
    if skipped:
        return f"no image can be read in {what} {name} ({skipped[0][0]}: {skipped[0][1]}): copy the data again"
    return f"no image in {what} {name}: give tar files that hold image files"
