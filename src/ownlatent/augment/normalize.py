"""Per-channel normalisation."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(x: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(x - mean) / std per channel, for x (B, C, H, W) in [0, 1]."""
    return (x - _per_channel(tuple(mean), x.device, x.dtype)) / _per_channel(tuple(std), x.device, x.dtype)


@cache  # a new tensor for each batch would have an accelerator wait for the processor
def _per_channel(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(values, device=device, dtype=dtype).view(-1, 1, 1)
