"""A Simple Framework for Contrastive Learning (SimCLR; Chen et al. 2020, arXiv 2002.05709)."""

from collections.abc import Iterator, Mapping
from math import log
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32, unit
from ownlatent.methods._base import Method, Suspect, stuck, unusual_temperature
from ownlatent.nn.collectives import gather, own
from ownlatent.nn.mlp import mlp
from ownlatent.nn.norm import norm as norm_layer
from ownlatent.types import Output, Views


class SimCLR(Method):
    """Tell the other view of an image from all other views in the batch.

    Idea: Two views of one image should have close projections, and all other views in the batch distant ones. Every
    view is a query once; the other 2 N - 1 views are the choices. The more images in a batch, the harder the
    task and the better what is learned.

    Equation: l(i, j) = -log( exp(s_ij / t) / sum_{k != i} exp(s_ik / t) ), s the cosine of projections;
    loss = mean of l over all 2 N views and their partners (eq. 1). The released code sums the two means
    over N views, twice this.

    Needs: batch 256 or more, the larger the better; memory one network; negatives the batch; momentum no; predictor no.

    Pick it: when batches can be large, or when a loss is wanted whose value says something: it is the
    cross-entropy of finding the partner.

    Goes wrong: a loss that stays at log(2 N - 1) is the collapsed one: too high a rate or too high a temperature. Small
    batches learn less. Weak colour jitter lets it compare colour histograms: k-NN stays low while the loss is small.

    hidden, projection: widths of the projector, of `layers` layers (2 in the paper, 3 in SimCLR v2), with BatchNorm
    also behind the last, as in the released code. temperature: 0.1 for ImageNet, 0.5 for CIFAR-10. norm: what
    normalises in the projector, "batch", "group", "layer" or "none". The released code multiplies by the learning rate
    before the momentum, our optimisers after it, which differs only while the rate changes.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 2048,
        projection: int = 128,
        layers: int = 2,
        temperature: float = 0.1,
        norm: str = "batch",
    ):
        super().__init__()
        if not temperature > 0 or layers < 1:
            raise OwnlatentError("temperature must be greater than 0 and layers at least 1")
        self.backbone = backbone
        self.projector = nn.Sequential(
            mlp(backbone.num_features, *[hidden] * (layers - 1), projection, kind=norm, bias=False),
            norm_layer(norm, projection, shift=False),
        )
        self.temperature = temperature

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        loss, found = nt_xent(z1, z2, self.temperature)
        return Output(loss, z1.detach(), {"found": found})

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        yield from unusual_temperature(settings["temperature"])

    @classmethod
    def symptom(cls, settings: dict[str, Any], row: Mapping[str, float], batch_size: int) -> tuple[str, str] | None:
        return stuck(row["loss"], log(2 * batch_size - 1), "log(2 N - 1)")


@in_float32
def nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The normalised, temperature-scaled cross-entropy (SimCLR, eq. 1), over the images of all processes.

    z1, z2: (B, D) of any scale, row i of both from image i. Returns the mean over the own 2 B views, in
    [0, ...) and log(2 N - 1) when all are equal, and the share of views whose partner is the nearest.
    """
    z1, z2 = unit(z1), unit(z2)
    everyone = torch.cat([gather(z1), gather(z2)])  # view 1 of all images, then view 2
    logits = torch.cat([z1, z2]) @ everyone.T / temperature
    first = own(len(z1), z1.device)
    second = first + len(everyone) // 2
    itself, partner = torch.cat([first, second]), torch.cat([second, first])
    logits = logits.scatter(1, itself.unsqueeze(1), -torch.inf)
    return F.cross_entropy(logits, partner), (logits.argmax(1) == partner).float().mean()


RECIPES = {
    "default": {
        "views": "simclr",
        "optim.name": "sgd",
        "optim.base_lr": 0.12,
        "optim.weight_decay": 5e-4,
        "method.temperature": 0.2,
    },
    "small": {"views": "simclr_small"},
    "processor": {"method.hidden": 512},
    "short": {
        "optim.name": "adamw",
        "optim.base_lr": 8e-3,
        "optim.weight_decay": 0.01,
        "optim.end_lr": 0.2,
        "method.projection": 512,
    },
    "imagenet": {
        "about": "1000 epochs, 69.3 % linear",
        "views": "simclr",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 4096,
        "epochs": 1000,
        "optim.name": "lars",
        "optim.eta": 1e-3,
        "optim.base_lr": 0.3,
        "optim.weight_decay": 1e-6,
        "optim.warmup": 0.01,
        "optim.end_lr": 0.0,
        "method.temperature": 0.1,
    },
}
