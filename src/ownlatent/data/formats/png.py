"""PNG: by Pillow up to eight bits, by imagecodecs above, where Pillow drops half of the bits of colours."""

import io
import struct
import zlib

import numpy as np
from PIL.PngImagePlugin import PngImageFile

from ownlatent.data.formats.exif import orientation_of
from ownlatent.data.formats.picture import Picture, Unreadable
from ownlatent.data.formats.pillow import pixels_of

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # numbers for each pixel, by the colour type
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_GRAY = (0, 4)
_NEEDED = (b"IHDR", b"PLTE", b"IDAT")
_END = b"\0\0\0\0IEND\xaeB`\x82"
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_BEST_RATIO = 1100  # deflate makes nothing smaller than by 1032


class Png(Picture):
    """Grayscale, colour or palette. Only the chunks that the pixels need are ever handed to a decoder."""

    kind = "PNG"

    def __init__(self, data: bytes):
        self.data = memoryview(data)
        self.chunks: list[tuple[bytes, int, int]] = []  # name, from, to: with length and checksum
        at, name = 8, b""
        while name != b"IEND" and at + 12 <= len(data):
            end = at + 12 + int.from_bytes(data[at : at + 4], "big")
            name = data[at + 4 : at + 8]
            if end > len(data):
                break
            self.chunks.append((name, at, end))
            if name == b"eXIf":
                self.orientation = orientation_of(data[at + 8 : end - 4])
            at = end
        if not self.chunks:
            raise EOFError
        name, at, end = self.chunks[0]
        self.width, self.height, self.bits, self.type, _, _, self.interlaced = struct.unpack_from(
            ">IIBBBBB", data, at + 8
        )
        if name != b"IHDR" or end - at != 25 or self.bits not in _DEPTHS.get(self.type, ()):
            raise ValueError
        self.channels, self.depth = 1 if self.type in _GRAY else 3, 16 if self.bits == 16 else 8

    def pixels(self, colour: bool, shrink: int) -> np.ndarray:
        chunks = [(at, end) for name, at, end in self.chunks if name in _NEEDED]
        if any(zlib.crc32(self.data[at + 4 : end - 4]) != _big(self.data[end - 4 : end]) for at, end in chunks):
            raise Unreadable("damaged PNG data")
        coded = sum(end - at - 12 for name, at, end in self.chunks if name == b"IDAT")
        if coded * _BEST_RATIO * 8 < self.height * self.width * self.bits * _SAMPLES[self.type]:
            raise EOFError
        if self.bits == 16 and self.type != 0:
            return self._deep()[:, :, : self.channels]
        clean = b"".join([self.data[:8], *(self.data[at:end] for at, end in chunks), _END])
        return pixels_of(PngImageFile(io.BytesIO(clean)), colour)

    def _deep(self) -> np.ndarray:
        """(H, W, samples) uint16.

        The lines of each pass (one, or seven if it is interlaced) become a PNG by themselves: about anything else,
        libpng as imagecodecs uses it would print its opinion.
        """
        # Imported only here: few files need it, and it takes a moment.
        import imagecodecs

        coded = b"".join(self.data[at + 8 : end - 4] for name, at, end in self.chunks if name == b"IDAT")
        lines, samples = zlib.decompressobj(), _SAMPLES[self.type]
        result = np.empty((self.height, self.width, samples), np.uint16)
        for left, top, across, down in _ADAM7 if self.interlaced else ((0, 0, 1, 1),):
            part = result[top::down, left::across]
            if not part.size:
                continue
            size = part.shape[0] * (1 + part.shape[1] * samples * 2)
            content = lines.decompress(coded, size)
            coded = lines.unconsumed_tail
            if len(content) < size:
                raise EOFError
            header = struct.pack(">IIBBBBB", part.shape[1], part.shape[0], 16, self.type, 0, 0, 0)
            chunks = [_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(content, 0))]
            part[:] = imagecodecs.png_decode(b"".join([self.data[:8], *chunks, _END])).reshape(part.shape)
        return result


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(name))
    return b"".join([struct.pack(">I", len(content)), name, content, struct.pack(">I", checksum)])


def _big(four: memoryview) -> int:
    return int.from_bytes(four, "big")
