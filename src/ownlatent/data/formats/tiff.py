"""TIFF, which tifffile takes apart; what its numbers mean as colours is told here."""

from typing import Any

import numpy as np
from PIL import Image

from ownlatent.data.formats.levels import to_levels
from ownlatent.data.formats.limits import Metered, silence
from ownlatent.data.formats.picture import Picture, Unreadable
from ownlatent.data.formats.stack import Stack

_NEGATIVE, _GRAY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_CONVERTED = {_CMYK: ("CMYK", 4), _YCBCR: ("YCbCr", 3)}  # Pillow's mode and its channels
_JPEG = (7, 33007, 34892)
# Kinds of files of which tifffile would read every page at once, where the first one is all that is wanted.
_PLAIN: dict[str, Any] = dict.fromkeys(("is_lsm", "is_ndpi", "is_scanimage", "is_mmstack", "is_ndtiff"), False)


class Tiff(Picture):
    """The image of a TIFF or BigTIFF (see Stack): any number of channels, whole numbers or fractions.

    Gray and RGB may have further channels; one of transparency is dropped if it is the only one.
    """

    kind = "TIFF"

    def __init__(self, data: bytes):
        self.data, self.file = data, Metered(data)
        # Imported only here: few sources need it, and it takes a moment.
        from tifffile import TiffFile

        with silence():
            self.stack = Stack(TiffFile(self.file, **_PLAIN))
            self.page, self.lengths = self.stack.page, self.stack.lengths
            orientation = self.page.tags.valueof(274, 1)
            self.compression, self.even = self.page.compression, not self.page.is_subsampled
        self.height, self.width = self.lengths["Y"], self.lengths["X"]
        self.bits, self.colours, kind = self.page.bitspersample, self.page.photometric, self.stack.dtype.kind
        if not isinstance(self.bits, int):
            raise Unreadable("a TIFF whose channels differ in their numbers of bits, which is not supported")
        if self.page.dtype is None or kind not in "buif":
            raise Unreadable(f"a TIFF of {self.bits} bits, which is not supported")
        self.whole = kind in "bu"
        self.depth = 8 if self.bits <= 8 and self.whole else 16
        self.channels = self._channels()
        self.orientation = orientation if orientation in range(1, 9) else 1

    def __del__(self) -> None:
        self.file.close()  # tifffile's objects hold each other, and with them the data, until they are collected

    def pixels(self, colour: bool, shrink: int) -> np.ndarray:
        with silence():
            numbers = self.stack.read(self.data)
            colours = self.page.colormap if self.colours == _PALETTE else None
        if colours is not None:
            # Levels of 16 bits: all the reds, then all the greens, then all the blues.
            return (colours.reshape(3, -1) >> 8).astype(np.uint8).T[numbers[:, :, 0].astype(np.uint8)]
        if self.colours in _CONVERTED and not (self.colours == _YCBCR and self.compression in _JPEG):
            mode, count = _CONVERTED[self.colours]
            content = np.ascontiguousarray(numbers[:, :, :count]).tobytes()
            return np.array(Image.frombytes(mode, (self.width, self.height), content).convert("RGB"))
        levels = to_levels(numbers[:, :, : self.channels], self.depth)
        top = 2**self.bits - 1 if self.whole and 1 < self.bits < 16 else 2**self.depth - 1
        if self.colours == _NEGATIVE:
            levels = levels.dtype.type(top) - levels
        return levels if top >= 255 else (levels.astype(np.uint16) * 255 // top).astype(np.uint8)

    def _channels(self) -> int:
        samples, layers = self.lengths.get("S", 1), self.lengths.get("C", 1)
        if layers > 1:  # in what colours they are shown is of no matter
            self.colours = _NEGATIVE if self.colours == _NEGATIVE else _GRAY
            return layers * samples
        if self.colours in (_NEGATIVE, _GRAY, _RGB):
            base = 3 if self.colours == _RGB else 1
            extra = self.page.extrasamples or (2 if base == 3 else 0,)  # 1 and 2 stand for transparency
            return base if samples == base + 1 and extra[0] in (1, 2) else samples
        even = self.compression in _JPEG or self.even
        wanted = {_PALETTE: 1, _CMYK: 4, _YCBCR: 3 if even else 0}.get(self.colours, 0)
        eight = self.depth == 8 and (self.bits == 8 or self.colours == _PALETTE)
        if eight and wanted and wanted <= samples <= wanted + 1:
            return 3
        raise Unreadable(f"a TIFF with colours of kind {int(self.colours)}, which is not supported: save it as RGB")
