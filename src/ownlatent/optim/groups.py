"""Which parameters are decayed and adapted, and which are not."""

from typing import Any

from torch import nn


def split_decay(*modules: nn.Module, **settings: Any) -> list[dict]:
    """Two parameter groups: weights (two dimensions or more), then biases and norms (`decay` False).

    Frozen parameters are in neither. The rule by dimension equals BYOL's rule by name for linear
    and convolution layers and their norms. settings: what else `optim.create` should know of both groups.
    """
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "decay": True, **settings},
        {"params": [p for p in trained if p.ndim <= 1], "decay": False, **settings},
    ]
