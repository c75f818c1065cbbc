"""A slowly moving copy of a network."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class EMA(nn.Module):
    """A copy of a chain of modules whose parameters follow the originals as a moving average.

    Only parameters are averaged. Buffers (BatchNorm statistics) are the copy's own and change by
    its own forward passes, as in BYOL's released code and every reimplementation of it. Apart from its BatchNorm
    the copy is in evaluation mode: it drops nothing at random, as DINO's teacher does not; the other papers'
    networks have nothing to drop.
    """

    def __init__(self, *sources: nn.Module):
        super().__init__()
        self.net = nn.Sequential(*(deepcopy(source) for source in sources)).requires_grad_(False)
        self._pairs: tuple[tuple[nn.Module, ...], list[Tensor], list[Tensor]] | None = None
        self._drop_nothing()

    def train(self, mode: bool = True) -> "EMA":
        super().train(mode)
        self._drop_nothing()
        return self

    def _drop_nothing(self) -> None:
        # Not by `eval`, which reaches into the parts: a BatchNorm within keeps its mode, also one that was frozen.
        for module in self.net.modules():
            if not isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.training = False

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    @torch.no_grad()
    def update(self, *sources: nn.Module, tau: float) -> None:
        """target <- tau * target + (1 - tau) * source, exact for tau 0 and 1; sources as in the constructor."""
        if self._pairs is None or self._pairs[0] != sources:  # walking the modules takes as long as the update itself
            online: list[Tensor] = [p for source in sources for p in source.parameters()]
            self._pairs = sources, list(self.net.parameters()), online
        _, target, online = self._pairs
        torch._foreach_lerp_(target, online, 1 - tau)
