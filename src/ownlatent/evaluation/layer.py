"""Features from inside a network: what a named layer gives, pooled."""

import torch
from torch import Tensor, nn

from ownlatent.backbones import measure
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.tap import find


class LayerOf(nn.Module):
    """Images (B, C, H, W) to the output of one layer of an encoder's network, pooled to (B, D).

    name: as `backbones.create` takes it, such as "layer3", "blocks.5" or -2. Raises OwnlatentError for an unknown name,
    with the nearest ones, or a layer that gives no features for each image.
    """

    def __init__(self, encoder: Encoder, name: str | int):
        super().__init__()
        self.encoder, self.name = encoder, str(name)
        net, own = encoder.backbone.net, encoder.backbone.tap
        tap = find(net, name, adapter=own.adapter)
        self.tap, self.num_features = measure(net, tap, encoder.mean.numel(), encoder.image_size)

    def scale_of(self, dtype: torch.dtype) -> float:
        """As the encoder's."""
        return self.encoder.scale_of(dtype)

    def forward(self, images: Tensor) -> Tensor:
        return self.tap(self.encoder.backbone.net, self.encoder.normalized(images)).float()
