"""Labelled images as an evaluator reads them: in order, at the size that an encoder takes, a batch at a time."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import torch
from torch import Tensor

from ownlatent.data.decode import Format, Unreadable, fit_square
from ownlatent.data.pixels import conform
from ownlatent.data.resident import ahead
from ownlatent.data.source import EncodedSource, Source
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores
from ownlatent.types import Sample

_BATCH = 512


class Labelled:
    """A source with labels, of which every reading leaves out the same images that cannot be read.

    Images are decoded each time that they are asked for, so that memory does not grow with their number. skipped:
    {title: reason}, after a reading. Raises OwnlatentError if the source has no labels.
    """

    def __init__(self, source: Source):
        check_labelled(source)
        self.source, self.name, self.classes = source, source.name, _distinct(source.classes or ())
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

    def batches(self, channels: int, size: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images (B, channels, size, size), uint8 or uint16, with their labels (B,) and places (B,) in the source.

        Raises OwnlatentError if no image can be read, or if they have other channels that are neither gray nor colour.
        """

        def fetch(index: int) -> Sample | str:
            try:
                sample = self.source[index]
            except Unreadable as error:
                return str(error)
            return sample._replace(image=with_channels(fit_square(sample.image, size), channels, self.name))

        waiting: list[tuple[Tensor, int | None, int]] = []
        found = 0
        with ThreadPoolExecutor(cores()) as pool:
            for index, sample in enumerate(ahead(pool, fetch, len(self.source))):
                if isinstance(sample, str):
                    self.skipped[self.source.title(index)] = sample
                    continue
                found += 1
                waiting.append((sample.image, sample.label, index))
                if len(waiting) == _BATCH:
                    yield _stack(waiting)
                    waiting = []
        if waiting:
            yield _stack(waiting)
        if not found:
            reason = next(iter(self.skipped.values()))
            raise OwnlatentError(f"none of the {len(self.source)} images of {self.name} can be read: {reason}")


def part_of(source: Source, rows: Sequence[int]) -> Source:
    """Some images of a source, in the order given, as a source of their own: of files, if the source is."""
    return _EncodedPart(source, rows) if isinstance(source, EncodedSource) else _Part(source, rows)


class _Part:
    def __init__(self, source: Source, rows: Sequence[int]):
        self.source, self.rows = source, list(rows)
        self.name, self.classes = source.name, source.classes

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


def _distinct(names: Sequence[str]) -> list[str]:
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


def _stack(waiting: Sequence[tuple[Tensor, int | None, int]]) -> tuple[Tensor, Tensor, Tensor]:
    images, labels, places = zip(*waiting, strict=True)
    return torch.stack(images), torch.tensor(labels), torch.tensor(places)


def with_channels(image: Tensor, channels: int, name: str) -> Tensor:
    """The image (C, H, W) with the channels wanted. Raises OwnlatentError if that is no change from gray to colour."""
    try:
        return conform(image, Format(channels, 8 * image.element_size()))
    except Unreadable:
        raise OwnlatentError(
            f"the images of {name} have {image.shape[0]} channels and the encoder takes {channels}: give images of one "
            "kind"
        ) from None
