"""What one could have had without training: the pixels themselves, and the same encoder with random weights."""

import torch
from torch import Tensor, nn

from ownlatent.backbones.mode import evaluating


def pixel_features(
    images: Tensor, mean: Tensor | float = 0.0, std: Tensor | float = 1.0, peak: float = 255.0
) -> Tensor:
    """Pixels as features (N, C * H * W) of whole-number images: (x / peak - mean) / std, by channel or by pixel."""
    return ((images.float() / peak - mean) / std).flatten(1)


@torch.no_grad()
def calibrate_batchnorm(encoder: nn.Module, images: Tensor, batch_size: int = 256) -> None:
    """Set every BatchNorm's running statistics to their average over uint8 or uint16 images (N, C, H, W).

    A random encoder with the initial statistics (mean 0, variance 1) is weaker than it need be;
    the comparison is with its strongest form.
    """
    norms = [m for m in encoder.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if not norms:
        return
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
