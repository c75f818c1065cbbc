"""Images as programs hold them (arrays, tensors, Pillow images) to uint8 or uint16 (C, H, W)."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ownlatent.data.decode import Format, Unreadable

_SLACK = 1e-3  # how far outside 0 to 1 a float may lie: interpolation overshoots
_GRAY = {"1": "L", "L": "L", "LA": "L", "La": "L"}


class OutOfRange(Unreadable):
    """Floats that are no shares of white: not one broken image, but a data set that was made for something else."""


def to_image(value: Any) -> Tensor:
    """A Pillow image, array or tensor as uint8 or uint16 (C, H, W), in memory of its own.

    Arrays and tensors are (H, W), (C, H, W) or (H, W, C). Raises Unreadable for anything else.
    """
    if isinstance(value, Image.Image):
        value = _from_pillow(value)
    elif isinstance(value, Tensor):
        value = value.detach().cpu().numpy()
    if not isinstance(value, np.ndarray):
        raise Unreadable(f"a {type(value).__name__} is no image: give a Pillow image, an array or a tensor")
    if value.ndim not in (2, 3) or not value.size:
        raise Unreadable(f"an array of shape {tuple(value.shape)} is no image")
    axis = channel_axis(value.shape) if value.ndim == 3 else 0
    if axis is None:
        raise Unreadable(f"the shape {tuple(value.shape)} does not tell which axis holds the channels")
    return to_tensor(value[None] if value.ndim == 2 else value, axis)


def to_tensor(array: np.ndarray, axis: int) -> Tensor:
    """An array with its channels on `axis` (0 or 2) as uint8 or uint16 (C, H, W). Raises Unreadable.

    Floats from 0 to 1 become uint16, in which every step of an 8-bit image stays a whole number.
    """
    if array.dtype.kind == "f":
        low, high = array.min(), array.max()
        if np.isnan(low):
            raise Unreadable("it has values that are no numbers (NaN)")
        if low < -_SLACK or high > 1 + _SLACK:
            raise OutOfRange(f"it has values from {low:.4g} to {high:.4g}, and floats must lie between 0 and 1")
        array = np.rint(np.clip(array, 0, 1).astype(np.float64) * 65535).astype(np.uint16)
    elif array.dtype.kind == "b":
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise Unreadable(f"it holds {array.dtype}: convert it to uint8, to uint16 or to floats from 0 to 1")
    if axis == 2:
        array = array.transpose(2, 0, 1)
    return torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C"))


def channel_axis(shape: tuple[int, ...]) -> int | None:
    """0 for (C, H, W), 2 for (H, W, C): the smaller axis is the channels'. None where that does not tell.

    >>> channel_axis((3, 32, 32)), channel_axis((32, 32, 3)), channel_axis((8, 4, 8))
    (0, 2, None)
    """
    first, middle, last = shape
    if first < last and first <= middle:
        return 0
    if last < first and last <= middle:
        return 2
    return None


def conform(image: Tensor, format: Format) -> Tensor:
    """An image in another format: gray to colour and back, 8 to 16 bits and back. Raises Unreadable if it cannot be."""
    channels, depth = image.shape[0], 8 * image.element_size()
    if channels != format.channels and {channels, format.channels} != {1, 3}:
        raise Unreadable(f"it has {channels} channels, not {format.channels}")
    if depth < format.depth:
        image = (image.int() * 257).to(torch.uint16)
    elif depth > format.depth:
        image = (image.int() >> 8).to(torch.uint8)
    if channels < format.channels:
        return image.expand(format.channels, -1, -1).contiguous()
    if channels > format.channels:
        return image.float().mean(0, keepdim=True).round().to(image.dtype)
    return image


def _from_pillow(image: Image.Image) -> np.ndarray:
    """(H, W) or (H, W, 3). Sixteen bits stay sixteen; transparency goes."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):  # also 32 bits wide, as older Pillows open 16-bit files
        array = np.asarray(image)
        if array.min() < 0 or array.max() > 65535:
            raise Unreadable(f"it has values from {array.min()} to {array.max()}, and 16-bit images end at 65535")
        return array.astype(np.uint16)
    return np.asarray(image.convert(_GRAY.get(image.mode, "RGB")))
