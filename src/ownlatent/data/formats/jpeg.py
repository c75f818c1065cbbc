"""JPEG, by libjpeg-turbo, which can leave out detail that is not wanted while it decodes."""

import io

import numpy as np
import simplejpeg
from PIL.JpegImagePlugin import JpegImageFile

from ownlatent.data.formats.exif import orientation_of
from ownlatent.data.formats.picture import Picture, Unreadable
from ownlatent.data.formats.pillow import pixels_of

_EXIF, _ADOBE, _START_OF_SCAN = 0xE1, 0xEE, 0xDA
_METADATA = frozenset(range(0xE0, 0xF0)) - {_ADOBE}
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_CUT, _DAMAGED = "Premature", ("premature", "bad Huffman", "found marker", "progression")


class Jpeg(Picture):
    """Grayscale, or colour of any kind (CMYK is made RGB); eight bits."""

    kind, depth = "JPEG", 8

    def __init__(self, data: bytes):
        self.data = data
        self.segments: list[tuple[int, int, int]] = []  # marker, from, to
        self.height = self.width = self.channels = 0
        at = 2
        while (marker := data[at + 1]) != _START_OF_SCAN or data[at] != 0xFF:
            if data[at] != 0xFF or marker in (0x00, 0xFF):  # filling
                at += 1
                continue
            end = at + 2 + (data[at + 2] << 8 | data[at + 3])
            if marker in _FRAMES:
                self.height, self.width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
                self.channels = 1 if data[at + 9] == 1 else 3
                if data[at + 4] != 8:
                    raise Unreadable(f"a JPEG of {data[at + 4]} bits, which is not supported")
            elif marker == _EXIF and data[at + 4 : at + 10] == b"Exif\0\0":
                self.orientation = orientation_of(data[at + 10 : end])
            self.segments.append((marker, at, end))
            at = end
        self.scan = at

    def pixels(self, colour: bool, shrink: int) -> np.ndarray:
        space = "RGB" if colour and self.channels == 3 else "GRAY"
        smallest = {"min_height": -(-self.height // shrink), "min_width": -(-self.width // shrink)}
        try:
            if shrink == 1:
                return simplejpeg.decode_jpeg(self.data, space)
            return simplejpeg.decode_jpeg(self.data, space, **smallest)
        except ValueError as error:
            reason = str(error)
        if reason.startswith(_CUT) or self.data.rfind(b"\xff\xd9") < self.scan:
            raise Unreadable("the file ends too early")
        if any(words in reason for words in _DAMAGED):
            raise Unreadable("damaged JPEG data")
        # What is left: a flaw that does not touch the pixels, or a subsampling that the turbo interface does not know.
        return pixels_of(JpegImageFile(io.BytesIO(self._without_metadata())), colour)

    def _without_metadata(self) -> bytes:
        """Pillow warns of what it does not like in metadata; the pixels need no more of them than Adobe's marker."""
        kept = [self.data[at:end] for marker, at, end in self.segments if marker not in _METADATA]
        return b"".join([self.data[:2], *kept, self.data[self.scan :]])
