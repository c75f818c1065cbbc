"""The product: images or sounds in, features out, with the preprocessing inside."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.sound.front_end import LogMel, to_levels
from ownlatent.types import Modality, Size


class Encoder(nn.Module):
    """Images (B, C, H, W), uint8, uint16 or floats in [0, 1], to features (B, num_features), float.

    It normalises by itself, so that the preprocessing cannot be forgotten. `backbone` is the bare
    network, which takes normalised images. image_size: the side it was trained at; other sizes work
    where the network allows. peak: the value of uint16 images that counts as 1, above 255 if it was
    trained on such.

    An encoder of sounds has an image_size of (64, frames). It takes waveforms (B, samples) of 16 kHz, floats of full
    scale 1, or spectrograms as sources give them: (B, 1, 64, T), uint16 or floats in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, backbone: Backbone, image_size: Size, mean: Sequence[float], std: Sequence[float], peak: float = 255.0
    ):
        super().__init__()
        self.peak = peak
        self.backbone, self.image_size, self.num_features = backbone, image_size, backbone.num_features
        self.front_end = LogMel() if isinstance(image_size, tuple) else None
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    @property
    def modality(self) -> Modality:
        """What it takes."""
        return "image" if self.front_end is None else "audio"

    @property
    def full_scale(self) -> float:
        """The value of uint16 images that counts as 1."""
        return self.peak if self.peak > 255 else 65535.0

    def scale_of(self, dtype: torch.dtype) -> float:
        """The value of whole-number images of this type that counts as 1."""
        return 255.0 if dtype == torch.uint8 else self.full_scale

    def forward(self, images: Tensor) -> Tensor:
        return self.backbone(self.normalized(images))

    def normalized(self, images: Tensor) -> Tensor:
        """Images as the backbone takes them."""
        x = images
        if self.front_end is not None and images.ndim != 4:
            _check_waveforms(images)
            x = to_levels(self.front_end(images))
        elif images.dtype == torch.uint8:
            x = images.float() / 255
        elif images.dtype == torch.uint16:
            x = (images.float() / self.full_scale).clamp(max=1)
        return ((x - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def _check_waveforms(sounds: Tensor) -> None:
    if sounds.ndim != 2 or not sounds.is_floating_point():
        raise OwnlatentError(
            f"{sounds.dtype} of shape {tuple(sounds.shape)} are no waveforms: give floats of full scale 1, "
            "(B, samples) of 16 kHz, or spectrograms (B, 1, 64, T)"
        )
