"""Colour jitter, grayscale and solarise, one draw per image, on (B, C, H, W) in [0, 1].

The jitter is torchvision's on Pillow images (multiplicative brightness, contrast around the mean
gray level, saturation as a blend with gray, hue as a rotation in HSV), clipped after each
operation, its four operations in a random order per image. BYOL's own code adds the brightness and
takes contrast around each channel's mean; nearly all later work uses torchvision's form.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ownlatent.augment.device import moved

LUMA = (0.2989, 0.5870, 0.1140)  # ITU-R 601, as in BYOL (table 6) and torchvision


class Jitter(NamedTuple):
    """What was drawn for n images; an image that is not jittered has neutral values.

    factors: (n, 4) brightness, contrast and saturation factors (1 is neutral) and the hue shift in
        turns (0 is neutral, range [-0.5, 0.5]).
    order: (n, 4) int64, the operations' numbers 0 to 3 in the order in which they are applied.
    """

    factors: Tensor
    order: Tensor


def sample_jitter(
    n: int,
    generator: torch.Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.2,
    hue: float = 0.1,
    p: float = 0.8,
) -> Jitter:
    """Draw a jitter for each of n images with probability p, uniform in 1 +- strength (hue: +- hue)."""
    device = generator.device
    strength = torch.tensor([brightness, contrast, saturation, hue], device=device)
    neutral = torch.tensor([1.0, 1.0, 1.0, 0.0], device=device)
    low = torch.maximum(neutral - strength, torch.tensor([0.0, 0.0, 0.0, -0.5], device=device))
    high = torch.minimum(neutral + strength, torch.tensor([torch.inf] * 3 + [0.5], device=device))
    factors = low + (high - low) * torch.rand((n, 4), generator=generator, device=device)
    order = torch.rand((n, 4), generator=generator, device=device).argsort(1)
    chosen = torch.rand((n, 1), generator=generator, device=device) < p
    return Jitter(torch.where(chosen, factors, neutral), order)


def apply_jitter(x: Tensor, jitter: Jitter) -> Tensor:
    """Jitter (B, C, H, W) in [0, 1]; with other than three channels saturation and hue do nothing."""
    operations = (_brightness, _contrast, _saturation, _hue)[: 4 if x.shape[1] == 3 else 2]
    neutral = (1.0, 1.0, 1.0, 0.0)
    x = x.clone()
    for position in range(4):
        for number, operation in enumerate(operations):
            factor = jitter.factors[:, number]
            rows = ((jitter.order[:, position] == number) & (factor != neutral[number])).nonzero().squeeze(1)
            if len(rows):
                factor = moved(factor[rows], x.device).view(-1, 1, 1, 1)
                rows = moved(rows, x.device)
                x[rows] = operation(x[rows], factor)
    return x


def sample_grayscale(n: int, generator: torch.Generator, p: float = 0.2) -> Tensor:
    """Which of n images lose their colour: (n,) bool."""
    return torch.rand(n, generator=generator, device=generator.device) < p


def apply_grayscale(x: Tensor, chosen: Tensor) -> Tensor:
    """Replace the chosen images of (B, C, H, W) by their luma (of other than 3 channels the mean) in all channels."""
    rows = moved(chosen.nonzero().squeeze(1), x.device)
    if x.shape[1] == 1 or not len(rows):
        return x
    return x.index_copy(0, rows, luma(x[rows]).expand(-1, x.shape[1], -1, -1))


def sample_solarize(n: int, generator: torch.Generator, p: float = 0.2) -> Tensor:
    """Which of n images are solarised: (n,) bool."""
    return torch.rand(n, generator=generator, device=generator.device) < p


def apply_solarize(x: Tensor, chosen: Tensor, threshold: float = 0.5) -> Tensor:
    """Invert, in the chosen images in [0, 1], every value at or above the threshold (BYOL, app. B)."""
    rows = moved(chosen.nonzero().squeeze(1), x.device)
    if not len(rows):
        return x
    picked = x[rows]
    return x.index_copy(0, rows, torch.where(picked < threshold, picked, 1 - picked))


def luma(x: Tensor) -> Tensor:
    """Gray level (B, 1, H, W) of (B, 3, H, W); of other channel counts the plain mean."""
    if x.shape[1] != 3:
        return x.mean(1, keepdim=True)
    r, g, b = x.unbind(1)
    return (LUMA[0] * r).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2]).unsqueeze(1)


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = luma(x).mean((-2, -1), keepdim=True)
    return torch.lerp(mean.expand_as(x), x, factor).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(luma(x).expand_as(x), x, factor).clamp_(0, 1)


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue in HSV by `turns`; value and chroma stay, so the result stays in [0, 1]."""
    r, g, b = x.unbind(1)
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    # Hue in sixths of a turn, from the channel that holds the maximum (Smith 1978).
    safe = chroma.clamp(min=1e-8)
    sixth = torch.where(value == r, (g - b) / safe, torch.where(value == g, (b - r) / safe + 2, (r - g) / safe + 4))
    sixth = sixth + 6 * turns.squeeze(1)
    # Channel n of HSV to RGB: value - chroma * clamp(min(k, 4 - k), 0, 1) with k = (n + sixth) mod 6.
    offset = (5.0 - 2.0 * torch.arange(3, device=x.device)).view(1, 3, 1, 1)
    k = (sixth.unsqueeze(1) + offset).remainder_(6)
    share = torch.minimum(k, 4 - k).clamp_(0, 1)
    return torch.addcmul(value.unsqueeze(1), chroma.unsqueeze(1), share, value=-1)
