"""The bytes of an image or sound file to a tensor (C, H, W) of uint8 or uint16; `formats/` knows the kinds of files."""

import struct
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.data.formats import recognise
from ownlatent.data.formats.picture import Format, Picture, Unreadable
from ownlatent.data.formats.sound import ENDINGS
from ownlatent.errors import OwnlatentError
from ownlatent.sound.spectrum import MELS
from ownlatent.types import Modality, Size

__all__ = [
    "EXTENSIONS",
    "SEARCHED",
    "Format",
    "Unreadable",
    "decode",
    "fit",
    "fit_square",
    "fit_time",
    "format_of",
    "inspect",
    "resize",
    "shorter_side",
    "size_of",
]

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif"}
EXTENSIONS |= {".npy"}
SEARCHED: dict[Modality, set[str]] = {"image": EXTENSIONS, "audio": ENDINGS}
"""The endings of the files that a folder or an archive is searched for."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green and blue, as in JPEG


def inspect(data: bytes) -> Format:
    """What a file holds, by its header: its channels (transparency does not count) and depth. Raises Unreadable."""
    picture = _open(data)
    return Format(picture.channels, picture.depth, picture.is_sound)


def size_of(data: bytes) -> tuple[int, int]:
    """(height, width) of the upright image, by the file's header. Raises Unreadable."""
    picture = _open(data)
    return (picture.width, picture.height) if picture.orientation > 4 else (picture.height, picture.width)


def decode(data: bytes, format: Format, shrink: int = 1) -> Tensor:
    """One image as (C, H, W), uint8 or uint16 as `format` says, turned upright.

    The tensor is usually a view whose channels lie side by side in memory (the strides of channels last).
    shrink: with 2, 4 or 8 an image of about that fraction of the size is enough, and is given where it saves
    work (JPEG); else the size is the whole one. Gray becomes colour, colour gray, and a depth the other.
    Raises Unreadable with a reason in one line and nothing else, whatever the data hold.
    """
    picture = _open(data)
    if picture.is_sound != format.sound:
        raise Unreadable("a sound among images" if picture.is_sound else "an image among sounds")
    have, want = picture.channels, format.channels
    if have != want and {have, want} != {1, 3}:
        raise Unreadable(f"it has {have} channel{'s' * (have > 1)} and the others {want}")
    try:
        pixels = picture.pixels(want == 3, shrink)
        pixels = _as(format, pixels if pixels.ndim == 3 else pixels[:, :, None])
        if picture.orientation != 1:
            pixels = _upright(pixels, picture.orientation)
        if not pixels.flags.writeable:  # a view of the file's bytes
            pixels = pixels.copy()
        return torch.from_numpy(pixels).permute(2, 0, 1)
    except (Unreadable, OwnlatentError):  # the second where a package is missing
        raise
    except Exception as error:  # decoders raise whatever they like on damaged files
        raise Unreadable(_reason(picture.kind, error)) from error


def format_of(sample: Iterable[bytes]) -> Format:
    """One format for all images of a source, from some of its files; those that cannot be read are passed over.

    Gray and colour together are colour, 8 and 16 bits together are 16. Raises Unreadable with the last
    reason if none can be read, and OwnlatentError if other numbers of channels are mixed.
    """
    formats = set()
    reason = Unreadable("there is no file")
    for data in sample:
        try:
            formats.add(inspect(data))
        except Unreadable as error:
            reason = error
    if not formats:
        raise reason
    together = joint(formats)
    if len({format.sound for format in formats}) > 1:
        raise OwnlatentError("there are images and sounds: give each kind a folder of its own")
    if together is None:
        channels = sorted(format.channels for format in formats)
        raise OwnlatentError(
            f"there are images of {channels[0]} and of {channels[-1]} channels: give each kind a folder of its own"
        )
    return together


def joint(formats: set[Format]) -> Format | None:
    """The format that all of these go into, gray into colour and 8 bits into 16; None if there is none."""
    channels = {format.channels for format in formats}
    sound = {format.sound for format in formats}
    if (len(channels) > 1 and channels != {1, 3}) or len(sound) > 1:
        return None
    return Format(max(channels), max(format.depth for format in formats), sound.pop())


def shrink_for(room: float) -> int:
    """The `shrink` to decode at for an image that is `room` times as large as it need be: at most 8."""
    return next(factor for factor in (8, 4, 2, 1) if room >= factor or factor == 1)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 or uint16 (C, H, W) to (C, *size), bilinear with antialiasing."""
    if image.shape[1:] == size:
        return image
    if image.dtype == torch.uint8:
        return F.interpolate(image.unsqueeze(0), size, mode="bilinear", antialias=True)[0]
    resized = F.interpolate(image.unsqueeze(0).float(), size, mode="bilinear", antialias=True)[0]
    return resized.round().clamp(0, 65535).to(image.dtype)


def fit(image: Tensor, size: Size) -> Tensor:
    """An image, or the spectrogram of a sound, as an evaluator sees it: (C, size, size) or (1, 64, frames)."""
    return fit_square(image, size) if isinstance(size, int) else fit_time(image, size[1])


def fit_time(image: Tensor, frames: int, place: float = 0.5) -> Tensor:
    """A spectrogram (1, 64, T) of so many frames: a part of a longer one, a shorter one with silence around it.

    place: of the part, from 0, the first, to 1, the last; a shorter one comes to stand in the middle.
    """
    length = image.shape[2]
    if length >= frames:
        first = min(int(place * (length - frames + 1)), length - frames)
        return image[:, :, first : first + frames]
    padded = image.new_zeros((1, MELS, frames))
    first = (frames - length) // 2
    padded[:, :, first : first + length] = image
    return padded


def fit_square(image: Tensor, size: int) -> Tensor:
    """The image (C, H, W) as an evaluator sees it: (C, size, size), uint8 or uint16.

    Up to 64 px the shorter side becomes `size`; above, it becomes size / 0.875, the margin that the
    papers' evaluation leaves (Resize 256, CenterCrop 224). Then the centre is cut out. An image that has the size is
    left as it is.
    """
    height, width = image.shape[1:]
    if (height, width) == (size, size):
        return image
    scale = shorter_side(size) / min(height, width)
    image = resize(image, (max(size, round(height * scale)), max(size, round(width * scale))))
    top, left = (image.shape[1] - size) // 2, (image.shape[2] - size) // 2
    return image[:, top : top + size, left : left + size]


def shorter_side(size: int) -> int:
    """What `fit_square` makes an image's shorter side before it cuts out the centre, pixels."""
    return size if size <= 64 else round(size / 0.875)


def _open(data: bytes) -> Picture:
    kind = recognise(data)
    try:
        picture = kind(data)
        picture.check()
        return picture
    except (Unreadable, OwnlatentError):
        raise
    except Exception as error:  # as above
        raise Unreadable(_reason(kind.kind, error)) from error


def _reason(kind: str, error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    text = str(error).lower()
    if isinstance(error, (EOFError, IndexError, struct.error)) or "truncated" in text or "eof" in text:
        return "the file ends too early"
    return f"damaged {kind} data"


def _as(format: Format, pixels: np.ndarray) -> np.ndarray:
    """(H, W, C) in the channels and depth of the format."""
    if pixels.shape[2] < format.channels:
        pixels = np.repeat(pixels, 3, axis=2)
    elif pixels.shape[2] > format.channels:
        pixels = (pixels @ _LUMA + 0.5)[:, :, None].astype(pixels.dtype)
    if format.depth == 16 and pixels.dtype == np.uint8:
        return pixels.astype(np.uint16) * np.uint16(257)
    if format.depth == 8 and pixels.dtype == np.uint16:
        return (pixels >> 8).astype(np.uint8)
    return pixels


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """(H, W, C) turned as EXIF's orientation, 2 to 8, asks for."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    down, across = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[orientation]
    return np.ascontiguousarray(pixels[::down, ::across])
