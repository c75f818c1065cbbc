"""Exploring Simple Siamese Representation Learning (SimSiam; Chen and He 2020, arXiv 2011.10566)."""

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import in_float32, unit
from ownlatent.methods._base import Method, Suspect
from ownlatent.nn.mlp import mlp
from ownlatent.nn.norm import norm as norm_layer
from ownlatent.optim.groups import split_decay
from ownlatent.types import Output, Views


class SimSiam(Method):
    """Predict one view's projection from the other's, without a target network.

    Idea: One network sees both views; a small predictor turns the projection of one into that of the other. The
    gradient is stopped on the side that is predicted, and that alone keeps the constant solution away. It
    is BYOL without the moving average, and the smallest of these methods.

    Equation: loss = -(cos(h(z1), stop(z2)) + cos(h(z2), stop(z1))) / 2, in [-1, 1] (eq. 4); z = g(f(view)).

    Needs: batch 64 to 2048, best at 256 to 512; memory one network; negatives none; momentum no; predictor yes.

    Pick it: when memory is short or the code must be small; BYOL is a little better at the same time.

    Goes wrong: without the stopped gradient or the predictor the embeddings become one point: the loss falls to -1
    within an epoch and `std` to 0. Without BatchNorm in the heads it does not collapse, but learns half as much. A
    predictor whose rate falls with the others' costs half a point.

    hidden, projection: widths of the projector, of projector_layers layers (3; 2 for CIFAR-10). bottleneck: width of
    the predictor's hidden layer, a quarter of the projection. constant_predictor_lr: the predictor's learning rate
    does not follow the schedule. stop_gradient: false lets the gradient through on both sides, which collapses.
    norm: what normalises in the heads, "batch", "group", "layer" or "none".
    """

    most_uniformity = -0.8  # the BatchNorm that ends the projector keeps the std up while most images draw together

    def __init__(
        self,
        backbone: Backbone,
        *,
        hidden: int = 2048,
        projection: int = 2048,
        bottleneck: int = 512,
        projector_layers: int = 3,
        constant_predictor_lr: bool = True,
        stop_gradient: bool = True,
        norm: str = "batch",
    ):
        super().__init__()
        if projector_layers < 1:
            raise OwnlatentError(f"the projector has at least 1 layer, not {projector_layers}")
        self.backbone = backbone
        # The released code gives the last layer a bias that it freezes: before a BatchNorm it has no effect.
        self.projector = nn.Sequential(
            mlp(backbone.num_features, *[hidden] * (projector_layers - 1), projection, kind=norm, bias=False),
            norm_layer(norm, projection, affine=False),
        )
        self.predictor = mlp(projection, bottleneck, projection, kind=norm, bias=False, last_bias=True)
        self.constant_predictor_lr, self.stop_gradient = constant_predictor_lr, stop_gradient

    def forward(self, views: Views) -> Output:
        view1, view2 = self.pair(views)
        z1, z2 = self.projector(self.backbone(view1)), self.projector(self.backbone(view2))
        p1, p2 = self.predictor(z1), self.predictor(z2)
        target1, target2 = (z1.detach(), z2.detach()) if self.stop_gradient else (z1, z2)
        loss = -(cosine_similarity(p1, target2) + cosine_similarity(p2, target1)) / 2
        return Output(loss, z1.detach())

    @classmethod
    def suspects(cls, settings: dict[str, Any]) -> Iterator[Suspect]:
        if not settings["stop_gradient"]:
            why = "the gradient is not stopped on the side that is predicted (SimSiam, section 4.1: 0.1 %)"
            yield Suspect("stop_gradient", why, "leave out --method.stop-gradient")
        if settings["norm"] == "none":
            why = "nothing normalises in the heads (SimSiam, table 3: 34.6 % instead of 67.4)"
            yield Suspect("norm", why, "give --method.norm batch")

    def param_groups(self) -> list[dict]:
        online = split_decay(self.backbone, self.projector)
        return [*online, *split_decay(self.predictor, constant_lr=self.constant_predictor_lr)]


@in_float32
def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the batch of the cosine of the angles between rows (B, D), in [-1, 1]."""
    return (unit(a) * unit(b)).sum(1).mean()


RECIPES = {
    "default": {"views": "simsiam", "optim.name": "sgd", "optim.base_lr": 0.12, "optim.weight_decay": 5e-4},
    "small": {"views": "simsiam_small"},
    "processor": {"method.hidden": 512, "method.projection": 512, "method.bottleneck": 128},
    "imagenet": {
        "about": "100 epochs, 68.1 % linear",
        "views": "simsiam",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 512,
        "epochs": 100,
        "optim.name": "sgd",
        "optim.base_lr": 0.05,
        "optim.weight_decay": 1e-4,
        "optim.decay_all": True,
        "optim.warmup": 0.0,
    },
    "cifar10": {
        "about": "ResNet-18, 800 epochs, 91.8 % linear",
        "views": "simsiam_small",
        "backbone": "resnet18",
        "image_size": 32,
        "batch_size": 512,
        "epochs": 800,
        "optim.name": "sgd",
        "optim.base_lr": 0.03,
        "optim.weight_decay": 5e-4,
        "optim.decay_all": True,
        "optim.warmup": 0.0,
        "method.projector_layers": 2,
    },
}
