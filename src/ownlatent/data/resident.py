"""A small data set as one uint8 tensor: no worker, no decoding, no waiting."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from ownlatent.data.decode import Unreadable
from ownlatent.data.source import Source
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores
from ownlatent.types import Sample

_PROBED = 64


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


def fits_memory(source: Source, limit: int) -> bool:
    """Whether the images, as far as a sample tells, have one size and take at most `limit` bytes."""
    shapes = set()
    for index in range(0, len(source), max(1, len(source) // _PROBED)):
        try:
            shapes.add(source[index].image.shape)
        except Unreadable:
            continue
        if len(shapes) > 1:
            return False
    return len(shapes) == 1 and shapes.pop().numel() * len(source) <= limit


def load_resident(
    source: Source,
    transform: Callable[[Tensor], Tensor] | None = None,
    progress: Callable[[float], None] | None = None,
) -> Resident:
    """Decode a whole source into memory, a thread per processor, in the source's order.

    transform brings an image to the common size, where they differ (uint8 (C, H, W) to the same).
    progress is called with the share that is done. Raises OwnlatentError if nothing can be read,
    and MixedSizes if the images do not fit one tensor.
    """
    samples: list[Sample] = []
    skipped: list[tuple[str, str]] = []

    def fetch(index: int) -> Sample | str:
        try:
            sample = source[index]
        except Unreadable as error:
            return str(error)
        return sample if transform is None else sample._replace(image=transform(sample.image))

    with ThreadPoolExecutor(cores()) as pool:
        for index, result in enumerate(pool.map(fetch, range(len(source)))):
            if isinstance(result, Sample):
                samples.append(result)
            else:
                skipped.append((source.title(index), result))
            if progress:
                progress((index + 1) / len(source))
    if not samples:
        raise OwnlatentError(f"none of the {len(source)} images of {source.name} can be read: {skipped[0][1]}")
    if len({sample.image.shape for sample in samples}) > 1:
        raise MixedSizes(f"the images of {source.name} differ in size")
    labels = None
    if source.classes is not None:
        labels = torch.tensor([sample.label for sample in samples])
    images = torch.stack([sample.image for sample in samples])
    return Resident(images, labels, source.classes, skipped, source.name)


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
