"""Whether a network that was recorded at one size of images is right at others."""

from collections.abc import Callable

import torch
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.export.formats._photographs import photographs


def other_sizes(encoder: Encoder) -> list[Tensor]:
    """Three images each of larger and of smaller heights and widths, as far as the encoder itself takes such."""
    side, found = encoder.image_size, []
    for height, width in ((side + 32, side + 64), (side - side // 4, side // 2)):
        images = photographs(len(encoder.mean), height, width, 3)
        try:
            encoder(images)
        except Exception:  # what a network says to images of the wrong size is its own affair
            continue
        found.append(images)
    return found


def agrees(recorded: Callable[[Tensor], Tensor], images: Tensor, encoder: Encoder, tolerance: float) -> bool:
    """Whether something gives the encoder's features."""
    try:
        return difference(recorded(images), encoder(images)) <= tolerance
    except Exception:  # runtimes raise many kinds
        return False


def difference(found: Tensor, features: Tensor) -> float:
    """The largest difference, as a share of the largest feature; infinite for other shapes or no numbers."""
    if found.shape != features.shape or not torch.isfinite(found).all():
        return float("inf")
    return float((found - features).abs().max() / features.abs().max().clamp(min=1e-30))


def any_size_fact(any_size: bool, side: int) -> str:
    """The sentence that a reader needs."""
    return (
        "It takes any number of images, of any size that the network takes."
        if any_size
        else f"It takes any number of images of {side}x{side} pixels, and no other size."
    )
