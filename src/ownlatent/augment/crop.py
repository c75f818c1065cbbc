"""Random resized crop: a box per image, resized by two small matrix products."""

import math

import torch
from torch import Tensor

_ATTEMPTS = 10  # torchvision's number of tries before it falls back to a central crop


def sample_crop(
    n: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Boxes (n, 4) of int64 pixels (top, left, height, width), each wholly inside the image.

    The area is uniform in `scale` (fractions of the image) and the aspect ratio log-uniform in
    `ratio`; of ten draws the first that fits is taken, else the largest central box of an allowed
    ratio. This is torchvision's distribution; BYOL's own code draws once and clips (BYOL, app. B).
    """
    shape = (n, _ATTEMPTS)
    device = generator.device
    low, high = math.log(ratio[0]), math.log(ratio[1])
    area = height * width * (scale[0] + (scale[1] - scale[0]) * torch.rand(shape, generator=generator, device=device))
    aspect = (low + (high - low) * torch.rand(shape, generator=generator, device=device)).exp()
    w = (area * aspect).sqrt().round().long()
    h = (area / aspect).sqrt().round().long()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(1, keepdim=True)
    w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)

    in_ratio = width / height
    central_w = min(width, round(height * ratio[1])) if in_ratio > ratio[1] else width
    central_h = min(height, round(width / ratio[0])) if in_ratio < ratio[0] else height
    found = fits.any(1)
    w = torch.where(found, w, central_w)
    h = torch.where(found, h, central_h)
    u = torch.rand((2, n), generator=generator, device=device)
    top = torch.where(found, (u[0] * (height - h + 1)).long(), (height - central_h) // 2)
    left = torch.where(found, (u[1] * (width - w + 1)).long(), (width - central_w) // 2)
    return torch.stack((top, left, h, w), dim=1)


def apply_crop(x: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Crop each image of (B, C, H, W) to its box and resize to (B, C, size, size), float32.

    Bilinear with antialiasing when shrinking, as Pillow resizes a cropped image; BYOL's own code is
    bicubic without antialiasing. Works on any range: the value of a constant image is kept.
    """
    height, width = x.shape[-2:]
    rows = resize_weights(boxes[:, 0], boxes[:, 2], height, size)
    columns = resize_weights(boxes[:, 1], boxes[:, 3], width, size)
    x = x.float()
    return rows.unsqueeze(1) @ x @ columns.unsqueeze(1).transpose(-1, -2)


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
    return torch.where(flip.view(-1, 1, 1, 1), x.flip(-1), x)
