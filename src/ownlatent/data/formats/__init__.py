"""One file is one kind of image or sound file; which one it is, is told by its content and never by its name."""

import re

from ownlatent.data.formats.jpeg import Jpeg
from ownlatent.data.formats.npy import Npy
from ownlatent.data.formats.others import Avif, Bmp, Gif, Jpeg2000, Ppm, WebP
from ownlatent.data.formats.picture import Picture, Unreadable
from ownlatent.data.formats.png import Png
from ownlatent.data.formats.sound import Sound
from ownlatent.data.formats.tiff import Tiff

_KINDS: tuple[tuple[re.Pattern[bytes], type[Picture]], ...] = tuple(
    (re.compile(signature, re.DOTALL), kind)
    for signature, kind in (
        (rb"\xff\xd8\xff", Jpeg),
        (rb"\x89PNG\r\n\x1a\n", Png),
        (rb"II[*+]\0|MM\0[*+]", Tiff),
        (rb"GIF8[79]a", Gif),
        (rb"RIFF....WEBPVP8[ LX]", WebP),
        (rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0", Bmp),
        (rb"P[1-6f]\s", Ppm),
        (rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", Jpeg2000),
        (rb"....ftyp(?:avif|avis|(?:mif1|msf1).{,64}avi[fs])", Avif),
        (rb"\x93NUMPY", Npy),
        (rb"(?:RIFF|RIFX|RF64)....WAVE|fLaC|OggS|FORM....AIF[FC]|ID3[\x02-\x04]|\xff[\xe2-\xff]", Sound),
    )
)


def recognise(data: bytes) -> type[Picture]:
    """The kind of an image file. Raises Unreadable, with what it is instead where that is known."""
    for signature, kind in _KINDS:
        if signature.match(data):
            return kind
    raise Unreadable(_what_else(data))


def _what_else(data: bytes) -> str:
    if not data:
        return "the file is empty"
    start = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start[:1] == b"<":
        return "not an image but a page or drawing of markup (HTML, XML or SVG)"
    if start.startswith(b"%PDF"):
        return "not an image but a PDF document"
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftyphevc"):
        return "a HEIC photograph, which is not supported: convert it to JPEG"
    if not data.strip(b"\0"):
        return "not an image but zeros only"
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start):
        return "not an image but text"
    return "not an image of a known kind"
