"""One image as a NumPy array: .npy"""

import math
import re

import numpy as np

from ownlatent.data.formats.levels import depth_of, to_levels
from ownlatent.data.formats.picture import Picture, Unreadable

_TYPE = re.compile(rb"'descr': *'([<>|=]?(?:[uif][1248]|b1))'")
_ORDER = re.compile(rb"'fortran_order': *(True|False)")
_SHAPE = re.compile(rb"'shape': *\(((?:\d{1,9}, *)*\d{0,9}),?\)")


class Npy(Picture):
    """(H, W), (H, W, C) or (C, H, W) of plain numbers; of three axes the shorter of the outer two is the channels."""

    kind = ".npy"

    def __init__(self, data: bytes):
        # Read here and not by NumPy, which evaluates the header as Python and prints what it thinks of it.
        wide = data[6] >= 2
        self.start = (12 if wide else 10) + int.from_bytes(data[8 : 12 if wide else 10], "little")
        header = data[10 : self.start]
        found = [expression.search(header) for expression in (_TYPE, _ORDER, _SHAPE)]
        if not all(found):
            raise Unreadable("a .npy file of something else than plain numbers")
        kind, order, shape = (match[1] for match in found if match)
        self.dtype, self.fortran = np.dtype(kind.decode()), order == b"True"
        self.shape = tuple(int(length) for length in shape.split(b",") if length.strip())
        if len(self.shape) not in (2, 3):
            raise Unreadable(f"an array with {len(self.shape)} axes: an image has two, or three with its channels")
        self.first = len(self.shape) == 3 and self.shape[0] < self.shape[2]
        if self.first:
            self.channels, self.height, self.width = self.shape
        else:
            self.height, self.width, self.channels = (*self.shape, 1)[:3]
        self.depth = depth_of(self.dtype)
        self.data = data

    def pixels(self, colour: bool, shrink: int) -> np.ndarray:
        count = math.prod(self.shape)
        if len(self.data) < self.start + count * self.dtype.itemsize:
            raise Unreadable("the file ends too early")
        values = np.frombuffer(self.data, self.dtype, count, self.start)
        values = values.reshape(self.shape, order="F" if self.fortran else "C")
        return to_levels(values.transpose(1, 2, 0) if self.first else values, self.depth)
