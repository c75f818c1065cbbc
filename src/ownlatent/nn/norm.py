"""Normalisation layers by name, and networks without BatchNorm."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.errors import OwnlatentError, nearest

KINDS = ("batch", "group", "layer", "none")
_GROUPS = 16
_EPS = 1e-5


def norm(kind: str, width: int, affine: bool = True, shift: bool = True) -> nn.Module:
    """A layer that normalises (B, width): over the batch, or for each image over groups or all of its values.

    affine: with a learned scale and, if `shift`, a learned offset. Raises OwnlatentError for another kind.
    """
    if kind == "batch":
        layer: nn.Module = nn.BatchNorm1d(width, affine=affine)
    elif kind == "group":
        layer = nn.GroupNorm(num_groups(width, at_least=2), width, affine=affine)
    elif kind == "layer":
        layer = nn.LayerNorm(width, elementwise_affine=affine)
    elif kind == "none":
        return nn.Identity()
    else:
        raise OwnlatentError(f"there is no norm {kind!r}: {nearest(kind, KINDS)}")
    if affine and not shift:
        layer.get_parameter("bias").requires_grad_(False)
    return layer


def num_groups(width: int, at_least: int = 1) -> int:
    """The largest number of groups up to 16 that divides the width into parts of `at_least` values."""
    return next((n for n in range(min(_GROUPS, width), 0, -1) if width % n == 0 and width // n >= at_least), 1)


def standardized(weight: Tensor) -> Tensor:
    """Weights (outputs, ...) with mean 0 and variance 1 over the inputs of each output (Qiao et al. 2019)."""
    flat = weight.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    # Within the root: its gradient at 0, that of a constant filter, would be infinite.
    return (centred / (centred.square().mean(1, keepdim=True) + _EPS**2).sqrt()).view_as(weight)


class StandardizedConv2d(nn.Conv2d):
    """A convolution that uses its weights standardised; to be followed by a normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, standardized(self.weight), self.bias)


class StandardizedLinear(nn.Linear):
    """A linear layer that uses its weights standardised; to be followed by a normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, standardized(self.weight), self.bias)


class _GroupNormAct(nn.GroupNorm):
    """A GroupNorm in the place of timm's BatchNorm that drops and activates as well."""

    def __init__(self, num_groups: int, batchnorm: Any):
        super().__init__(num_groups, batchnorm.num_features, batchnorm.eps, batchnorm.affine)
        self.drop: nn.Module = batchnorm.drop
        self.act: nn.Module = batchnorm.act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(super().forward(x)))


def without_batchnorm(net: nn.Module) -> int:
    """Put GroupNorm with weight standardisation in the place of BatchNorm; the number of layers replaced.

    In place: every BatchNorm within becomes a GroupNorm of up to 16 groups with its scale and offset, and every plain
    convolution without a bias, which is one that a normalisation follows, standardises its weights. Names and
    shapes of all weights stay as they are. This is what keeps BYOL working without batch statistics (Richemond et
    al. 2020, arXiv 2010.10241).
    """
    made: dict[nn.Module, nn.GroupNorm] = {}
    for name, module in list(net.named_modules(remove_duplicate=False)):  # a layer may stand in two places
        if name and isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module not in made:
                made[module] = _group_norm(module)
            net.set_submodule(name, made[module])
    for module in net.modules():
        if made and type(module) is nn.Conv2d and module.bias is None:
            module.__class__ = StandardizedConv2d
    return len(made)


def _group_norm(module: nn.modules.batchnorm._BatchNorm) -> nn.GroupNorm:
    groups = num_groups(module.num_features)
    if hasattr(module, "act") and hasattr(module, "drop"):
        group: nn.GroupNorm = _GroupNormAct(groups, module)
    else:
        group = nn.GroupNorm(groups, module.num_features, module.eps, module.affine)
    if module.affine:
        group.weight, group.bias = module.weight, module.bias
    return group
