"""Images to features, in evaluation mode, in batches."""

from collections.abc import Callable, Iterable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ownlatent.backbones.mode import evaluating


@torch.no_grad()
def embed(
    encoder: nn.Module | Callable[[Tensor], Tensor],
    images: Tensor | Iterable[Tensor],
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Features (N, D) float32 on the CPU of uint8 or uint16 images (N, C, H, W), or of batches of them.

    A module is put into evaluation mode for the time and then back. dtype bfloat16 runs it under
    autocast. The module must already be on `device`.
    """
    device = torch.device(device)
    mode = evaluating(encoder) if isinstance(encoder, nn.Module) else nullcontext()
    batches = images.split(batch_size) if isinstance(images, Tensor) else images
    with mode, torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        parts = [encoder(batch.to(device, non_blocking=True)).float().cpu() for batch in batches]
    return torch.cat(parts)
