"""What every kind of image file can do: say what it holds by its header, and give its pixels."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np

MAX_PIXELS = 178_956_970  # what Pillow refuses as a decompression bomb: 512 MiB of colour
MAX_NUMBERS = 4 * MAX_PIXELS  # height x width x channels


class Unreadable(Exception):
    """One image that cannot be read: it is skipped, counted and listed with this reason."""


class Format(NamedTuple):
    """What the images of a source are: depth is 8 (uint8) or 16 (uint16) bits for each of the channels.

    sound: they are spectrograms of sounds.
    """

    channels: int
    depth: int
    sound: bool = False


class Picture(ABC):
    """One image file. The constructor reads no more than the header; anything may be raised by a damaged file.

    height, width and pixels are as stored; orientation (EXIF, 1 to 8) says how they are turned.
    """

    kind: str
    height: int
    width: int
    channels: int
    depth: int
    orientation: int = 1
    is_sound: bool = False

    @abstractmethod
    def __init__(self, data: bytes): ...

    @abstractmethod
    def pixels(self, colour: bool, shrink: int) -> np.ndarray:
        """(H, W) or (H, W, C) uint8 or uint16.

        colour: whether three channels are wanted; else one is enough, and either is allowed.
        shrink: 1, 2, 4 or 8, the fraction of the size that is enough.
        """

    def check(self) -> None:
        """Raises Unreadable before anything is allocated for an image of no or too many pixels."""
        pixels = self.height * self.width
        if pixels <= 0 or self.channels <= 0:
            raise Unreadable("an image without pixels")
        if pixels > MAX_PIXELS or pixels * self.channels > MAX_NUMBERS:
            raise Unreadable(f"{pixels / 1e6:,.0f} megapixels are too many: it may be a decompression bomb")
