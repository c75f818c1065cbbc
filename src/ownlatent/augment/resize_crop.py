"""Random resize crop: a part of a spectrogram, stretched in time and in pitch (BYOL-A, section III-C)."""

from typing import NamedTuple

import torch
from torch import Tensor

from ownlatent.augment.device import moved

_A = -0.75  # of the cubic, as torch's bicubic interpolation has it


class ResizeCrop(NamedTuple):
    """What was drawn for n spectrograms: height and width as shares of the spectrogram, place (n, 2) in [0, 1)."""

    height: Tensor
    width: Tensor
    place: Tensor


def sample_resize_crop(
    n: int,
    generator: torch.Generator,
    height: tuple[float, float] = (0.6, 1.5),
    width: tuple[float, float] = (0.6, 1.5),
) -> ResizeCrop:
    """Draw crops for n spectrograms, of a height and a width uniform in these ranges."""
    u = torch.rand((2, n), generator=generator, device=generator.device)
    place = torch.rand((n, 2), generator=generator, device=generator.device)
    return ResizeCrop(height[0] + (height[1] - height[0]) * u[0], width[0] + (width[1] - width[0]) * u[1], place)


def apply_resize_crop(x: Tensor, crop: ResizeCrop, canvas: tuple[float, float] = (1.0, 1.5)) -> Tensor:
    """Crop each of x (B, 1, F, T) from a canvas of zeros that it lies in the middle of, and resize it to (F, T).

    canvas: height and width as shares of F and T. A crop is cut off at the canvas. Bicubic, with the corners of the
    crop becoming the corners of the result.
    """
    rows = _weights(crop.height, crop.place[:, 0], x.shape[2], canvas[0])
    columns = _weights(crop.width, crop.place[:, 1], x.shape[3], canvas[1])
    return moved(rows, x.device).unsqueeze(1) @ x @ moved(columns, x.device).unsqueeze(1).transpose(-1, -2)


def _weights(share: Tensor, place: Tensor, size: int, canvas: float) -> Tensor:
    """Interpolation matrices (B, size, size) along one axis: what of the spectrogram each place of the result holds."""
    whole = int(canvas * size)
    margin = (whole - size) // 2  # of the canvas, before the spectrogram
    length = (share * size).long().clamp(1, whole)
    start = (place * (whole - length + 1)).long()
    step = (length - 1) / max(1, size - 1)
    centre = step.view(-1, 1) * torch.arange(size)
    below = centre.floor()
    weights = torch.zeros(len(share), size, size)
    for tap in (-1, 0, 1, 2):
        distance = (centre - below - tap).abs()
        near = ((_A + 2) * distance - (_A + 3)) * distance**2 + 1
        far = ((_A * distance - 5 * _A) * distance + 8 * _A) * distance - 4 * _A
        weight = torch.where(distance <= 1, near, far)
        # What lies beyond the crop is its edge; what lies beyond the spectrogram is nothing.
        inside = (below.long() + tap).clamp(min=0).minimum(length.view(-1, 1) - 1) + start.view(-1, 1) - margin
        weight = weight * ((inside >= 0) & (inside < size))
        weights.scatter_add_(2, inside.clamp(0, size - 1).unsqueeze(2), weight.unsqueeze(2))
    return weights
