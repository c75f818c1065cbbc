"""Sounds of any length in memory, as their spectrograms one after the other: decoded once, no worker, no waiting."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.resident import ahead
from ownlatent.data.source import Source
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores
from ownlatent.types import Sample


class Frames:
    """N spectrograms: frames (sum of their lengths, 64) uint16; ends (N,) the number of the frame behind each.

    labels: (N,) or None. names: of each. skipped: (name, reason) of the sounds that could not be read.
    """

    format = Format(1, 16, sound=True)

    def __init__(
        self,
        frames: Tensor,
        ends: np.ndarray,
        names: Sequence[str],
        labels: Sequence[int | None] | None = None,
        classes: Sequence[str] | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        name: str = "sounds",
    ):
        self.frames, self.ends, self._names, self._labels = frames, ends, list(names), labels
        self.classes, self.skipped, self.name = classes, list(skipped), name

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        first = int(self.ends[index - 1]) if index else 0
        picture = self.frames[first : int(self.ends[index])].T.unsqueeze(0)
        return Sample(picture, None if self._labels is None else self._labels[index], self._names[index])

    def title(self, index: int) -> str:
        return self._names[index]


def load_frames(source: Source, most: int, progress: Callable[[float], None] | None = None) -> Frames | None:
    """Decode a whole source of sounds into memory, a thread per processor; None if it takes more than `most` bytes.

    progress is called with the share that is done. Raises OwnlatentError if nothing can be read.
    """
    parts: list[Tensor] = []
    names, labels, skipped, size = [], [], [], 0

    def fetch(index: int) -> Sample | str:
        try:
            return source[index]
        except Unreadable as error:
            return str(error)

    pool = ThreadPoolExecutor(cores())
    try:
        for index, result in enumerate(ahead(pool, fetch, len(source))):
            if isinstance(result, str):
                skipped.append((source.title(index), result))
                continue
            parts.append(result.image[0].T.contiguous())
            names.append(result.name)
            labels.append(result.label)
            size += parts[-1].nbytes
            if 2 * size > most:  # once as parts and once together
                return None
            if progress:
                progress((index + 1) / len(source))
    finally:
        pool.shutdown(cancel_futures=True)
    if not parts:
        raise OwnlatentError(f"none of the {len(source)} sounds of {source.name} can be read: {skipped[0][1]}")
    ends = np.cumsum([len(part) for part in parts])
    known = None if source.classes is None else labels
    return Frames(torch.cat(parts), ends, names, known, source.classes, skipped, source.name)
