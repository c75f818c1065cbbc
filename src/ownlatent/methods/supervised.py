"""Ordinary training with labels (the baseline, no paper of its own)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.backbones import Backbone
from ownlatent.errors import OwnlatentError
from ownlatent.losses import widened
from ownlatent.methods._base import Method
from ownlatent.types import Output, Views


class Supervised(Method):
    """Tell the class of the image: the baseline that everyone must have.

    Idea: The same backbone in the same time, but told the class of every training image. A linear layer on the features
    gives the classes; it is thrown away like a projector. What learning without labels is worth shows only beside this.

    Equation: loss = mean over images and views of -sum_c y_c log softmax(W f(view) + b)_c, with the label smoothed:
    y = (1 - s) onehot + s / C.

    Needs: batch any; memory one network; negatives none; momentum no; predictor no; labels for all training images.

    Pick it: as a baseline, or when every image has a label.

    Goes wrong: on few labels it learns them by heart: the loss falls to its least value, k-NN on new images stays low.

    classes: how many there are; taken from the data on the command line. smoothing: s, 0.1. hidden: width of a hidden
    layer before the classes, with ReLU; 0 for none.
    """

    min_views, max_views = 1, None
    least_std = 0.0  # labels keep the features apart
    uses_labels = True

    def __init__(self, backbone: Backbone, *, classes: int = 0, smoothing: float = 0.1, hidden: int = 0):
        super().__init__()
        if classes < 2:
            raise OwnlatentError(f"supervised needs at least two classes, not {classes}: give their number")
        if not 0 <= smoothing < 1:
            raise OwnlatentError(f"smoothing must be at least 0 and below 1, not {smoothing}")
        self.backbone = backbone
        if hidden < 0:
            raise OwnlatentError(f"hidden must be at least 0, not {hidden}")
        layer = nn.Linear(hidden or backbone.num_features, classes)
        first = (nn.Linear(backbone.num_features, hidden), nn.ReLU()) if hidden else ()
        self.classifier = nn.Sequential(*first, layer) if hidden else layer
        self.smoothing = smoothing

    def forward(self, views: Views, labels: Tensor | None = None) -> Output:
        self.check_views(len(views))
        if labels is None:
            raise OwnlatentError("supervised needs the labels of the images: method(views, labels)")
        features = [self.backbone(view) for view in views]
        logits = widened(torch.cat([self.classifier(f) for f in features]))
        labels = labels.repeat(len(views))
        loss = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        return Output(loss, features[0].detach(), {"accuracy": (logits.argmax(1) == labels).float().mean()})


RECIPES = {
    "default": {"views": "supervised", "optim.name": "sgd", "optim.base_lr": 0.2, "optim.weight_decay": 5e-4},
    "imagenet": {
        "about": "after BYOL's baseline of 200 epochs (76.4 %, with Nesterov momentum); rate and batch are ours",
        "views": "supervised",
        "backbone": "resnet50",
        "image_size": 224,
        "batch_size": 4096,
        "epochs": 200,
        "optim.name": "sgd",
        "optim.base_lr": 0.1,
        "optim.weight_decay": 1e-4,
        "optim.warmup": 0.025,
    },
}
