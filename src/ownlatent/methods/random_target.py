"""Predicting a fixed random network (Grill et al. 2020, section 3 of arXiv 2006.07733)."""

import torch
from torch import nn

from ownlatent.backbones import Backbone
from ownlatent.losses import regression_loss
from ownlatent.methods._base import Method
from ownlatent.nn.ema import EMA
from ownlatent.nn.mlp import mlp
from ownlatent.types import Output, Views


class RandomTarget(Method):
    """Predict what a random network, which never changes, makes of the other view.

    Idea: The experiment that BYOL grew out of: the target network is random and stays so (tau = 1). Predicting it
    teaches a better representation than its own, though a poor one: on ImageNet 18.8 % where the random network
    has 1.4 %. BYOL repeats this step with a target that keeps improving.

    Equation: BYOL's with tau = 1: loss = l(q(z1), z2') + l(q(z2), z1'), l = 2 - 2 cos, z' of random weights.

    Needs: batch 64 or more; memory two networks; negatives none; momentum no; predictor yes.

    Pick it: never, but to see how much of a method's gain its moving target is.

    Goes wrong: it cannot collapse; a loss that soon stands still is all there is to learn.

    hidden, projection: widths of both heads. norm: what normalises in the heads, "batch", "group", "layer" or "none".
    """

    def __init__(self, backbone: Backbone, *, hidden: int = 4096, projection: int = 256, norm: str = "batch"):
        super().__init__()
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, hidden, projection, kind=norm)
        self.predictor = mlp(projection, hidden, projection, kind=norm)
        self.target = EMA(self.backbone, self.projector)
        _draw_again(self.target)

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        loss = regression_loss(self.predictor(z1), self.target(view2))
        loss = loss + regression_loss(self.predictor(z2), self.target(view1))
        return Output(loss, z1.detach())

    def scheduled(self, progress: float) -> dict[str, float]:
        return {"tau": 1.0}


@torch.no_grad()
def _draw_again(network: nn.Module) -> None:
    """Weights independent of the present ones, from the same distributions: each tensor's values in another order."""
    for weight in network.parameters():
        weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))


RECIPES = {
    "default": {"views": "byol", "optim.name": "sgd", "optim.base_lr": 0.12, "optim.weight_decay": 5e-4},
    "small": {"views": "byol_small"},
    "processor": {"method.hidden": 512, "method.projection": 128},
}
