"""A small data set as one uint8 tensor: no worker, no decoding, no waiting."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from ownlatent.data.decode import Unreadable
from ownlatent.data.source import Source
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores
from ownlatent.types import Sample

Result = TypeVar("Result")


class Resident:
    """Images of one size in memory: images (N, C, H, W) uint8 or uint16, labels (N,) int64 or None.

    skipped lists (name, reason) of the images that could not be read.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        skipped: Sequence[tuple[str, str]] = (),
        name: str = "tensor",
    ):
        self.images, self.labels, self.classes, self.skipped, self.name = images, labels, classes, list(skipped), name

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        label = None if self.labels is None else int(self.labels[index])
        return Sample(self.images[index], label, self.title(index))

    def title(self, index: int) -> str:
        return f"{self.name}[{index}]"

    def stack(self, first: int, stop: int) -> tuple[Tensor, list[int] | None]:
        return self.images[first:stop], None if self.labels is None else self.labels[first:stop].tolist()


def load_resident(
    source: Source,
    transform: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Resident:
    """Decode a whole source into memory, a thread per processor, in the source's order.

    transform brings an image to the common size, where they differ (uint8 (C, H, W) to the same).
    progress is called with the share that is done. Raises OwnlatentError if nothing can be read,
    and MixedSizes at the first image that does not fit one tensor with the others.
    """
    images: Tensor | None = None
    labels: list[int | None] = []
    skipped: list[tuple[str, str]] = []

    def fetch(index: int) -> Sample | str:
        try:
            sample = source[index]
        except Unreadable as error:
            return str(error)
        return sample if transform is None else sample._replace(image=transform(sample.image))

    with ThreadPoolExecutor(cores()) as pool:
        for index, result in enumerate(ahead(pool, fetch, len(source))):
            if isinstance(result, str):
                skipped.append((source.title(index), result))
            else:
                if images is None:  # room for all; what no image is written to takes no memory
                    images = torch.empty((len(source), *result.image.shape), dtype=result.image.dtype)
                if result.image.shape != images.shape[1:]:
                    raise MixedSizes(f"the images of {source.name} differ in size")
                images[len(labels)] = result.image
                labels.append(result.label)
            if progress:
                progress((index + 1) / len(source))
    if images is None:
        raise OwnlatentError(f"none of the {len(source)} images of {source.name} can be read: {skipped[0][1]}")
    known = None if source.classes is None else torch.tensor(labels)
    return Resident(images[: len(labels)], known, source.classes, skipped, source.name)


def ahead(pool: Executor, work: Callable[[int], Result], count: int, most: int | None = None) -> Iterator[Result]:
    """work(0), work(1), ... in order, a few of them done in advance: a million results must not pile up in memory.

    most: how many are done in advance, four for each processor unless given.
    """
    indices = iter(range(count))
    waiting = deque(pool.submit(work, index) for index in islice(indices, most or 4 * cores()))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(work, index) for index in islice(indices, 1))


class MixedSizes(Exception):
    """The images do not have one size, so they do not stack."""


def check_unreadable(skipped: Mapping[str, str], count: int, name: str, most: float) -> None:
    """Raise OwnlatentError if more than the share `most` of `count` images cannot be read."""
    if len(skipped) > most * count:
        title, reason = next(iter(skipped.items()))
        raise OwnlatentError(
            f"{len(skipped)} of the {count} images of {name} cannot be read, the first of them {title} ({reason}): "
            f"repair or remove them, or allow more than {100 * most:g}% by --max-unreadable"
        )
