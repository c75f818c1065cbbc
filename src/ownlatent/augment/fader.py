"""Random lines: over time, a sound that comes or goes (BYOL-A, version 2); over frequency, another microphone."""

import torch
from torch import Tensor

from ownlatent.augment.device import moved


def sample_fader(n: int, generator: torch.Generator, gain: float = 1.0) -> Tensor:
    """Draw what is added at the two ends of n spectrograms: (n, 2), uniform in [-gain, gain]."""
    return gain * (2 * torch.rand((n, 2), generator=generator, device=generator.device) - 1)


def apply_fader(x: Tensor, ends: Tensor) -> Tensor:
    """Add to each of (B, 1, F, T) a line over time between its ends (B, 2)."""
    return x + _line(ends, x.shape[3], x).view(len(x), 1, 1, -1)


def apply_tilt(x: Tensor, ends: Tensor) -> Tensor:
    """Add to each of (B, 1, F, T) a line over the bands, from the lowest to the highest, between its ends (B, 2)."""
    return x + _line(ends, x.shape[2], x).view(len(x), 1, -1, 1)


def _line(ends: Tensor, length: int, like: Tensor) -> Tensor:
    ends = moved(ends, like.device)
    return ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * torch.linspace(0, 1, length, device=like.device)
