"""Evaluation mode for a moment."""

from collections.abc import Iterator
from contextlib import contextmanager

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
