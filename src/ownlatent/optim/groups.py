"""Which parameters are decayed and adapted, and which are not."""

from torch import nn


def split_decay(module: nn.Module) -> list[dict]:
    """Two parameter groups: weights (two dimensions or more), then biases and norms (`decay` False).

    Frozen parameters are in neither. The rule by dimension equals BYOL's rule by name for linear
    and convolution layers and their norms.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decay": True},
        {"params": [p for p in trained if p.ndim <= 1], "decay": False},
    ]
