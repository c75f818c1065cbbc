"""Training Self-Supervised Vision Transformers (MoCo v3; Chen et al. 2021, arXiv 2104.02057)."""

from collections.abc import Iterator, Mapping
from math import log
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32, unit
from ownlatent.methods._base import Method, Suspect, stuck, unusual_temperature
from ownlatent.nn.collectives import gather, own
from ownlatent.nn.ema import EMA
from ownlatent.nn.mlp import mlp
from ownlatent.nn.norm import norm as norm_layer
from ownlatent.optim.schedules import cosine
from ownlatent.types import Output, Views


class MoCoV3(Method):
    """Tell the target's projection of an image from those of the batch's other images, by a predictor.

    Idea: BYOL's networks with a contrastive loss: an online network with a predictor finds, among the target network's
    projections of the whole batch, that of its own image. The batch takes the place of MoCo's queue. The same
    recipe trains ResNets and Vision Transformers.

    Equation: ctr(q, k) = -2 t log( exp(q.k+ / t) / sum_batch exp(q.k / t) ) with unit vectors, the image's own key
    included below; loss = ctr(q1, k2) + ctr(q2, k1) (algorithm 1);
    tau = 1 - (1 - tau_base) (cos(pi progress) + 1) / 2.

    Needs: batch 256 or more; memory two networks; negatives the batch; momentum yes; predictor yes.

    Pick it: for Vision Transformers, and where BYOL is wanted with a loss whose value says something.

    Goes wrong: a loss that stays at 4 t ln N is the collapsed one. Vision Transformers are unstable at large rates:
    dips in k-NN during training, without a jump in the loss.

    hidden, projection: widths of both heads. projector_layers: 2 for ResNets, 3 for Vision Transformers, whose
    predictor ends in a normalisation too (predictor_norm). tau: tau_base, 0.99, or 0.996 for 1000 epochs; it rises
    to 1. temperature: 1.0 for ResNet-50, 0.2 for Vision Transformers. norm: what normalises in the heads, "batch",
    "group", "layer" or "none". The released code moves the target between the two networks' passes of the next
    step; here it moves right after the optimiser, which is the same.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 4096,
        projection: int = 256,
        projector_layers: int = 2,
        predictor_norm: bool = False,
        tau: float = 0.99,
        temperature: float = 1.0,
        norm: str = "batch",
    ):
        super().__init__()
        if not 0 <= tau <= 1:
            raise OwnlatentError(f"tau must lie in [0, 1], not {tau}: 0.99, or 0.996 for long runs")
        if not temperature > 0 or projector_layers < 1:
            raise OwnlatentError("temperature must be greater than 0 and projector_layers at least 1")
        self.backbone = backbone
        self.projector = nn.Sequential(
            mlp(backbone.num_features, *[hidden] * (projector_layers - 1), projection, kind=norm, bias=False),
            norm_layer(norm, projection, affine=False),
        )
        self.predictor = nn.Sequential(mlp(projection, hidden, projection, kind=norm, bias=False))
        if predictor_norm:
            self.predictor.append(norm_layer(norm, projection, affine=False))
        self.target = EMA(self.backbone, self.projector)
        self.tau, self.temperature = tau, temperature

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        loss1, found1 = contrast(self.predictor(z1), self.target(view2), self.temperature)
        loss2, found2 = contrast(self.predictor(z2), self.target(view1), self.temperature)
        return Output(2 * self.temperature * (loss1 + loss2), z1.detach(), {"found": (found1 + found2) / 2})

    def after_step(self, progress: float) -> None:
        self.target.update(self.backbone, self.projector, tau=self.scheduled(progress)["tau"])

    def scheduled(self, progress: float) -> dict[str, float]:
        return {"tau": cosine(progress, self.tau, 1.0)}

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        yield from unusual_temperature(settings["temperature"])

    @classmethod
    def symptom(cls, settings: dict[str, Any], row: Mapping[str, float], batch_size: int) -> tuple[str, str] | None:
        return stuck(row["loss"], 4 * settings["temperature"] * log(batch_size), "4 t ln N")


@in_float32
def contrast(queries: Tensor, keys: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE of each query against the keys of all images of all processes; its own is the right one.

    queries, keys: (B, D) of any scale, row i of both from image i. Returns the cross-entropy of cosines over
    temperature, in [0, ...), and the share of queries nearest to their own key, without a gradient.
    """
    logits = unit(queries) @ gather(unit(keys)).T / temperature
    right = own(len(queries), queries.device)
    return F.cross_entropy(logits, right), (logits.argmax(1) == right).float().mean()


RECIPES = {
    "default": {
        "views": "moco_v3",
        "optim.name": "sgd",
        "optim.base_lr": 0.12,
        "optim.weight_decay": 5e-4,
        "method.tau": 0.99,
        "method.temperature": 0.2,
    },
    "small": {"views": "byol_small"},
    "processor": {"method.hidden": 512, "method.projection": 128},
    "long": {"method.tau": 0.996},
    "imagenet": {
        "about": "300 epochs, 72.8 % linear",
        "views": "moco_v3",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 4096,
        "epochs": 300,
        "optim.name": "lars",
        "optim.eta": 1e-3,
        "optim.base_lr": 0.3,
        "optim.weight_decay": 1e-6,
        "optim.warmup": 0.03333333,
        "method.tau": 0.99,
        "method.temperature": 1.0,
    },
    "imagenet_vit": {
        "about": "ViT-S/16, 300 epochs: 73.2 % linear, with 12 heads, frozen patches and fixed positions unlike timm's",
        "views": "byol",
        "backbone": "vit_small_patch16_224",
        "image_size": 224,
        "batch_size": 4096,
        "epochs": 300,
        "optim.name": "adamw",
        "optim.base_lr": 1.5e-4,
        "optim.weight_decay": 0.1,
        "optim.decay_all": True,
        "optim.warmup": 0.13333333,
        "method.projector_layers": 3,
        "method.predictor_norm": True,
        "method.tau": 0.99,
        "method.temperature": 0.2,
    },
}
