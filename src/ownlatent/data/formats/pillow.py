"""From Pillow's images to arrays, whatever their mode, in silence."""

import numpy as np
from PIL import Image

from ownlatent.data.formats.levels import to_levels

_GRAY = {"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F"}
_WIDE = {"I", "I;16", "I;16B", "I;16L", "F"}
QUIET_PIXELS = 89_478_485  # where Pillow begins to warn of decompression bombs, in some decoders while it decodes


def channels_of(image: Image.Image) -> int:
    """1 or 3; transparency does not count."""
    return 1 if image.mode in _GRAY else 3


def depth_of(image: Image.Image) -> int:
    """8 or 16 bits, by the mode."""
    return 16 if image.mode in _WIDE else 8


def pixels_of(image: Image.Image, colour: bool) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, or (H, W) uint16; transparency is dropped, a palette looked up."""
    image.load()
    if image.mode in _WIDE:
        return to_levels(np.array(image), 16)
    image.info = {}  # with a transparent colour in it, converting a palette warns
    mode = "RGB" if colour and channels_of(image) == 3 else "L"
    return np.array(image if image.mode == mode else image.convert(mode))
