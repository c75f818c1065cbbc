"""What Pillow reads well as it is: GIF, BMP, WebP, PBM/PGM/PPM, JPEG 2000 and AVIF; of an animation the first frame."""

import io
import struct
from collections.abc import Callable

import numpy as np
from PIL.AvifImagePlugin import AvifImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Image
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.PpmImagePlugin import PpmImageFile
from PIL.WebPImagePlugin import WebPImageFile

from ownlatent.data.formats.exif import orientation_of
from ownlatent.data.formats.picture import Picture, Unreadable
from ownlatent.data.formats.pillow import QUIET_PIXELS, channels_of, depth_of, pixels_of


class _ByPillow(Picture):
    """Grayscale or colour; 16 bits only for grayscale."""

    reader: Callable[..., Image]

    def __init__(self, data: bytes):
        # Not by Image.open, which prints a warning of what is large but not too large.
        self.image = type(self).reader(io.BytesIO(self.prepared(data)))
        self.width, self.height = self.image.size
        self.channels, self.depth = channels_of(self.image), depth_of(self.image)
        exif = self.image.info.get("exif")
        self.orientation = orientation_of(exif.removeprefix(b"Exif\0\0")) if exif else 1

    def prepared(self, data: bytes) -> bytes:
        """The data as Pillow may see them: nothing in them makes it allocate or print when they are opened."""
        return data

    def pixels(self, colour: bool, shrink: int) -> np.ndarray:
        return pixels_of(self.image, colour)


class Bmp(_ByPillow):
    kind, reader = "BMP", BmpImageFile


class Ppm(_ByPillow):
    kind, reader = "PPM", PpmImageFile


class Jpeg2000(_ByPillow):
    kind, reader = "JPEG 2000", Jpeg2KImageFile


class WebP(_ByPillow):
    kind, reader = "WebP", WebPImageFile

    def prepared(self, data: bytes) -> bytes:
        # The decoder, which Pillow makes at once, allocates the whole canvas.
        self.channels = 3
        if data[12:16] == b"VP8X":
            self.width, self.height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
        elif data[12:16] == b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            self.width, self.height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        else:
            self.width, self.height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        self.check()
        return data


class Avif(_ByPillow):
    kind, reader = "AVIF", AvifImageFile

    def prepared(self, data: bytes) -> bytes:
        # Turning is said by the container, which overrules EXIF; and without EXIF there is nothing to warn of.
        before, mark, after = data.partition(b"mdat")
        return b"".join([before.replace(b"Exif", b"Exix"), mark, after])


class Gif(_ByPillow):
    kind, reader = "GIF", GifImageFile

    def prepared(self, data: bytes) -> bytes:
        # A very large canvas that grows with its first frame, or is to be cleared after it, makes Pillow warn.
        width, height, flags = struct.unpack_from("<HHB", data, 6)
        at, disposal = 13 + (3 << (flags & 7) + 1 if flags & 128 else 0), 0
        while data[at] != ord(","):
            if data[at] != ord("!"):
                at += 1
                continue
            if data[at + 1] == 0xF9:
                disposal = data[at + 3] >> 2 & 7
            at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
        left, top, across, down = struct.unpack_from("<HHHH", data, at + 1)
        beyond = left + across > width or top + down > height
        if (beyond or disposal > 1) and max(width, left + across) * max(height, top + down) > QUIET_PIXELS:
            raise Unreadable("an animated GIF of more than 89 megapixels, which is not supported")
        return data
