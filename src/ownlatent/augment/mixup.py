"""Log-mixup-exp: a little of another sound, mixed in as sounds are, where they add (BYOL-A, section III-B)."""

import torch
from torch import Tensor

from ownlatent.augment.device import moved

_EPS = torch.finfo(torch.float32).eps


def sample_mixup(n: int, generator: torch.Generator, ratio: float = 0.4) -> Tensor:
    """Draw the other sound's share for each of n sounds: (n,), uniform from 0 to `ratio`."""
    return ratio * torch.rand(n, generator=generator, device=generator.device)


def apply_mixup(x: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """log((1 - a) exp(x) + a exp(other)) of spectrograms (B, 1, F, T), with a the share (B,) of the other."""
    share = moved(share, x.device).view(-1, 1, 1, 1)
    return ((1 - share) * x.exp() + share * other.exp() + _EPS).log()
