"""One image file to uint8 (C, H, W)."""

import math
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from ownlatent.data.source import Unreadable

EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2", ".avif"}
_GRAY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F"}


def decode(path: Path, channels: int) -> Tensor:
    """Read a file as uint8 (channels, H, W), 1 or 3 channels, turned upright by its EXIF orientation.

    Raises Unreadable with the reason; nothing else is raised, whatever the file holds.
    """
    return to_tensor(read(path, channels))


def read(path: Path, channels: int) -> Image.Image:
    """As `decode`, but a Pillow image in mode L or RGB."""
    try:
        with Image.open(path) as image:
            # Pillow only warns up to twice its limit; a warning made an error would be so for all threads.
            if image.width * image.height > (Image.MAX_IMAGE_PIXELS or math.inf):
                raise Image.DecompressionBombError
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith(("I", "F")):  # 16-bit and float files: stretch their own range
                upright = _stretch(upright)
            return upright.convert("RGB" if channels == 3 else "L")
    except Image.DecompressionBombError:
        raise Unreadable("more pixels than Pillow's safety limit") from None
    except Exception as error:  # decoders raise whatever they like on broken files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unreadable(reason.replace(str(path), "the file")) from error


def channels_of(path: Path) -> int:
    """1 if the file is grayscale by its header, else 3. Raises Unreadable."""
    try:
        with Image.open(path) as image:
            return 1 if image.mode in _GRAY_MODES else 3
    except Exception as error:  # as above
        raise Unreadable(str(error).splitlines()[0] if str(error) else type(error).__name__) from error


def to_tensor(image: Image.Image) -> Tensor:
    """A Pillow image in mode L or RGB as uint8 (C, H, W)."""
    array = np.array(image)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (C, H, W) to (C, *size), bilinear with antialiasing."""
    if image.shape[1:] == size:
        return image
    return F.interpolate(image.unsqueeze(0), size, mode="bilinear", antialias=True)[0]


def fit_square(image: Tensor, size: int) -> Tensor:
    """The image (C, H, W) as an evaluator sees it: (C, size, size), uint8.

    Up to 64 px the shorter side becomes `size`; above, it becomes size / 0.875, the margin that the
    papers' evaluation leaves (Resize 256, CenterCrop 224). Then the centre is cut out.
    """
    height, width = image.shape[1:]
    scale = (size if size <= 64 else round(size / 0.875)) / min(height, width)
    image = resize(image, (max(size, round(height * scale)), max(size, round(width * scale))))
    top, left = (image.shape[1] - size) // 2, (image.shape[2] - size) // 2
    return image[:, top : top + size, left : left + size]


def _stretch(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    low, high = values.min(), values.max()
    return Image.fromarray(((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8))
