"""Barlow Twins (Zbontar et al. 2021, arXiv 2103.03230)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32
from ownlatent.methods._base import Method, Suspect
from ownlatent.nn.collectives import gather
from ownlatent.nn.mlp import mlp
from ownlatent.types import Output, Views

_EPS = 1e-5  # BatchNorm's, which standardises in the released code


class BarlowTwins(Method):
    """Make each feature agree between the views and all features independent of each other.

    Idea: The correlations between the features of one view and those of the other, over the batch, should be the
    identity matrix. The diagonal makes the features the same in both views, the rest makes each feature say
    something of its own. One network, both branches with a gradient, and no asymmetry of any kind.

    Equation: C = z1'^T z2' / N with z' standardised over the batch (biased variance);
    loss = sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2 (eq. 1).

    Needs: batch 128 or more, best near 1024; memory one network and a matrix of the projection's width squared;
    negatives none; momentum no; predictor no.

    Pick it: when nothing in the method should hinge on a schedule or a moving average, and wide projections fit.

    Goes wrong: a loss that stays near D, the width of the projection, means constant features. Too large a lambda gives
    independent features that do not agree between views. Crops without colour jitter lose 25 points.

    hidden, projection: widths of the projector's three layers; it gets better up to 16,384. redundancy: lambda, 0.0051
    in the released code, 0.005 in the paper. norm: what normalises in the projector, "batch", "group", "layer" or
    "none". The published codes reduce C with an all_reduce that passes no gradient: on W processes theirs is W
    times too small, and the recipe's small rate for biases was tuned on that. Here the gradient is exact.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 8192,
        projection: int = 8192,
        redundancy: float = 0.0051,
        norm: str = "batch",
    ):
        super().__init__()
        if not redundancy >= 0:
            raise OwnlatentError(f"redundancy is a weight of at least 0, not {redundancy}")
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, hidden, hidden, projection, kind=norm, bias=False)
        self.redundancy = redundancy

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        invariance, redundancy = correlation_loss(z1, z2)
        loss = invariance + self.redundancy * redundancy
        return Output(loss, z1.detach(), {"invariance": invariance.detach(), "redundancy": redundancy.detach()})

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        if settings["redundancy"] > 0.1:
            why = f"independent features weigh more than agreeing ones (redundancy {settings['redundancy']:g})"
            yield Suspect("redundancy", why, "give --method.redundancy 0.0051")
        if settings["redundancy"] == 0:
            why = "nothing keeps the features from all saying the same (redundancy 0)"
            yield Suspect("redundancy", why, "give --method.redundancy 0.0051")

    @classmethod
    def symptom(cls, settings: dict[str, Any], row: Mapping[str, float], batch_size: int) -> tuple[str, str] | None:
        if row["invariance"] > 0.9 * settings["projection"]:
            of = f"the loss has {row['invariance']:.0f} of {settings['projection']} from features that do not agree"
            return "stalled", of
        if row.get("alignment", 0.0) > 1.5 * row["std"] ** 2:  # two views of one image are 2 std^2 apart by chance
            of = f"two views of an image ({row['alignment']:.2f} apart) agree hardly better than two images"
            return "stalled", f"{of} ({2 * row['std'] ** 2:.2f})"
        return None


@in_float32
def correlation_loss(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor]:
    """sum_i (1 - C_ii)^2 and sum_{i != j} C_ij^2 of the correlations C (D, D) between the views (Barlow Twins, eq. 1).

    z1, z2: (B, D) of any scale and offset, standardised here over the images of all processes.
    """
    z1, z2 = standardized(gather(z1)), standardized(gather(z2))
    correlations = z1.T @ z2 / len(z1)
    diagonal = correlations.diagonal()
    return (1 - diagonal).square().sum(), (correlations - torch.diag(diagonal)).square().sum()


def standardized(z: Tensor) -> Tensor:
    """Columns of (N, D) with mean 0 and biased variance 1."""
    return (z - z.mean(0)) / (z.var(0, correction=0) + _EPS).sqrt()


RECIPES = {
    "default": {  # as solo-learn's for CIFAR: SGD, which feels the scale of this loss, reaches 5 to 9 points less
        "views": "barlow_twins",
        "optim.name": "lars",
        "optim.base_lr": 0.3,
        "optim.bias_lr": 0.02,
        "optim.eta": 0.02,
        "optim.weight_decay": 1e-4,
    },
    "small": {"views": "byol_small"},
    "processor": {"method.hidden": 512, "method.projection": 512},
    "imagenet": {
        "about": "1000 epochs, 73.2 % linear; the paper's decay; bias_lr was tuned on 1/16 of the gradient",
        "views": "barlow_twins",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 2048,
        "epochs": 1000,
        "optim.name": "lars",
        "optim.base_lr": 0.2,
        "optim.bias_lr": 0.024,
        "optim.eta": 1e-3,
        "optim.weight_decay": 1.5e-6,
        "optim.warmup": 0.01,
        "optim.end_lr": 0.001,
    },
}
