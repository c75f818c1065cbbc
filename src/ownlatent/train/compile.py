"""Compile the networks where that pays."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.train.budget import Budget
from ownlatent.train.precision import seconds_of_pass

_SHORT = 600.0  # seconds: a run that is not longer does not win back the minute that compiling takes
_GAIN = 1.1  # a compiled network must be this much faster
_ROUNDS = 5
_PASSES = 3  # a run's steps take about as long as so many forward and backward passes of one view


def choose_compile(
    wanted: str, backbone: Backbone, images: tuple[int, ...], device: torch.device, precision: str, budget: Budget
) -> tuple[bool, str]:
    """Whether to compile the networks, and why; up to a minute on CUDA, at once elsewhere.

    wanted: "on", "off" or "auto". images: the shape (B, C, H, W) of one view. On a processor the answer is known: a
    whole network gained 3 to 8 % there, as nearly all of its time goes into convolutions, which are not compiled. On
    CUDA forward and backward are timed both ways, if the run is long enough for it.
    """
    if backbone.layer:
        if wanted == "on":
            raise OwnlatentError("an inner layer cannot be taken out of a compiled network: leave out --compile")
        return False, "the features come from inside the network"
    if wanted != "auto":
        return wanted == "on", "as asked"
    if device.type != "cuda":
        return False, f"compiling gains a few percent on {device.type} and takes half a minute"
    x = torch.zeros(images, device=device).contiguous(memory_format=torch.channels_last)
    net = deepcopy(backbone).train().to(device).to(memory_format=torch.channels_last)
    plain = _seconds(net, x, precision)
    run = budget.seconds if budget.steps is None else budget.steps * plain * _PASSES
    assert run is not None
    if run < _SHORT:
        return False, f"a run of about {run / 60:.0f} minutes does not win back the minute that compiling takes"
    net.net.compile()
    try:
        compiled = _seconds(net, x, precision)
    except Exception as error:  # the compiler's own, and those of the tools that it calls
        return False, f"it fails here ({type(error).__name__})"
    gain = plain / compiled
    return gain >= _GAIN, f"measured {gain:.2f}x as fast"


def _seconds(net: nn.Module, images: Tensor, precision: str) -> float:
    """The fastest of some passes, after two that warm up."""
    return min([seconds_of_pass(net, images, precision) for _ in range(_ROUNDS + 2)][2:])


@contextmanager
def compiled(method: nn.Module, wanted: bool) -> Iterator[None]:
    """Within it the networks of a method run compiled, the target's too; their weights and names stay as they are."""
    nets: list[nn.Module] = [part.net for part in method.modules() if isinstance(part, Backbone)] if wanted else []
    for net in nets:
        net.compile()
    try:
        yield
    finally:
        for net in nets:
            net._compiled_call_impl = None
