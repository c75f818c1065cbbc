"""How a sound was recorded: how loud, and what is heard behind it (ours; docs/audio.md says what for)."""

from math import inf, log
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.augment.device import moved

_KNOTS = 4  # of the line over a noise's bands
_UNEVEN = 0.5  # nepers, by which a steady noise differs from frame to frame and from band to band
_NEPERS = log(10) / 10  # of power, in a decibel


class Noise(NamedTuple):
    """What was drawn for n sounds: how far below the loudest (n,), its bands (n, 4), how uneven (n, F, T); nepers."""

    below: Tensor
    bands: Tensor
    uneven: Tensor


def sample_gain(n: int, generator: torch.Generator, decibels: float = 18.0) -> Tensor:
    """Draw by how much each of n sounds becomes louder: (n,), nepers of power, uniform up to this either way."""
    return decibels * _NEPERS * (2 * torch.rand(n, generator=generator, device=generator.device) - 1)


def apply_gain(x: Tensor, gain: Tensor) -> Tensor:
    """Make sounds (B, 1, F, T), whose power is log(1 + p), louder: what is silent stays so."""
    return (x.expm1() * moved(gain, x.device).exp().view(-1, 1, 1, 1)).log1p()


def sample_noise(
    n: int,
    generator: torch.Generator,
    size: tuple[int, int],
    p: float = 0.8,
    snr: tuple[float, float] = (25.0, 60.0),
) -> Noise:
    """Draw a noise of (F, T) for each of n sounds with probability p, uniform in decibels below its loudest place."""
    u = torch.rand((2, n), generator=generator, device=generator.device)
    below = _NEPERS * (snr[0] + (snr[1] - snr[0]) * u[1])
    bands = torch.randn((n, _KNOTS), generator=generator, device=generator.device)
    uneven = _UNEVEN * torch.randn((n, *size), generator=generator, device=generator.device)
    return Noise(below.masked_fill(u[0] >= p, inf), bands, uneven)


def apply_noise(x: Tensor, noise: Noise) -> Tensor:
    """Add a steady noise to sounds (B, 1, F, T), whose power is log(1 + p): powers add."""
    below, bands, uneven = (moved(drawn, x.device) for drawn in noise)
    bands = F.interpolate(bands.unsqueeze(1), x.shape[2], mode="linear", align_corners=True)
    level = (x.amax((1, 2, 3)) - below).view(-1, 1, 1, 1)
    return torch.logaddexp(x, level + bands.unsqueeze(3) + uneven.unsqueeze(1))
