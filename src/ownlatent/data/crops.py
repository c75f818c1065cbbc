"""Every view's crop of a batch of images, cut at full resolution: the work of a loader's processes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ownlatent.augment.crop import Box, Crop, boxes_of, crop_image
from ownlatent.augment.recipes import View
from ownlatent.augment.views import Within, sample_crops
from ownlatent.data.decode import Unreadable, decode, shrink_for, size_of
from ownlatent.data.source import EncodedSource, Source, first_readable

_PIECE = 32  # images whose files are in memory at a time


class Crops(Dataset):
    """Item (number, indices, seed) is a batch: V tensors (B, C, S, S) and what belongs to them.

    within: where the indices stand in the batch that the seed is for, if they are not all of it.

    Where nothing can be read the crops are None: an exception would reach the parent as a traceback
    in text. An unreadable image is replaced by the next readable one.
    """

    def __init__(self, source: Source, views: Sequence[View], size: int, within: Within | None = None):
        self.source, self.views, self.within = source, tuple(views), within
        self.sizes = [view.pixels(size) for view in views]

    def __getitem__(self, item: tuple[int, list[int], int]) -> "Batch":
        number, indices, seed = item
        first, total = self.within or (0, len(indices))
        part = slice(first, first + len(indices))
        draws = [drawn.rows(part) for drawn in sample_crops(self.views, total, torch.Generator().manual_seed(seed))]
        skipped: dict[str, str] = {}
        crops: list[np.ndarray] = []
        labels: list[int | None] = []
        try:
            piece = _PIECE if isinstance(self.source, EncodedSource) else 1  # decoded images are large
            for first in range(0, len(indices), piece):
                rows = slice(first, first + piece)
                images = self._images(indices[rows], [draw.rows(rows) for draw in draws], skipped)
                for place, (image, label, boxes) in enumerate(images, first):
                    if not crops:
                        crops = [_room(len(indices), image, size) for size in self.sizes]
                    for v, box in enumerate(boxes):
                        crop_image(image, box, crops[v][place])
                    labels.append(label)
        except _NoneLeft:
            return Batch(None, number, skipped)
        known = None if self.source.classes is None else torch.tensor(labels)
        return Batch([torch.from_numpy(view) for view in crops], number, skipped, known)

    def _images(
        self, indices: Sequence[int], draws: Sequence[Crop], skipped: dict[str, str]
    ) -> Iterator[tuple[Tensor, int | None, list[Box]]]:
        """Each image, decoded as far as is needed, its label if known, and the box of each view in its pixels.

        JPEGs are decoded at a half, a quarter or an eighth where every view is small enough for it.
        """
        opened = [_open(self.source, index, skipped) for index in indices]
        heights, widths = torch.tensor([one.height for one in opened]), torch.tensor([one.width for one in opened])
        boxes = torch.stack([boxes_of(draw, heights, widths) for draw in draws], dim=1).tolist()  # of n images, V boxes
        for place, one in enumerate(opened):
            shrink = _shrink(boxes[place], self.sizes)
            image = _decode(self.source, one, shrink, skipped)
            if image is None:
                # The header could be read and the rest cannot: another image, with the draws of this place.
                one = _open(self.source, one.place + 1, skipped, decoded=True)
                assert isinstance(one.content, Tensor)
                image, rows = one.content, slice(place, place + 1)
                boxes[place] = [boxes_of(draw.rows(rows), one.height, one.width)[0].tolist() for draw in draws]
            # A pixel of an image that was decoded smaller stands for 2, 4 or 8, also where the last one is cut off.
            scale = 1.0 if image.shape[1:] == (one.height, one.width) else 1 / shrink
            moved = [(top * scale, left * scale, h * scale, w * scale) for top, left, h, w in boxes[place]]
            yield image, one.label, moved


class Batch(NamedTuple):
    """V tensors (B, C, S, S), the batch's number, {title of a skipped image: reason}, labels (B,) where known."""

    crops: list[Tensor] | None
    number: int
    skipped: dict[str, str]
    labels: Tensor | None = None


def _room(count: int, image: Tensor, size: int) -> np.ndarray:
    """Memory for a batch of crops of images like this one, not filled.

    numpy asks for huge pages where torch does not: new memory in small ones costs more than the crops.
    """
    dtype = np.uint8 if image.dtype == torch.uint8 else np.uint16
    return np.empty((count, image.shape[0], size, size), dtype)


class _NoneLeft(Exception):
    """No image of the whole source can be read."""


class _Opened(NamedTuple):
    """An image that can be read, as the content of its file or decoded; its place in the source."""

    place: int
    height: int
    width: int
    content: bytes | Tensor
    label: int | None


def _open(source: Source, index: int, skipped: dict[str, str], decoded: bool = False) -> _Opened:
    """The first readable image from `index` on."""

    def read(candidate: int) -> _Opened:
        if isinstance(source, EncodedSource) and not decoded:
            content = source.encoded(candidate)
            height, width = size_of(content)
            return _Opened(candidate, height, width, content, source.label(candidate))
        image, label, _ = source[candidate]
        return _Opened(candidate, image.shape[1], image.shape[2], image, label)

    found = first_readable(source, index, skipped, read)
    if found is None:
        raise _NoneLeft
    return found


def _decode(source: Source, one: _Opened, shrink: int, skipped: dict[str, str]) -> Tensor | None:
    if isinstance(one.content, Tensor):
        return one.content
    assert isinstance(source, EncodedSource)
    try:
        return decode(one.content, source.format, shrink)
    except Unreadable as error:
        skipped[source.title(one.place)] = str(error)
        return None


def _shrink(boxes: Sequence[Sequence[int]], sizes: Sequence[int]) -> int:
    """The largest of 1, 2, 4 and 8 at which no box becomes smaller than its view."""
    return shrink_for(min(min(h, w) / size for (_, _, h, w), size in zip(boxes, sizes, strict=True)))
