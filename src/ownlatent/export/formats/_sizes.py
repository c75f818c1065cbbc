"""Whether a network that was recorded at one size of images, or length of sounds, is right at others."""

from collections.abc import Callable

import torch
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.export.formats._examples import inputs
from ownlatent.sound.spectrum import HOP
from ownlatent.types import Size, in_words


def other_sizes(encoder: Encoder) -> list[Tensor]:
    """Three images each of larger and of smaller heights and widths, as far as the encoder itself takes such.

    Of sounds three longer and three shorter ones.
    """
    size, found = encoder.image_size, []
    if isinstance(size, int):
        others = ((size + 32, size + 64), (size - size // 4, size // 2))
    else:
        others = ((size[0], size[1] + 37), (size[0], size[1] // 2))
    for other in others:
        images = inputs(encoder, 3, other)
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


def any_size_fact(any_size: bool, size: Size) -> str:
    """The sentence that a reader needs."""
    if not isinstance(size, int):
        samples = (size[1] - 1) * HOP
        return (
            "It takes any number of sounds, of any length that the network takes."
            if any_size
            else f"It takes any number of sounds of {samples} samples ({in_words(size)}), and no others."
        )
    return (
        "It takes any number of images, of any size that the network takes."
        if any_size
        else f"It takes any number of images of {size}x{size} pixels, and no other size."
    )
