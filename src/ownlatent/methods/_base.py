"""The contract that every method keeps."""

from torch import nn

from ownlatent.backbones import Backbone
from ownlatent.optim.groups import split_decay
from ownlatent.types import Output, Views


class Method(nn.Module):
    """A backbone and an objective over views of the same images.

    Called with V views (B, C, H, W) it returns an Output whose loss has a gradient. State driven by
    data (a queue, a centre) changes in `forward`; state driven by the optimiser (a target network)
    changes only in `after_step`. Each view is its own pass through the backbone, so that BatchNorm
    sees one view at a time. Constructor keywords are the method's settings; labels never come here.
    """

    backbone: Backbone
    num_views: int = 2
    min_batch: int = 1
    """The fewest images for which the loss has a meaning."""

    def forward(self, views: Views) -> Output:
        raise TypeError(f"{type(self).__name__} is a contract, not a method: subclass it and define forward")

    def after_step(self, progress: float) -> None:
        """Call once after every optimiser step (not after every micro-batch), with progress in [0, 1]."""

    def scheduled(self, progress: float) -> dict[str, float]:
        """What the method's own schedules are at progress in [0, 1], by name, such as {"tau": 0.99}."""
        return {}

    def param_groups(self) -> list[dict]:
        """Parameter groups for `optim.create`: decayed weights, then undecayed biases and norms."""
        return split_decay(self)
