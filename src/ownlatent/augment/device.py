"""Draws are made on the processor, and go to where the images are."""

import torch
from torch import Tensor


def moved(x: Tensor, device: torch.device) -> Tensor:
    """x on a device; on CUDA without waiting for it. On Apple's, x could be freed before it was copied."""
    return x.to(device, non_blocking=device.type == "cuda")
