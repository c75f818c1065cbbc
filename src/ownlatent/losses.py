"""Losses and parts of losses that two or more methods use; a loss used once stays with its method."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.errors import OwnlatentError, nearest
from ownlatent.nn.collectives import gather, own

NORMALIZATIONS = ("l2", "layer", "batch", "none")


def in_float32(loss: Callable[..., Any]) -> Callable[..., Any]:
    """A loss whose tensors are brought to float32 (float64 stays), with autocast switched off.

    Autocast would compute a loss's matrix products in bfloat16: three digits, also of the gradient.
    """

    @wraps(loss)
    def precise(*arguments: Any, **keywords: Any) -> Any:
        given = [*arguments, *keywords.values()]
        device = next(a.device.type for a in given if isinstance(a, Tensor))
        with torch.autocast(device, enabled=False):
            return loss(*map(widened, arguments), **{name: widened(value) for name, value in keywords.items()})

    return precise


def widened(argument: Any) -> Any:
    """A tensor of half precision as float32; everything else as it is."""
    half = isinstance(argument, Tensor) and argument.dtype in (torch.bfloat16, torch.float16)
    return argument.float() if half else argument


def unit(x: Tensor) -> Tensor:
    """Rows (B, D) scaled to length 1; a row of zeros stays."""
    return F.normalize(x, dim=1, eps=1e-6)  # BYOL's code clips the squared norm at 1e-12


@in_float32
def regression_loss(prediction: Tensor, target: Tensor, normalize: str = "l2") -> Tensor:
    """Mean over the batch of the squared distance of normalised vectors (BYOL, eq. 2).

    prediction, target: (B, D) of any scale; a target that should not move must come without a gradient.
    normalize: "l2" compares unit vectors, 2 - 2 cos, in [0, 4]; "layer" and "batch" standardise over
    features or over the batch and divide by sqrt(D); "none" compares them as they are.
    """
    return (_normalized(prediction, normalize) - _normalized(target, normalize)).square().sum(1).mean()


def _normalized(x: Tensor, how: str) -> Tensor:
    if how == "l2":
        return unit(x)
    if how == "layer":
        return F.layer_norm(x, x.shape[1:]) / x.shape[1] ** 0.5
    if how == "batch":
        everyone = F.batch_norm(gather(x), None, None, training=True) / x.shape[1] ** 0.5
        return everyone[own(len(x), x.device)]
    if how == "none":
        return x
    raise OwnlatentError(f"there is no normalisation {how!r} of the loss: {nearest(how, NORMALIZATIONS)}")
