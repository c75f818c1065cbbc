"""BYOL as other packages document it, one optimiser step at a time, for benchmarks that compare.

lightly: the pieces and numbers of its BYOL example for PyTorch: heads of 1024 and 256, SGD with a rate of 0.06, the
target's momentum from 0.996 to 1 by a cosine, its transforms on Pillow images in loader processes (blur is left out
at 32 px, as in that example). byol-pytorch: the learner of its README with Adam at 3e-4; its augmentations are
drawn once for a whole batch. Neither is part of ownlatent; `pip install '.[bench]'` brings both.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

LIGHTLY_HIDDEN, LIGHTLY_PROJECTION, LIGHTLY_BATCH, LIGHTLY_RATE = 1024, 256, 256, 0.06
GRAY_MEAN, GRAY_STD = 0.449, 0.226  # of ImageNet's colours together, for its transforms on images without colour


class Lightly:
    """lightly's BYOL of a network on images (N, C, H, W) uint8; `steps` trains it, one step per item.

    net: (B, C, H, W) to (B, D). workers: of its loader. progress: asked at every epoch, in [0, 1].
    """

    def __init__(self, net: nn.Module, images: Tensor, size: int, batch_size: int, workers: int):
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead
        from lightly.models.utils import deactivate_requires_grad
        from lightly.transforms.byol_transform import BYOLTransform, BYOLView1Transform, BYOLView2Transform

        with torch.no_grad():
            width = deepcopy(net).eval()(torch.zeros(2, images.shape[1], size, size)).shape[1]
        self.net = net
        self.projection = BYOLProjectionHead(width, LIGHTLY_HIDDEN, LIGHTLY_PROJECTION)
        self.prediction = BYOLPredictionHead(LIGHTLY_PROJECTION, LIGHTLY_HIDDEN, LIGHTLY_PROJECTION)
        self.target_net, self.target_projection = deepcopy(net), deepcopy(self.projection)
        for module in (self.target_net, self.target_projection):
            deactivate_requires_grad(module)
        options: dict[str, Any] = {"input_size": size}
        if size <= 64:
            options["gaussian_blur"] = 0.0
        if images.shape[1] == 1:
            options["normalize"] = {"mean": [GRAY_MEAN], "std": [GRAY_STD]}
        transform = BYOLTransform(BYOLView1Transform(**options), BYOLView2Transform(**options))
        self.loader = DataLoader(
            _Pictures(images, transform), batch_size, shuffle=True, drop_last=True, num_workers=workers
        )
        self.criterion = NegativeCosineSimilarity()
        self.online = nn.ModuleList([self.net, self.projection, self.prediction])
        self.optimizer = torch.optim.SGD(self.online.parameters(), lr=LIGHTLY_RATE)

    def steps(self, progress: Callable[[], float] = lambda: 0.0) -> Iterator[None]:
        from lightly.models.utils import update_momentum
        from lightly.utils.scheduler import cosine_schedule

        while True:
            momentum = cosine_schedule(round(1000 * min(1.0, progress())), 1001, 0.996, 1)
            for x0, x1 in self.loader:
                update_momentum(self.net, self.target_net, m=momentum)
                update_momentum(self.projection, self.target_projection, m=momentum)
                p0, z0 = self._online(x0), self._target(x0)
                p1, z1 = self._online(x1), self._target(x1)
                loss = 0.5 * (self.criterion(p0, z1) + self.criterion(p1, z0))
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad()
                yield

    def _online(self, x: Tensor) -> Tensor:
        return self.prediction(self.projection(self.net(x).flatten(start_dim=1)))

    def _target(self, x: Tensor) -> Tensor:
        return self.target_projection(self.target_net(x).flatten(start_dim=1)).detach()


class _Pictures(Dataset):
    """Images in memory as Pillow pictures, as torchvision's data sets hand them out, transformed."""

    def __init__(self, images: Tensor, transform: Any):
        self.arrays, self.transform = np.ascontiguousarray(images.numpy().transpose(0, 2, 3, 1)), transform

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(Image.fromarray(self.arrays[index].squeeze()))


def byol_pytorch_steps(net: nn.Module, images: Tensor, size: int, batch_size: int) -> Iterator[None]:
    """byol-pytorch's learner around a network, on colour images (N, 3, H, W) uint8 from memory, one step per item.

    Its heads are as wide as the other's here, and without the simplicial embeddings that it adds, which BYOL has not.
    """
    from byol_pytorch import BYOL

    heads = {"projection_size": LIGHTLY_PROJECTION, "projection_hidden_size": LIGHTLY_HIDDEN}
    learner = BYOL(net, image_size=size, hidden_layer=-1, use_simplicial_embeddings=False, **heads)
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-4)

    def steps() -> Iterator[None]:
        while True:
            for rows in torch.randperm(len(images)).split(batch_size):
                if len(rows) < batch_size:
                    break
                loss = learner(images[rows].float() / 255)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                learner.update_moving_average()
                yield

    return steps()
