"""The moving average that DINO subtracts."""

import torch
from torch import Tensor, nn

from ownlatent.nn.collectives import average


class Center(nn.Module):
    """A moving average (width,) of outputs over the batches of all processes, 0 at first.

    momentum: the share that is kept at each batch; 1 never moves.
    """

    value: Tensor

    def __init__(self, width: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(width))

    @torch.no_grad()
    def observe(self, outputs: Tensor) -> None:
        """center <- momentum * center + (1 - momentum) * mean of outputs (B, width)."""
        self.value.lerp_(average(outputs.to(self.value.dtype).mean(0)), 1 - self.momentum)
