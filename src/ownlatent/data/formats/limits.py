"""What tifffile is kept from: being heard, and doing more work than a file of that size can be worth."""

import io
import logging
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from ownlatent.data.formats.jpeg import Jpeg
from ownlatent.data.formats.others import Jpeg2000, WebP
from ownlatent.data.formats.picture import MAX_NUMBERS, Picture, Unreadable
from ownlatent.data.formats.png import Png

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage

_MOST_PAGES = 10_000
MOST_PLANES = 100 * _MOST_PAGES  # of which an OME header may speak: most can lie in other files
_SIZES = re.compile(r"""\bSize[CZT]\s*=\s*["'](\d+)""")
_PLACES = re.compile(r"""\b(?:PlaneCount|NumPlanes|IFD|First[CZT])\s*=\s*["'](\d+)""")
# What is told the size before it decodes: none, fax, LZW, deflate, PackBits, LZMA and Zstandard.
_TOLD = frozenset({1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013})
# What would believe the header within each block. Others that imagecodecs knows would too: LERC, JPEG XR and JPEG XL.
_BELIEVING: dict[int, type[Picture]] = {
    **dict.fromkeys((7, 33007, 34892), Jpeg),
    **dict.fromkeys((33003, 33004, 33005, 34712), Jpeg2000),
    **dict.fromkeys((34927, 50001), WebP),
    34933: Png,
}
_thread = threading.local()


class Metered(io.BytesIO):
    """A file of which no more is read than eight times its size; each visit counts for 64 bytes, and a MiB is free.

    So pages that follow each other in a circle, or tags that all point to one large place, come to an end.
    """

    def __init__(self, data: bytes):
        super().__init__(data)
        self.left = 8 * len(data) + (1 << 20)

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self._count(len(content))
        return content

    def readinto(self, buffer: Any, /) -> int:
        length = super().readinto(buffer)
        self._count(length)
        return length

    def _count(self, length: int) -> None:
        self.left -= length + 64
        if self.left < 0:
            raise ValueError


@contextmanager
def silence() -> Iterator[None]:
    """What this thread makes tifffile log, or NumPy warn of, within the block is dropped, and nothing else is.

    A filter stays on tifffile's logger once a TIFF was read. Its level and handlers are the application's: to change
    them for a moment would also hide what other threads have to say.
    """
    logging.getLogger("tifffile").addFilter(_is_audible)  # which adds it only once
    _thread.silent = True
    try:
        with np.errstate(all="ignore"):  # which is a thread's own too
            yield
    finally:
        _thread.silent = False


def _is_audible(record: logging.LogRecord) -> bool:
    return not getattr(_thread, "silent", False)


def check_stack(file: "TiffFile") -> None:
    """Raises Unreadable before too many pages are looked at: those that there are, or that an OME header speaks of."""
    many = len(file.pages) > _MOST_PAGES
    for image in file.pages.first.description.split("Pixels") if file.is_ome else ():
        planes = math.prod(int(size) for size in _SIZES.findall(image))
        many |= max([planes, *map(int, _PLACES.findall(image))]) > MOST_PLANES
    if many:
        raise Unreadable(f"a TIFF of more than {_MOST_PAGES:,} pages: save each image to a file of its own")


def check_page(data: bytes, page: "TiffPage | TiffFrame", key: "TiffPage") -> None:
    """Raises before a page is decoded whose strips or tiles are missing or far larger than the image."""
    size, count, compression = math.prod(key.chunks), math.prod(key.chunked), int(key.compression)
    if size * count > 2 * MAX_NUMBERS:
        raise Unreadable(f"a TIFF in blocks of {size / 1e6:,.0f} million numbers, which is not supported")
    if min(len(page.dataoffsets), len(page.databytecounts)) < count:
        raise EOFError
    if compression in _TOLD:
        return
    if compression not in _BELIEVING:
        raise Unreadable(f"a TIFF with compression {compression}, which is not supported: save it with LZW or deflate")
    for at, length in zip(page.dataoffsets, page.databytecounts, strict=False):
        if at + length > len(data):
            raise EOFError
        if length:  # else the block is left out, and empty
            block = _BELIEVING[compression](data[at : at + length])
            if block.height * block.width > 4 * size:
                raise ValueError
