"""Self-Supervised Learning Dynamics without Contrastive Pairs (DirectPred; Tian et al. 2021, arXiv 2102.06810)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32, regression_loss
from ownlatent.methods._base import Method, Suspect
from ownlatent.nn.collectives import average
from ownlatent.nn.ema import EMA
from ownlatent.nn.norm import norm as norm_layer
from ownlatent.types import Output, Views


class DirectPred(Method):
    """BYOL with a linear predictor that is computed from the projections' correlation, not learned.

    Idea: In BYOL with a linear predictor the predictor's eigenspace comes to agree with that of the correlation of its
    inputs. So it can be set there directly: same eigenvectors, eigenvalues the square roots. It shows what a
    predictor is for, and needs no learning rate of its own.

    Equation: F <- rho F + (1 - rho) mean f f^T over both views, f the projection, neither centred nor normalised;
    F = U diag(s) U^T; p_j = sqrt(s_j) + eps max_j s_j; W = U diag(p) U^T (section 4);
    loss as BYOL's, with W f as the prediction. The released code divides by the largest s, which only changes the
    weight of eps.

    Needs: batch 64 or more; memory two networks; negatives none; momentum yes; predictor yes.

    Pick it: to study why such methods do not collapse; for results take BYOL.

    Goes wrong: a large eps makes the predictor the identity, which collapses slowly: `std` falls over many epochs. The
    paper's 0.1 does that on CIFAR-10 in short runs at our rates, so 0.01 is the default of runs. With eps 0 directions
    that are lost once never come back. Centring the projections hurts.

    W is the identity until it is set for the first time. hidden, projection: widths of the projector. rho: the share
    of F that is kept, 0.3. eps: lifts small eigenvalues, 0.1. every: optimiser steps between two settings of W; with
    1 it gets no gradient, with more it is trained in between. tau: of the target, constant. norm: what normalises in
    the projector.
    """

    least_std = 0.45  # the projector ends in a plain layer

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 512,
        projection: int = 128,
        rho: float = 0.3,
        eps: float = 0.1,
        every: int = 1,
        tau: float = 0.996,
        norm: str = "batch",
    ):
        super().__init__()
        if not 0 <= rho < 1 or not 0 <= tau <= 1:
            raise OwnlatentError(f"rho must lie in [0, 1) and tau in [0, 1], not {rho} and {tau}")
        if not eps >= 0 or every < 1 or min(hidden, projection) < 1:
            raise OwnlatentError("eps must be at least 0, and every, hidden and projection at least 1")
        self.backbone = backbone
        self.projector = nn.Sequential(
            nn.Linear(backbone.num_features, hidden),
            norm_layer(norm, hidden, affine=False),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, projection),
        )
        self.predictor = nn.Linear(projection, projection, bias=False)
        nn.init.eye_(self.predictor.weight)
        self.predictor.requires_grad_(every > 1)
        self.target = EMA(self.backbone, self.projector)
        self.rho, self.eps, self.every, self.tau = rho, eps, every, tau
        self.correlation: Tensor
        self.register_buffer("correlation", torch.zeros(projection, projection))
        self.batches: Tensor
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        f1, f2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        self._observe(torch.cat([f1, f2]).detach().to(self.correlation.dtype))
        loss = regression_loss(self.predictor(f1), self.target(view2))
        loss = loss + regression_loss(self.predictor(f2), self.target(view1))
        return Output(loss, f1.detach())

    @torch.no_grad()
    def _observe(self, f: Tensor) -> None:
        with torch.autocast(f.device.type, enabled=False):
            seen = average(f.T @ f / len(f))
        share = torch.where(self.batches == 0, 1.0, 1 - self.rho)  # the first batch is taken as it is
        self.correlation.lerp_(seen, share)
        self.batches += 1

    def after_step(self, progress: float) -> None:
        self.target.update(self.backbone, self.projector, tau=self.tau)
        self.steps += 1
        if self.every == 1 or int(self.steps) % self.every == 0:
            with torch.no_grad():
                self.predictor.weight.copy_(predictor_of(self.correlation, self.eps))

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        if settings["eps"] >= 3:
            why = f"so large an eps ({settings['eps']:g}) makes the predictor nearly the identity"
            yield Suspect("eps", why, "give --method.eps 0.1")
        if settings["tau"] == 0:
            why = "a symmetric linear predictor fails without a moving average (DirectPred: 36.6 % instead of 75.1)"
            yield Suspect("tau", why, "raise --method.tau to 0.996")

    def scheduled(self, progress: float) -> dict[str, float]:
        return {"tau": float(self.tau)}


@in_float32
def predictor_of(correlation: Tensor, eps: float) -> Tensor:
    """W = U diag(sqrt(s) + eps max s) U^T of a correlation U diag(s) U^T (D, D), symmetric and positive semidefinite.

    A correlation that is not finite, as of a run that diverged, gives itself back.
    """
    if not correlation.isfinite().all():
        return correlation
    s, u = torch.linalg.eigh(correlation)
    s = s.clamp(min=0)  # rounding can make a zero negative
    return (u * (s.sqrt() + eps * s.max())) @ u.T


RECIPES = {
    "default": {
        "views": "byol",
        "optim.name": "sgd",
        "optim.base_lr": 0.12,
        "optim.weight_decay": 5e-4,
        "method.tau": 0.99,
        "method.eps": 0.01,
    },
    "small": {"views": "byol_small"},
    "long": {"method.tau": 0.996},
    "cifar10": {
        "about": "ResNet-18, 500 epochs, 89.5 % linear (best epoch)",
        "views": "moco_small",
        "views.blur": 0.0,
        "backbone": "resnet18",
        "image_size": 32,
        "batch_size": 128,
        "epochs": 500,
        "optim.name": "sgd",
        "optim.lr": 0.03,
        "optim.weight_decay": 4e-4,
        "optim.decay_all": True,
        "optim.warmup": 0.0,
        "optim.end_lr": 1.0,
        "method.tau": 0.996,
    },
}
