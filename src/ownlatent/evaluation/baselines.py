"""What one could have had without training: what the encoder is given, and the same encoder with random weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.backbones.mode import evaluating

MOST_PIXELS = 32  # of the side: more make the pixels no better as features, and slow


class Pixels(nn.Module):
    """Images (B, C, S, S) to their pixels (B, C * s * s) in [0, 1], averaged down to s of at most 32."""

    def __init__(self, full_scale: float = 65535.0):
        super().__init__()
        self.full_scale = full_scale

    def scale_of(self, dtype: torch.dtype) -> float:
        """The value of whole-number images of this type that counts as 1."""
        return 255.0 if dtype == torch.uint8 else self.full_scale

    def forward(self, images: Tensor) -> Tensor:
        x = images.float() / (1.0 if images.is_floating_point() else self.scale_of(images.dtype))
        if x.shape[-1] > MOST_PIXELS:
            x = F.interpolate(x, (MOST_PIXELS, MOST_PIXELS), mode="area")
        return x.clamp(max=1).flatten(1)


class Bands(nn.Module):
    """Spectrograms (B, 1, 64, T) to the mean and the standard deviation over time of each band (B, 128), of levels."""

    def __init__(self, full_scale: float = 65535.0):
        super().__init__()
        self.full_scale = full_scale

    def scale_of(self, dtype: torch.dtype) -> float:
        """The level of whole numbers of this type that counts as 1."""
        return self.full_scale

    def forward(self, sounds: Tensor) -> Tensor:
        x = sounds.float() / (1.0 if sounds.is_floating_point() else self.full_scale)
        return torch.cat([x.mean(-1), x.std(-1, correction=0)], dim=-1).flatten(1)


@torch.no_grad()
def calibrate_batchnorm(encoder: nn.Module, images: Tensor, batch_size: int = 256) -> bool:
    """Set every BatchNorm's running statistics to their average over uint8 or uint16 images (N, C, H, W).

    A random encoder with the initial statistics (mean 0, variance 1) is weaker than it need be;
    the comparison is with its strongest form. False if there is no BatchNorm.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return False
    momenta = [m.momentum for m in norms]
    device = next(encoder.parameters()).device
    with evaluating(encoder, training=True):
        for norm in norms:
            norm.reset_running_stats()
        seen = 0
        for batch in images.split(batch_size):
            if len(batch) < 2 and seen:
                break  # one image has no variance
            seen += len(batch)
            for norm in norms:
                norm.momentum = len(batch) / seen  # so that every image counts the same
            encoder(batch.to(device))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return True
