"""Bootstrap Your Own Latent (Grill et al. 2020, arXiv 2006.07733)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.losses import NORMALIZATIONS, in_float32, regression_loss, unit
from ownlatent.methods._base import Method, Suspect
from ownlatent.nn.collectives import gather, own
from ownlatent.nn.ema import EMA
from ownlatent.nn.mlp import mlp
from ownlatent.optim.groups import split_decay
from ownlatent.optim.schedules import cosine
from ownlatent.types import Output, Views

SCHEDULES = ("cosine", "constant")


class BYOL(Method):
    """Predict the target network's projection of one view from the online projection of the other.

    Idea: An online network (backbone, projector, predictor) learns to predict what a target network
    (backbone, projector) makes of another view of the same image. The target receives no gradient:
    it is a moving average of the online network. No negatives are needed; the predictor and the
    slow target keep the constant solution away.

    Equation: loss = l(q(z1), z2') + l(q(z2), z1') with l(p, t) = 2 - 2 cos(p, t), in [0, 8]
    (eq. 2, symmetrised by a sum); z = g(f(view)), z' the target's;
    tau = 1 - (1 - tau_base) (cos(pi progress) + 1) / 2;
    target <- tau target + (1 - tau) online, after each optimiser step (section 3.2).

    Needs: batch 64 or more, hardly better beyond 256; memory two networks; negatives none; momentum yes;
    predictor yes.

    Pick it: first, unless there is little time: it needs neither large batches nor negatives, and forgives the choice
    of views.

    Goes wrong: with a gradient into a target that follows at once (tau 0, stop_gradient false) all images get one
    embedding: the loss falls to 0 within an epoch and `std` with it. Without a predictor the embeddings draw together
    more slowly: `std` falls below 0.4. tau 0 by itself fails in the paper's long runs, and holds in short ones, as
    SimSiam does. A target that is too slow for a short run (tau 0.996 for less than 100 epochs) learns little, while
    everything looks healthy. Without BatchNorm in the heads it stays near the random encoder; see docs/ablations.md.

    hidden, projection: widths of both heads. projector_layers, predictor_layers: their depth; 0 layers
    leave the predictor out. tau: tau_base, from 0 (the target is the online network, at every step) to 1 (it never
    moves). tau_schedule: "cosine", to 1 at the end, or "constant"; 0 stays 0. predictor_lr: the predictor's
    learning rate as a multiple of the others'. stop_gradient: false lets the gradient into the target
    branch, which then is the online network itself (tau 0). negatives: beta, the weight of the negatives in the
    objectives between BYOL (0) and SimCLR (1, table 5b), and their temperature. normalize: what the
    loss compares, "l2", "layer", "batch" or "none". norm: "batch", or "group" (with standardised weights),
    "layer" or "none" in the heads; the backbone has a setting of its own for this.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 4096,
        projection: int = 256,
        projector_layers: int = 2,
        predictor_layers: int = 2,
        predictor_lr: float = 1.0,
        tau: float = 0.996,
        tau_schedule: str = "cosine",
        stop_gradient: bool = True,
        negatives: float = 0.0,
        temperature: float = 0.1,
        normalize: str = "l2",
        norm: str = "batch",
    ):
        super().__init__()
        if not 0 <= tau <= 1:
            raise OwnlatentError(f"tau must lie in [0, 1], not {tau}: 0.99 for short runs, 0.996 for long ones")
        if tau_schedule not in SCHEDULES:
            raise OwnlatentError(f"there is no schedule {tau_schedule!r} of tau: {nearest(tau_schedule, SCHEDULES)}")
        if normalize not in NORMALIZATIONS:
            raise OwnlatentError(f"there is no normalize {normalize!r}: {nearest(normalize, NORMALIZATIONS)}")
        if projector_layers < 1 or predictor_layers < 0:
            raise OwnlatentError("the projector has at least 1 layer and the predictor at least 0")
        if not (predictor_lr >= 0 and negatives >= 0 and temperature > 0):
            raise OwnlatentError("predictor_lr and negatives are at least 0, and temperature is greater than 0")
        if negatives and normalize != "l2":
            raise OwnlatentError("negatives compare cosines, so what they are beside must too: leave normalize at l2")
        if not stop_gradient and tau > 0:
            raise OwnlatentError("without stop_gradient the target is the online network itself: set tau to 0 as well")
        self.backbone = backbone
        self.projector = mlp(backbone.num_features, *[hidden] * (projector_layers - 1), projection, kind=norm)
        self.predictor: nn.Module = nn.Identity()
        if predictor_layers:
            self.predictor = mlp(projection, *[hidden] * (predictor_layers - 1), projection, kind=norm)
        self.target = EMA(self.backbone, self.projector)
        self.tau, self.tau_schedule, self.predictor_lr = tau, tau_schedule, predictor_lr
        self.stop_gradient, self.normalize = stop_gradient, normalize
        self.negatives, self.temperature = negatives, temperature

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        target1, target2 = (self.target(view1), self.target(view2)) if self.stop_gradient else (z1, z2)
        p1, p2 = self.predictor(z1), self.predictor(z2)
        loss = regression_loss(p1, target2, self.normalize) + regression_loss(p2, target1, self.normalize)
        terms = {}
        if self.negatives:
            repelled = repulsion(p1, target1, target2, self.temperature)
            repelled = repelled + repulsion(p2, target2, target1, self.temperature)
            loss, terms["repulsion"] = loss + self.negatives * repelled, repelled.detach()
        return Output(loss, z1.detach(), terms)

    def after_step(self, progress: float) -> None:
        self.target.update(self.backbone, self.projector, tau=self.scheduled(progress)["tau"])

    def scheduled(self, progress: float) -> dict[str, float]:
        moves = self.tau_schedule == "cosine" and self.tau > 0
        return {"tau": cosine(progress, self.tau, 1.0) if moves else float(self.tau)}

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        if settings["negatives"] > 0:
            return  # they keep the projections apart, whatever else is missing (table 5b)
        if not settings["stop_gradient"]:
            why = "the gradient flows into the target, which is the online network itself (BYOL, table 5b: 0.3 %)"
            yield Suspect("stop_gradient", why, "leave out --method.stop-gradient and --method.tau")
        if settings["predictor_layers"] == 0:
            why = "there is no predictor, so that the constant solution attracts (BYOL, table 5b: 0.2 %)"
            yield Suspect("predictor_layers", why, "give --method.predictor-layers 2")
        if settings["norm"] == "none":
            why = "nothing normalises in the heads, which draws the projections together"
            yield Suspect("norm", why, "give --method.norm batch, or group with --backbone.norm group (Richemond 2020)")
        if settings["stop_gradient"] and settings["tau"] == 0 and settings["predictor_lr"] <= 1:
            why = "the target follows at once (tau 0) and the predictor learns no faster than the projector (BYOL,"
            why += " table 20: 5.5 % after 300 epochs)"
            yield Suspect("tau", why, "raise --method.tau to 0.99 or --method.predictor-lr to 10")
        if settings["tau"] == 1:
            why = "the target never moves (tau 1; BYOL, table 5a: 18.8 %)"
            yield Suspect("tau", why, "lower --method.tau to 0.99")

    def param_groups(self) -> list[dict]:
        online = split_decay(self.backbone, self.projector)
        return [*online, *split_decay(self.predictor, lr_multiplier=self.predictor_lr)]


@in_float32
def repulsion(prediction: Tensor, same: Tensor, other: Tensor, temperature: float) -> Tensor:
    """2 a mean_i ln( sum_{j != i} exp(cos(p_i, t_j) / a) + sum_j exp(cos(p_i, t'_j) / a) ), a the temperature.

    prediction: (B, D) of one view; same, other: targets (B, D) of the same and of the other view. i runs over the
    own images, j over those of all processes. With weight 1 beside the attraction 2 - 2 cos it makes InfoNCE
    (BYOL, section 5).
    """
    p = unit(prediction)
    logits = torch.cat([p @ gather(unit(same)).T, p @ gather(unit(other)).T], dim=1) / temperature
    itself = torch.zeros_like(logits, dtype=torch.bool)
    itself[torch.arange(len(p), device=p.device), own(len(p), p.device)] = True
    return 2 * temperature * logits.masked_fill(itself, -torch.inf).logsumexp(1).mean()


RECIPES = {
    "default": {
        "views": "byol",
        "optim.name": "sgd",
        "optim.base_lr": 0.12,
        "optim.weight_decay": 5e-4,
        "method.tau": 0.99,
    },
    "small": {"views": "byol_small"},
    "processor": {"method.hidden": 512, "method.projection": 128},
    "long": {"method.tau": 0.996},
    "imagenet": {
        "about": "the headline: 1000 epochs, 74.3 % linear",
        "views": "byol",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 4096,
        "epochs": 1000,
        "optim.name": "lars",
        "optim.eta": 1e-3,
        "optim.base_lr": 0.2,
        "optim.weight_decay": 1.5e-6,
        "optim.warmup": 0.01,
        "method.tau": 0.996,
    },
    "imagenet_300": {
        "about": "all ablations: 72.5 % linear",
        "views": "byol",
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
    },
    "imagenet_100": {
        "about": "100 epochs; other people's runs gave 66.5 to 69.3 % linear",
        "views": "byol",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 4096,
        "epochs": 100,
        "optim.name": "lars",
        "optim.eta": 1e-3,
        "optim.base_lr": 0.45,
        "optim.weight_decay": 1e-6,
        "optim.warmup": 0.1,
        "method.tau": 0.99,
    },
    "imagenet_small_batch": {
        "about": "batches of 512, 1000 epochs (app. G): 73.7 % linear",
        "views": "byol",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 512,
        "epochs": 1000,
        "optim.name": "lars",
        "optim.eta": 1e-3,
        "optim.base_lr": 0.4,
        "optim.weight_decay": 1.5e-6,
        "optim.warmup": 0.01,
        "method.tau": 0.9995,
    },
}
