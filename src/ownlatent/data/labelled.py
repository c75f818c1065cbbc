"""Labelled images as an evaluator reads them: in order, at the size that an encoder takes, a batch at a time."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from ownlatent.data.decode import Unreadable
from ownlatent.data.reading import batches, check_any_read
from ownlatent.data.source import EncodedSource, Source
from ownlatent.errors import OwnlatentError
from ownlatent.types import Sample, Size


class Labelled:
    """A source with labels, of which every reading leaves out the same images that cannot be read.

    Images are decoded each time that they are asked for, so that memory does not grow with their number. skipped:
    {title: reason}, after a reading. Raises OwnlatentError if the source has no labels.
    """

    def __init__(self, source: Source):
        check_labelled(source)
        self.source, self.name, self.classes = source, source.name, distinct(source.classes or ())
        self.skipped: dict[str, str] = {}

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that change with any image, any label, or their order."""
        digest = hashlib.blake2b(repr(self.classes).encode("utf-8", "surrogatepass"), digest_size=8)
        for index in range(len(self.source)):
            try:
                if isinstance(self.source, EncodedSource):
                    content, label = self.source.encoded(index), self.source.label(index)
                else:
                    sample = self.source[index]
                    content, label = sample.image.contiguous().numpy().tobytes(), sample.label
                    digest.update(f"{tuple(sample.image.shape)} {sample.image.dtype} ".encode())
            except Unreadable:
                content, label = b"", None
            digest.update(f"{label} {len(content)} ".encode())
            digest.update(content)
        return digest.hexdigest()

    def batches(self, channels: int, size: Size) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images (B, channels, size, size), uint8 or uint16, with their labels (B,) and places (B,) in the source.

        Raises OwnlatentError if no image can be read, or if they have other channels that are neither gray nor colour.
        """
        found = 0
        for batch in batches(self.source, channels, size):
            self.skipped |= {name: reason for _, name, reason in batch.skipped}
            if batch.images is not None:
                found += len(batch.places)
                yield batch.images, torch.tensor(batch.labels), torch.tensor(batch.places)
        check_any_read(found, self.source, next(iter(self.skipped.values()), ""))


def part_of(source: Source, rows: Sequence[int]) -> Source:
    """Some images of a source, in the order given, as a source of their own: of files, if the source is."""
    return _EncodedPart(source, rows) if isinstance(source, EncodedSource) else _Part(source, rows)


class _Part:
    def __init__(self, source: Source, rows: Sequence[int]):
        self.source, self.rows = source, list(rows)
        self.name, self.classes, self.format = source.name, source.classes, getattr(source, "format", None)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.source[self.rows[index]]

    def title(self, index: int) -> str:
        return self.source.title(self.rows[index])


class _EncodedPart(EncodedSource):
    def __init__(self, source: EncodedSource, rows: Sequence[int]):
        self.source, self.rows = source, list(rows)
        self.name, self.classes, self.format = source.name, source.classes, source.format

    def __len__(self) -> int:
        return len(self.rows)

    def encoded(self, index: int) -> bytes:
        return self.source.encoded(self.rows[index])

    def label(self, index: int) -> int | None:
        return self.source.label(self.rows[index])

    def title(self, index: int) -> str:
        return self.source.title(self.rows[index])


def check_labelled(source: Source) -> None:
    """Raise OwnlatentError if a source has no labels."""
    if source.classes is None:
        raise OwnlatentError(f"{source.name} has no labels: give one that has, such as a folder with class subfolders")


def distinct(names: Sequence[str]) -> list[str]:
    """The names, numbered from their second time on: ImageNet has two cranes."""
    times: Counter[str] = Counter()
    found = []
    for name in names:
        times[name] += 1
        found.append(name if times[name] == 1 else f"{name} ({times[name]})")
    return found


def in_classes_of(names: Sequence[str], labels: Tensor, of: Sequence[str]) -> Tensor:
    """Labels (N,) that number `names`, as they number `of`; -1 for a class that is not among `of`."""
    numbers = {name: number for number, name in enumerate(of)}
    return torch.tensor([numbers.get(name, -1) for name in names])[labels]
