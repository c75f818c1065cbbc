"""Gaussian blur with its own sigma per image, as two one-dimensional depthwise convolutions."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.augment.device import moved


class Blur(NamedTuple):
    """chosen: (n,) bool, which images are blurred. sigma: (n,) in pixels."""

    chosen: Tensor
    sigma: Tensor


def sample_blur(n: int, generator: torch.Generator, p: float = 0.5, sigma: tuple[float, float] = (0.1, 2.0)) -> Blur:
    """Draw for each of n images whether it is blurred (probability p) and sigma, uniform, in pixels."""
    device = generator.device
    chosen = torch.rand(n, generator=generator, device=device) < p
    drawn = sigma[0] + (sigma[1] - sigma[0]) * torch.rand(n, generator=generator, device=device)
    return Blur(chosen, drawn)


def apply_blur(x: Tensor, blur: Blur, kernel_size: int) -> Tensor:
    """Blur the chosen images of (B, C, H, W) with a window of `kernel_size` (odd) pixels, edges mirrored."""
    rows = blur.chosen.nonzero().squeeze(1)
    if not len(rows) or kernel_size < 3:
        return x
    n, (channels, height, width) = len(rows), x.shape[1:]
    radius = min(kernel_size // 2, height - 1, width - 1)
    offset = torch.arange(-radius, radius + 1, device=x.device)
    sigma = moved(blur.sigma[rows], x.device).unsqueeze(1)
    rows = moved(rows, x.device)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    # Weights below float32's resolution only cost time: as denormals they slow a convolution tenfold.
    kernel = torch.where(kernel < 1e-7, 0.0, kernel)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    picked = x[rows].reshape(1, n * channels, height, width)
    picked = F.pad(picked, (radius,) * 4, mode="reflect")
    picked = F.conv2d(picked, kernel.view(-1, 1, kernel.shape[1], 1), groups=n * channels)
    picked = F.conv2d(picked, kernel.view(-1, 1, 1, kernel.shape[1]), groups=n * channels)
    return x.index_copy(0, rows, picked.view(n, channels, height, width))


def blur_window(size: int) -> int:
    """The papers' window for an image of `size` pixels: a tenth of the side, made odd (23 at 224)."""
    return size // 10 // 2 * 2 + 1
