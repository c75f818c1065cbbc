"""Normalisation layers by name, and networks without BatchNorm."""

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
        layer = nn.GroupNorm(num_groups(width), width, affine=affine)
    elif kind == "layer":
        layer = nn.LayerNorm(width, elementwise_affine=affine)
    elif kind == "none":
        return nn.Identity()
    else:
        raise OwnlatentError(f"there is no norm {kind!r}: {nearest(kind, KINDS)}")
    if affine and not shift:
        layer.get_parameter("bias").requires_grad_(False)
    return layer


def num_groups(width: int) -> int:
    """The largest number of groups up to 16 that divides the width."""
    return next(n for n in range(min(_GROUPS, width), 0, -1) if width % n == 0)


def standardized(weight: Tensor) -> Tensor:
    """Weights (outputs, ...) with mean 0 and variance 1 over the inputs of each output (Qiao et al. 2019)."""
    flat = weight.flatten(1)
    centred = flat - flat.mean(1, keepdim=True)
    return (centred / (centred.square().mean(1, keepdim=True).sqrt() + _EPS)).view_as(weight)


class StandardizedConv2d(nn.Conv2d):
    """A convolution that uses its weights standardised; to be followed by a normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, standardized(self.weight), self.bias)


class StandardizedLinear(nn.Linear):
    """A linear layer that uses its weights standardised; to be followed by a normalisation."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, standardized(self.weight), self.bias)


def without_batchnorm(net: nn.Module) -> int:
    """Put GroupNorm with weight standardisation in the place of BatchNorm; the number of layers replaced.

    In place: every BatchNorm becomes a GroupNorm of up to 16 groups with its scale and offset, and every plain
    convolution standardises its weights. Names and shapes of all weights stay as they are. This is
    what keeps BYOL working without batch statistics (Richemond et al. 2020, arXiv 2010.10241).
    """
    replaced = 0
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            group = nn.GroupNorm(num_groups(module.num_features), module.num_features, affine=module.affine)
            if module.affine:
                group.weight, group.bias = module.weight, module.bias
            net.set_submodule(name, group)
            replaced += 1
    for module in net.modules():
        if replaced and type(module) is nn.Conv2d:
            module.__class__ = StandardizedConv2d
    return replaced
