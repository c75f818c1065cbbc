"""Images to features, in evaluation mode, in batches."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ownlatent.backbones.mode import evaluating

Network = nn.Module | Callable[[Tensor], Tensor]


def embed(
    encoder: Network,
    images: Tensor | Iterable[Tensor],
    batch_size: int = 512,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Features (N, D) float32 on the CPU of uint8 or uint16 images (N, C, H, W), or of batches of them.

    A module is put into evaluation mode for the time and then back. dtype bfloat16 runs it under
    autocast. The module must already be on `device`.
    """
    batches = images.split(batch_size) if isinstance(images, Tensor) else images
    return torch.cat(list(embedded(encoder, batches, device, dtype)))


def embedded(
    encoder: Network,
    batches: Iterable[Tensor],
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Iterator[Tensor]:
    """Features (B, D) of one batch after the other, as `embed` gives them, which are nowhere held together."""
    device = torch.device(device)
    before: Tensor | None = None

    @torch.no_grad()
    def forward(batch: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            return encoder(batch.to(device, non_blocking=True)).float()

    with evaluating(encoder) if isinstance(encoder, nn.Module) else nullcontext():
        for batch in batches:
            features = forward(batch)
            if before is not None:
                yield before.cpu()  # a GPU is at the next ones by now
            before = features
        if before is not None:
            yield before.cpu()
