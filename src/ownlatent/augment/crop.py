"""Random resized crop: a box per image, resized by two small matrix products."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.augment.device import moved

_ATTEMPTS = 10  # torchvision's number of tries before it falls back to a central crop
Box = tuple[float, float, float, float]
"""Top, left, height and width in pixels."""


class Crop(NamedTuple):
    """What was drawn for n images, whatever their sizes; `boxes_of` makes pixels of it.

    area: (n, 10) fractions of the image. aspect: (n, 10) width / height. place: (n, 2) in [0, 1),
    from the topmost and leftmost place to the last. ratio: the aspects allowed.
    """

    area: Tensor
    aspect: Tensor
    place: Tensor
    ratio: tuple[float, float]

    def rows(self, rows: slice) -> "Crop":
        """The draws of some of the images."""
        return Crop(self.area[rows], self.aspect[rows], self.place[rows], self.ratio)


def sample_crop(
    n: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Crop:
    """Draw crops for n images: the area uniform in `scale`, the aspect log-uniform in `ratio`."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    u = torch.rand((2, n, _ATTEMPTS), generator=generator, device=generator.device)
    place = torch.rand((n, 2), generator=generator, device=generator.device)
    return Crop(scale[0] + (scale[1] - scale[0]) * u[0], (low + (high - low) * u[1]).exp(), place, ratio)


def boxes_of(crop: Crop, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Boxes (n, 4) of int64 pixels (top, left, height, width), each wholly inside its image.

    height, width: of all images, or (n,) of each. Of the ten draws the first that fits is taken, else
    the largest central box of an allowed ratio. This is torchvision's distribution; BYOL's own code
    draws once and clips (BYOL, app. B).
    """
    # NumPy: two dozen operations on a few hundred numbers, of which torch's take twice the time.
    n, f4 = len(crop.area), np.float32
    area, aspect, place = (t.numpy() for t in (crop.area, crop.aspect, crop.place))
    high, wide = (np.broadcast_to(np.asarray(side, np.int64), n) for side in (height, width))
    area = area * (high * wide)[:, None].astype(f4)
    w = np.rint(np.sqrt(area * aspect)).astype(np.int64)
    h = np.rint(np.sqrt(area / aspect)).astype(np.int64)
    fits = (w > 0) & (w <= wide[:, None]) & (h > 0) & (h <= high[:, None])
    each, first = np.arange(n), fits.argmax(1)
    found, w, h = fits[each, first], w[each, first], h[each, first]

    # At least one pixel: the central box of an image that is one pixel wide would round to nothing.
    narrowest, widest = map(f4, crop.ratio)
    central_w = np.minimum(wide, np.rint(high.astype(f4) * widest).astype(np.int64).clip(1))
    central_h = np.minimum(high, np.rint(wide.astype(f4) / narrowest).astype(np.int64).clip(1))
    w, h = np.where(found, w, central_w), np.where(found, h, central_h)
    top = np.where(found, (place[:, 0] * (high - h + 1).astype(f4)).astype(np.int64), (high - h) // 2)
    left = np.where(found, (place[:, 1] * (wide - w + 1).astype(f4)).astype(np.int64), (wide - w) // 2)
    return torch.from_numpy(np.stack((top, left, h, w), axis=1))


def boxes_of_views(crops: Sequence[Crop], height: int, width: int) -> list[Tensor]:
    """boxes_of for every view of images of one size; views whose crops have the same ratio are done at once."""
    boxes: dict[int, Tensor] = {}
    for ratio in dict.fromkeys(crop.ratio for crop in crops):
        alike = [number for number, crop in enumerate(crops) if crop.ratio == ratio]
        area, aspect, place = (torch.cat(draws) for draws in list(zip(*(crops[i] for i in alike), strict=True))[:3])
        boxes |= zip(alike, boxes_of(Crop(area, aspect, place, ratio), height, width).chunk(len(alike)), strict=True)
    return [boxes[number] for number in range(len(crops))]


def apply_crop(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop each image of (B, C, H, W) to its box and resize to (B, C, size, size), float32.

    Bilinear with antialiasing when shrinking, as Pillow resizes a cropped image; BYOL's own code is
    bicubic without antialiasing. Whole numbers are rounded to whole numbers, as Pillow does; floats
    of any range are not. The value of a constant image is kept.
    """
    height, width = x.shape[-2:]
    boxes = moved(boxes, x.device)
    rows = resize_weights(boxes[:, 0], boxes[:, 2], height, size)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], width, size)
    resized = rows.unsqueeze(1) @ x.float() @ columns.unsqueeze(1).transpose(-1, -2)
    return resized if x.is_floating_point() else resized.round_()


def crop_image(image: Tensor, box: Box, out: np.ndarray) -> None:
    """The same for one image (C, H, W), uint8 or uint16, into `out` (C, size, size) of the same type.

    The box need not be whole pixels: an image may have been decoded at a fraction of its size.
    """
    if image.dtype == torch.uint8:
        from ownlatent.augment.kernels.crop import crop_uint8, planes

        crop_uint8(planes(image), image.shape[0], box, out)
        return
    top, left = math.floor(box[0]), math.floor(box[1])
    bottom, right = math.ceil(box[0] + box[2]), math.ceil(box[1] + box[3])
    part = image[:, top:bottom, left:right].float().unsqueeze(0)
    out[:] = F.interpolate(part, out.shape[1:], mode="bilinear", antialias=True)[0].round_().numpy()


def resize_weights(start: Tensor, length: Tensor, source: int, size: int) -> Tensor:
    """Interpolation matrices (B, size, source): row i holds the source pixels' shares in output i.

    The triangle filter of `Pillow.Image.resize(BILINEAR)`: centres at (i + 1/2) * length / size,
    support stretched when shrinking, cut at the box's edges, each row summing to one.
    """
    start, length = start.float().view(-1, 1, 1), length.float().view(-1, 1, 1)
    scale = length / size
    out = torch.arange(size, device=start.device).view(1, -1, 1)
    pixel = torch.arange(source, device=start.device).view(1, 1, -1)
    centre = start + (out + 0.5) * scale
    distance = (pixel + 0.5 - centre) / scale.clamp(min=1)
    weights = (1 - distance.abs()).clamp_(min=0)
    weights *= (pixel >= start) & (pixel < start + length)
    return weights / weights.sum(-1, keepdim=True)


def sample_flip(n: int, generator: torch.Generator, p: float = 0.5) -> Tensor:
    """Which of n images to mirror: (n,) bool, each True with probability p."""
    return torch.rand(n, generator=generator, device=generator.device) < p


def apply_flip(x: Tensor, flip: Tensor) -> Tensor:
    """Mirror the chosen images of (B, C, H, W) left to right."""
    return torch.where(moved(flip, x.device).view(-1, 1, 1, 1), x.flip(-1), x)
