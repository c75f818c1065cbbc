"""Images as an encoder takes them: in order, at its size, decoded ahead of it, a batch at a time."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import gcd
from typing import NamedTuple

import torch
from torch import Tensor

from ownlatent.data.decode import Format, Unreadable, fit
from ownlatent.data.pixels import conform
from ownlatent.data.resident import ahead
from ownlatent.data.source import Source, Stacked
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores
from ownlatent.types import Size, height_and_width

_PIECE = 8  # images that a thread reads at a time: handing over each by itself takes as long as decoding a small one


class Batch(NamedTuple):
    """Images `first` to `stop` of a source.

    images: (B, C, S, S), uint8 or uint16, of those that can be read, in order; None if there are none. places, names,
    labels: of the same B images. skipped: (place, name, reason) of the others.
    """

    first: int
    stop: int
    images: Tensor | None
    places: Sequence[int]
    names: Sequence[str]
    labels: Sequence[int | None]
    skipped: Sequence[tuple[int, str, str]]


def batches(source: Source, channels: int, size: Size, batch_size: int = 512, start: int = 0) -> Iterator[Batch]:
    """The images of a source from `start` on, squared and brought to (channels, size, size), `batch_size` at a time.

    The next batch is decoded by a thread per processor while this one is used. Where one ends depends on start and
    batch_size alone, so that a reading can go on at any `stop`. Raises OwnlatentError if the images have other
    channels that are neither gray nor colour.
    """
    piece = gcd(batch_size, _PIECE)
    stack = source.stack if isinstance(source, Stacked) else None
    if stack is not None and (known := stack(0, 1)) is not None and _fits(known[0], channels, size):
        piece = batch_size  # there is nothing to decode

    def read(number: int) -> Batch:
        first = start + number * piece
        return _read(source, first, min(first + piece, len(source)), channels, size)

    each = batch_size // piece
    pool = ThreadPoolExecutor(cores())
    try:
        pieces = ahead(pool, read, -(-(len(source) - start) // piece), each + 4 * cores())
        while some := list(islice(pieces, each)):
            yield _joined(some)
    finally:
        pool.shutdown(cancel_futures=True)


def with_channels(image: Tensor, channels: int, name: str) -> Tensor:
    """The image (C, H, W) with the channels wanted. Raises OwnlatentError if that is no change from gray to colour."""
    try:
        return conform(image, Format(channels, 8 * image.element_size()))
    except Unreadable:
        raise OwnlatentError(
            f"the images of {name} have {image.shape[0]} channels and the encoder takes {channels}: give images of one "
            "kind"
        ) from None


def check_any_read(found: int, source: Source, reason: str) -> None:
    """Raise OwnlatentError if none of a source's images could be read, with the reason of one of them."""
    if not found:
        raise OwnlatentError(f"none of the {len(source)} images of {source.name} can be read: {reason}")


def _read(source: Source, first: int, stop: int, channels: int, size: Size) -> Batch:
    if isinstance(source, Stacked) and (found := source.stack(first, stop)) and _fits(found[0], channels, size):
        images, known = found
        names = [source.title(place) for place in range(first, stop)]
        return Batch(first, stop, images, range(first, stop), names, known or [None] * len(names), [])
    read: list[Tensor] = []
    places: list[int] = []
    names, labels, skipped = [], [], []
    for place in range(first, stop):
        try:
            sample = source[place]
        except Unreadable as error:
            skipped.append((place, source.title(place), str(error)))
            continue
        read.append(with_channels(fit(sample.image, size), channels, source.name))
        places.append(place)
        names.append(sample.name)
        labels.append(sample.label)
    return Batch(first, stop, torch.stack(read) if read else None, places, names, labels, skipped)


def _fits(images: Tensor, channels: int, size: Size) -> bool:
    return images.shape[1:] == (channels, *height_and_width(size))


def _joined(pieces: Sequence[Batch]) -> Batch:
    if len(pieces) == 1:
        return pieces[0]
    images = [piece.images for piece in pieces if piece.images is not None]
    return Batch(
        pieces[0].first,
        pieces[-1].stop,
        torch.cat(images) if images else None,
        [place for piece in pieces for place in piece.places],
        [name for piece in pieces for name in piece.names],
        [label for piece in pieces for label in piece.labels],
        [each for piece in pieces for each in piece.skipped],
    )
