"""A module in another mode for a moment, and as it was afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module, training: bool = False) -> Iterator[None]:
    """Put a module into evaluation (or training) mode and afterwards every part of it back into its own.

    Part by part, because a user may have frozen a BatchNorm by `.eval()` inside a training network.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.train(training)
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within, and afterwards the module's buffers and torch's random state as they were.

    Some networks count their passes, or draw, in evaluation mode too.
    """
    buffers = [(buffer, buffer.clone()) for buffer in module.buffers()]
    with evaluating(module), torch.random.fork_rng():
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)
