"""Features from inside a network: what a named layer gives, pooled."""

from typing import Any

import torch
from torch import Tensor, nn

from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.stem import pooled
from ownlatent.errors import OwnlatentError, nearest


class LayerOf(nn.Module):
    """Images (B, C, H, W) to the output of one layer of an encoder's network, pooled to (B, D).

    name: as `named_modules` of the bare network has it, such as "layer3" or "blocks.5". Raises OwnlatentError for
    an unknown name, with the nearest ones, and in `forward` for a layer whose output is no tensor.
    """

    def __init__(self, encoder: Encoder, name: str):
        super().__init__()
        layers = dict(encoder.backbone.net.named_modules())
        layers.pop("", None)
        if name not in layers:
            raise OwnlatentError(f"the network has no layer {name!r}: {nearest(name, layers)}")
        self.encoder, self.name = encoder, name

    def scale_of(self, dtype: torch.dtype) -> float:
        """As the encoder's."""
        return self.encoder.scale_of(dtype)

    def forward(self, images: Tensor) -> Tensor:
        found: list[Tensor] = []
        layer = self.encoder.backbone.net.get_submodule(self.name)

        def take(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.ndim > 1:  # now: what follows may change it in place
                found.append(pooled(output.float()).clone())

        hook = layer.register_forward_hook(take)
        try:
            self.encoder(images)
        finally:
            hook.remove()
        if not found:
            raise OwnlatentError(f"the layer {self.name!r} gives no features for each image: choose another --layer")
        return found[-1]
