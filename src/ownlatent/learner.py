"""A method around any network, for a training loop of one's own: a batch of images in, the loss out.

>>> import torch, torchvision
>>> net = torchvision.models.resnet18()
>>> learner = BYOL(net, layer="avgpool", image_size=32)
>>> optimizer = torch.optim.Adam(learner.parameters(), lr=3e-4)
>>> images = torch.rand(4, 3, 32, 32)                # (B, C, H, W) in [0, 1], or uint8
>>> for step in range(2):
...     optimizer.zero_grad()
...     loss = learner(images)                       # views are made inside
...     loss.backward()
...     optimizer.step()
...     learner.after_step()                         # moves the target network
>>> learner.encoder(images).shape
torch.Size([4, 512])
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.augment.channels import suited_to
from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.sound_views import make_views
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.stem import SMALL_IMAGE
from ownlatent.backbones.tap import Adapter
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.types import Output, Views


class Learner(nn.Module):
    """Called with images (B, C, H, W) it makes views of them and gives the loss, a scalar with a gradient.

    network: a module, or a name as `backbones.create` takes it. layer, pool, adapter: what of it gives the features, as
    there. in_place: the module itself is trained; without it a copy is, which is `net`. image_size: side of the views.
    views: a table by its name or a list of View; the method's own by default. mean, std: per channel, of images in
    [0, 1]; ImageNet's by default. steps: how many there will be, so that schedules such as tau's follow; without it
    they stay at their beginning. settings: the method's, by name.

    Raises OwnlatentError for anything that does not fit.
    """

    method_name: ClassVar[str] = "byol"
    step: Tensor

    def __init__(
        self,
        network: "str | nn.Module | backbones.OwnNetwork",
        *,
        layer: str | int | Adapter | None = None,
        image_size: int = 224,
        channels: int = 3,
        pool: str = "mean",
        adapter: Adapter | None = None,
        in_place: bool = False,
        views: str | Sequence[View] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        steps: int | None = None,
        **settings: Any,
    ):
        super().__init__()
        usual = methods.usual(
            self.method_name, small=image_size <= SMALL_IMAGE, processor=False, short=False, long=False
        )
        usual_settings = {
            name.removeprefix("method."): value for name, value in usual.items() if name.startswith("method.")
        }
        if not isinstance(network, str) or backbones.is_file(network):
            network = backbones.own_network(network, in_place=in_place)
        backbone = backbones.create(
            network,
            layer=layer,
            pool=pool,
            adapter=adapter,
            channels=channels,
            image_size=image_size,
        )
        self.method = methods.create(self.method_name, backbone, **{**usual_settings, **settings})
        if self.method.uses_labels:
            raise OwnlatentError(f"{self.method_name} learns from labels, and a learner is given images alone")
        table = _table(views or usual.get("views", "byol"))
        self.method.check_views(len(table))
        gray = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
        usual_mean, usual_std = (
            (IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else tuple((value,) * channels for value in gray)
        )
        self.mean, self.std = tuple(mean or usual_mean), tuple(std or usual_std)
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != channels:
                raise OwnlatentError(f"{name} has {len(values)} values for images of {channels} channels: give as many")
        self.views, _ = suited_to(table, channels)
        for size in {view.pixels(image_size) for view in self.views} - {image_size}:
            backbones.measure(backbone.net, backbone.tap, channels, size)  # small crops beside the large ones
        self.image_size, self.channels, self.steps = image_size, channels, steps
        self.output: Output | None = None
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        if not in_place and all(p.ndim < 5 for p in self.parameters()):
            self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # the order of the views

    @property
    def net(self) -> nn.Module:
        """The network that is trained: the module itself with in_place, else the copy of it."""
        return self.method.result.net

    @property
    def encoder(self) -> Encoder:
        """The network as it is now, as an Encoder: images in, features (B, D) out. A copy, in evaluation mode."""
        return Encoder(deepcopy(self.method.result), self.image_size, self.mean, self.std).eval()

    @property
    def progress(self) -> float:
        """In [0, 1], where `steps` is known, and otherwise 0."""
        return 0.0 if self.steps is None else min(1.0, int(self.step) / self.steps)

    def forward(self, images: Tensor | Views) -> Tensor:
        """The loss of images (B, C, H, W), uint8, uint16 or floats in [0, 1]; or of a list of normalised views of them.

        `output` then holds the terms of the loss and the projections. Views are drawn by torch's random state.
        """
        self.output = self.method(self._views_of(images) if isinstance(images, Tensor) else list(images))
        return self.output.loss

    def param_groups(self) -> list[dict]:
        """For an optimiser that decays weights but no biases and norms; `parameters()` will do for any other."""
        return self.method.param_groups()

    def before_step(self) -> None:
        """Call between backward and the optimiser's step, where the method changes gradients, as DINO does."""
        self.method.before_step(self.progress)

    def after_step(self) -> None:
        """Call once after every step of the optimiser."""
        self.method.after_step(self.progress)
        self.step += 1

    def _views_of(self, images: Tensor) -> Views:
        if images.ndim != 4 or images.shape[1] != self.channels:
            raise OwnlatentError(
                f"a learner takes images (B, {self.channels}, H, W), not {tuple(images.shape)}: give channels= as the "
                "images have them, and the channels before the rows"
            )
        if images.is_floating_point():
            peak = 1.0
            if self.output is None and images.numel() and (images.min() < 0 or images.max() > 1):  # only once: it waits
                raise OwnlatentError(
                    "images as floats must lie in [0, 1], not yet normalised: divide them by 255, or give uint8"
                )
        elif images.dtype in (torch.uint8, torch.uint16):
            peak = 255.0 if images.dtype == torch.uint8 else 65535.0
        else:
            raise OwnlatentError(f"images are uint8, uint16 or floats in [0, 1], not {images.dtype}: convert them")
        draws = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        return make_views(self.views, self.image_size, self.mean, self.std, peak).of_images(images, draws)


def _table(views: str | Sequence[View]) -> Sequence[View]:
    if not isinstance(views, str):
        return views
    if views not in RECIPES:
        raise OwnlatentError(f"there is no table of views {views!r}: {nearest(views, RECIPES)}")
    return RECIPES[views]


class BYOL(Learner):
    """Bootstrap Your Own Latent; settings are those of `methods.byol`."""

    method_name = "byol"


class SimSiam(Learner):
    """SimSiam; settings are those of `methods.simsiam`."""

    method_name = "simsiam"


class SimCLR(Learner):
    """SimCLR; settings are those of `methods.simclr`."""

    method_name = "simclr"


class MoCoV2(Learner):
    """MoCo v2; settings are those of `methods.moco_v2`."""

    method_name = "moco_v2"


class MoCoV3(Learner):
    """MoCo v3; settings are those of `methods.moco_v3`."""

    method_name = "moco_v3"


class BarlowTwins(Learner):
    """Barlow Twins; settings are those of `methods.barlow_twins`."""

    method_name = "barlow_twins"


class VICReg(Learner):
    """VICReg; settings are those of `methods.vicreg`."""

    method_name = "vicreg"


class DirectPred(Learner):
    """DirectPred; settings are those of `methods.directpred`."""

    method_name = "directpred"


class DINO(Learner):
    """DINO; settings are those of `methods.dino`. Call `before_step` before the optimiser's step."""

    method_name = "dino"
