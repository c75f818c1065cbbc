"""Which of a TIFF's pages are the image, and what they hold, as the numbers of it."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ownlatent.data.formats.limits import MOST_PLANES, check_page, check_stack

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffFrame, TiffPage

_TOLD = ("shaped", "ome", "imagej", "qpi")  # kinds of files that tell what their pages are, in tifffile's words
_WHOLE = "YXCS"  # rows, columns, channels, samples of a pixel: what is read whole; of other axes the first place is
_MOST = 64  # pages of unknown meaning are no channels if there are more
_NARROW = 32  # pixels: a last axis below, if it is also shorter than the first, is the channels


class Stack:
    """The image in a TIFF file: all of its channels, at the first time, depth and position.

    OME, ImageJ, PerkinElmer QPI and tifffile's own files tell what their axes are, whichever pages they are on. An
    array that tifffile wrote without a name for its axes is (C, H, W) for up to 64 pages, or (H, W, C), much as a .npy
    file is. Beyond, and where a file tells nothing (scanned documents, animations), the first page is the image.
    """

    def __init__(self, file: "TiffFile"):
        self.page = file.pages.first
        pages: Sequence[TiffPage | TiffFrame | None] = [self.page]
        self.axes, self.shape = self.page.axes, self.page.shape
        self.start = self.page.dataoffsets[0] if self.page.is_final else None  # where all numbers lie as they are
        if any(getattr(file, f"is_{kind}") for kind in _TOLD):
            check_stack(file)
            series = file.series[0]
            if series.kind in _TOLD:
                self.page, self.start, pages = series.keyframe, series.dataoffset, series
                self.axes, self.shape = series.axes, series.shape
            if series.kind == "shaped":
                self._name_axes()
        self.dtype = np.dtype(self.page.dtype).newbyteorder(file.byteorder)
        self.kept = [axis for axis in self.axes if axis in _WHOLE]
        lengths = zip(self.axes, self.shape, strict=True)
        self.lengths = {axis: int(length) for axis, length in lengths if axis in _WHOLE}
        self.index = [slice(None) if axis in _WHOLE else 0 for axis in self.axes]
        if self.start is None:
            self._choose(pages)

    def read(self, data: bytes) -> np.ndarray:
        """(H, W, channels x samples) as they are stored. Raises on pages that are missing or too large."""
        if self.start is not None:
            count = math.prod(self.shape)
            if self.start + count * self.dtype.itemsize > len(data):
                raise EOFError
            numbers = np.frombuffer(data, self.dtype, count, self.start).reshape(self.shape)[tuple(self.index)]
        else:
            for page in self.pages:
                check_page(data, page, self.page)
            inner, index = self.shape[self.outer :], tuple(self.index[self.outer :])
            numbers = np.stack([page.asarray(maxworkers=1).reshape(inner)[index] for page in self.pages])
            numbers = numbers.reshape([self.lengths[axis] for axis in self.kept])
        numbers = numbers.transpose([self.kept.index(axis) for axis in _WHOLE if axis in self.kept])
        return numbers.reshape(*numbers.shape[:2], -1)

    def _name_axes(self) -> None:
        """What nobody has named is Q to tifffile; and it takes any (3, H, W) or (4, H, W) for RGB with transparency."""
        self.axes = self.axes.replace("SYX", "CYX")
        if self.axes[-3:] == "QYX" and not {"C", "S"} & set(self.axes):
            if self.shape[-1] < min(self.shape[-3], _NARROW):
                self.axes = self.axes[:-3] + "YXC"
            elif self.shape[-3] <= _MOST:
                self.axes = self.axes[:-3] + "CYX"

    def _choose(self, pages: "Sequence[TiffPage | TiffFrame | None]") -> None:
        """Sets the pages that are to be read; `outer` is how many of the axes go from page to page."""
        inner = [math.prod(self.shape[axis:]) for axis in range(len(self.shape) + 1)]
        self.outer = inner.index(self.page.size)
        outer = self.shape[: self.outer]
        if math.prod(outer) > MOST_PLANES:
            raise EOFError
        # An OME data set of many files tells of all of them in each: the first times or some channels may be elsewhere.
        first = np.unravel_index(next(at for at, page in enumerate(pages) if page is not None), outer)
        index = [place if whole == 0 else whole for whole, place in zip(self.index, first, strict=False)]
        numbers = np.arange(math.prod(outer)).reshape(outer)[tuple(index)]
        self.pages = [page for number in numbers.ravel().tolist() if (page := pages[number]) is not None]
        if len(self.pages) < numbers.size:
            self.lengths["C"] = len(self.pages)
