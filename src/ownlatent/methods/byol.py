"""Bootstrap Your Own Latent (Grill et al. 2020, arXiv 2006.07733)."""

import torch.nn.functional as F
from torch import Tensor

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.methods._base import Method
from ownlatent.nn.ema import EMA
from ownlatent.nn.mlp import MLP
from ownlatent.optim.schedules import cosine
from ownlatent.types import Output, Views


class BYOL(Method):
    """Predict the target network's projection of one view from the online projection of the other.

    Idea: an online network (backbone, projector, predictor) learns to predict what a target network
    (backbone, projector) makes of another view of the same image. The target receives no gradient:
    it is a moving average of the online network. No negatives are needed; the predictor and the
    slow target keep the constant solution away.

    Equation: loss = l(q(z1), z2') + l(q(z2), z1') with l = 2 - 2 cos (eq. 2, symmetrised by a sum,
    so in [0, 8]); tau = 1 - (1 - tau_base) (cos(pi progress) + 1) / 2, applied after the optimiser
    step (section 3.2).

    hidden, projection: widths of both heads. tau: tau_base, from 0 (the target is the online
    network, at every step: the ablation without a schedule) to 1 (it never moves).
    """

    min_batch = 2  # the heads' BatchNorm has no statistics of one image

    def __init__(self, backbone: Backbone, *, hidden: int = 4096, projection: int = 256, tau: float = 0.996):
        super().__init__()
        if not 0 <= tau <= 1:
            raise OwnlatentError(f"tau must lie in [0, 1], not {tau}: 0.99 for short runs, 0.996 for long ones")
        if hidden < 1 or projection < 1:
            raise OwnlatentError("hidden and projection are widths and must be at least 1")
        self.backbone = backbone
        self.projector = MLP(backbone.num_features, hidden, projection)
        self.predictor = MLP(projection, hidden, projection)
        self.target = EMA(self.backbone, self.projector)
        self.tau = tau

    def forward(self, views: Views) -> Output:
        view1, view2 = views
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        target1, target2 = self.target(view1), self.target(view2)
        loss = regression_loss(self.predictor(z1), target2) + regression_loss(self.predictor(z2), target1)
        return Output(loss, z1.detach())

    def after_step(self, progress: float) -> None:
        self.target.update(self.backbone, self.projector, tau=self.scheduled(progress)["tau"])

    def scheduled(self, progress: float) -> dict[str, float]:
        return {"tau": cosine(progress, self.tau, 1.0) if self.tau > 0 else 0.0}


def regression_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean over the batch of the squared distance of unit vectors, 2 - 2 cos, in [0, 4] (BYOL, eq. 2).

    prediction, target: (B, D) of any scale, compared in float32; no gradient reaches the target.
    """
    p = F.normalize(prediction.float(), dim=1, eps=1e-6)
    t = F.normalize(target.detach().float(), dim=1, eps=1e-6)
    return 2 - 2 * (p * t).sum(1).mean()  # not a matrix product, which autocast would round
