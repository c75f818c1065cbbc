"""Variance-Invariance-Covariance Regularization (VICReg; Bardes et al. 2021, arXiv 2105.04906)."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32
from ownlatent.methods._base import Method, Suspect
from ownlatent.nn.collectives import gather
from ownlatent.nn.mlp import mlp
from ownlatent.types import Output, Views

_EPS = 1e-4  # within the square root, section 4.1


class VICReg(Method):
    """Keep the views' embeddings close, every feature varying, and no two features alike.

    Idea: Three plain terms on the embeddings of two views: their distance, a hinge that keeps each feature's standard
    deviation above 1 over the batch, and the covariances between features. Each prevents one failure that can be
    named. Neither branch needs the other's weights, nor any normalisation of the embeddings.

    Equation: loss = lambda s(Z, Z') + mu (v(Z) + v(Z')) / 2 + nu (c(Z) + c(Z')) with s the mean squared difference,
    v(Z) = mean_j max(0, 1 - sqrt(Var(z_j) + 1e-4)), c(Z) = sum_{i != j} Cov(Z)_ij^2 / D (eq. 1 to 6).
    Like the released code and unlike the paper's text, s is a mean over features too and the variance terms are halved.

    Needs: batch 64 or more, the paper tried 128 and up; memory one network and a matrix of the projection's width
    squared; negatives none; momentum no; predictor no.

    Pick it: when there is little time, for which it is the default; or to see what keeps the embeddings apart: every
    term is a number with a meaning.

    Goes wrong: a variance term that stays near 1 is collapse: the balance is off (lambda and mu should be equal and
    well above nu; 1, 1, 1 collapses) or the rate too high. A large covariance term with a small variance term means
    few dimensions.

    hidden, projection: widths of the expander's three layers. invariance, variance, covariance: lambda, mu, nu.
    norm: what normalises in the expander, "batch", "group", "layer" or "none".
    """

    least_std = 0.35  # the embeddings are compared as they are, and need not spread over the sphere

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 8192,
        projection: int = 8192,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        norm: str = "batch",
    ):
        super().__init__()
        if not all(weight >= 0 for weight in (invariance, variance, covariance)):
            raise OwnlatentError("invariance, variance and covariance are weights of at least 0")
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, hidden, hidden, projection, kind=norm)
        self.weights = (invariance, variance, covariance)

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        terms = vicreg_terms(z1, z2)
        loss = sum(weight * term for weight, term in zip(self.weights, terms, strict=True))
        names = ("invariance", "variance", "covariance")
        return Output(loss, z1.detach(), {name: term.detach() for name, term in zip(names, terms, strict=True)})

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        if settings["variance"] < min(1.0, settings["invariance"] / 5):
            why = (
                f"little keeps features varying (variance {settings['variance']:g}; in VICReg's ablation all collapse)"
            )
            yield Suspect("variance", why, "give --method.variance 25 with --method.invariance 25")
        elif settings["covariance"] >= settings["variance"]:
            why = "the covariance term weighs as much as the variance term (in VICReg's ablation 1, 1, 1 collapses)"
            yield Suspect("covariance", why, "give --method.covariance 1 with --method.variance 25")

    @classmethod
    def symptom(cls, settings: dict[str, Any], row: Mapping[str, float], batch_size: int) -> tuple[str, str] | None:
        if row["variance"] > 0.9:
            return "collapsed", f"the variance term is {row['variance']:.2f}: no feature varies (0.99 is all equal)"
        return None


@in_float32
def vicreg_terms(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """s, (v + v') / 2 and c + c' (VICReg, eq. 1 to 5), the latter two over the images of all processes.

    z1, z2: (B, D). Unbiased variances and covariances.
    """
    invariance = F.mse_loss(z1, z2)
    z1, z2 = gather(z1), gather(z2)
    z1, z2 = z1 - z1.mean(0), z2 - z2.mean(0)
    return invariance, (_hinge(z1) + _hinge(z2)) / 2, _covariance(z1) + _covariance(z2)


def _hinge(centred: Tensor) -> Tensor:
    return F.relu(1 - (centred.var(0) + _EPS).sqrt()).mean()


def _covariance(centred: Tensor) -> Tensor:
    covariances = centred.T @ centred / (len(centred) - 1)
    return (covariances - torch.diag(covariances.diagonal())).square().sum() / centred.shape[1]


RECIPES = {
    "default": {"views": "vicreg", "optim.name": "sgd", "optim.base_lr": 0.12, "optim.weight_decay": 5e-4},
    "small": {"views": "vicreg_small"},
    "processor": {"method.hidden": 512, "method.projection": 512},
    "short": {"views": "gentle", "optim.name": "adamw", "optim.base_lr": 8e-3, "optim.weight_decay": 0.01},
    "imagenet": {
        "about": "1000 epochs, 73.2 % linear; the released code's views, BYOL's pair",
        "views": "byol",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 2048,
        "epochs": 1000,
        "optim.name": "lars",
        "optim.eta": 1e-3,
        "optim.base_lr": 0.2,
        "optim.weight_decay": 1e-6,
        "optim.warmup": 0.01,
        "optim.end_lr": 0.001,
    },
}
