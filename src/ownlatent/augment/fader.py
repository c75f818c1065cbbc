"""Random linear fader: a sound that comes or goes (BYOL for Audio, version 2)."""

import torch
from torch import Tensor

from ownlatent.augment.device import moved


def sample_fader(n: int, generator: torch.Generator, gain: float = 1.0) -> Tensor:
    """Draw what is added at the beginning and at the end of n spectrograms: (n, 2), uniform in [-gain, gain]."""
    return gain * (2 * torch.rand((n, 2), generator=generator, device=generator.device) - 1)


def apply_fader(x: Tensor, ends: Tensor) -> Tensor:
    """Add to each of (B, 1, F, T) a line over time between its ends (B, 2)."""
    ends = moved(ends, x.device)
    way = torch.linspace(0, 1, x.shape[3], device=x.device)
    line = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * way
    return x + line.view(len(x), 1, 1, -1)
