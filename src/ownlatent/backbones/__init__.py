"""Backbones: any network that turns images (B, C, H, W) into features (B, D)."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ownlatent.backbones.libraries import REFUSALS, build, first_line, library_of, names, pretrained_input
from ownlatent.backbones.own import OwnNetwork, is_file, own_network
from ownlatent.backbones.stem import fit_stem
from ownlatent.backbones.tap import Adapter, Tap, find, measured
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.nn.norm import without_batchnorm
from ownlatent.types import Size, in_words

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "Backbone",
    "OwnNetwork",
    "check_name",
    "checked_settings",
    "create",
    "is_file",
    "names",
    "own_network",
    "pretrained_input",
]

NORMS = ("batch", "group")


class Backbone(nn.Module):
    """A network one of whose outputs is pooled to (B, num_features), with what is needed to build it again.

    spec: how `create` was called ({"name", "channels", "image_size", "keywords"}), or None for a
    module of the user's own. changes: what was adapted to the images, in words. tap: which output,
    and how it is pooled. settings: the keywords that made a network of the user's own.
    """

    def __init__(
        self,
        net: nn.Module,
        num_features: int,
        spec: "Mapping[str, Any] | None" = None,
        changes: tuple[str, ...] = (),
        tap: Tap | None = None,
        settings: "Mapping[str, Any] | None" = None,
    ):
        super().__init__()
        self.net = net
        self.num_features = num_features
        self.spec = spec
        self.changes = changes
        self.tap = tap or Tap()
        self.settings = dict(settings or {})

    def forward(self, x: Tensor) -> Tensor:
        return self.tap(self.net, x)

    @property
    def layer(self) -> str:
        """The inner layer that gives the features, as `create` takes it; "" if that is the network's own output."""
        return self.tap.name


def create(
    network: str | nn.Module | OwnNetwork,
    *,
    layer: "str | int | Adapter | None" = None,
    pool: str = "mean",
    adapter: Adapter | None = None,
    channels: int = 3,
    image_size: Size = 224,
    pretrained: bool = False,
    norm: str = "batch",
    **keywords: Any,
) -> Backbone:
    """A backbone from a name or a module, with a stem that fits `image_size` pixels and `channels`.

    network: one of this package's small networks; any timm or torchvision classification model
    (`timm:` or `torchvision:` before the name chooses where both have it; timm comes first); `hf:` and a name of the
    Hugging Face hub or a folder with a config.json; or a module, which is wrapped as it is. keywords go to the
    model's own constructor. layer: what gives the features, by name, as "layer3" or "encoder.stages.2", by number, as
    -2, or a function of the network and images; None is the network's own output. In brackets behind a name stands
    which part of a dictionary or a tuple, as in "backbone[out]". pool: "mean" or "class", of tokens (B, T, D). adapter:
    called with the network and the images in the place of the network's own forward. pretrained loads the library's
    weights, which may need a network connection. norm: "batch" leaves the network's own normalisation, "group" puts
    GroupNorm with weight standardisation in the place of every BatchNorm.

    Raises OwnlatentError for an unknown name or layer, with the nearest ones, or for a network that does not
    take such images.
    """
    if norm not in NORMS:
        raise OwnlatentError(f"there is no norm {norm!r} for a backbone: {nearest(norm, NORMS)}")
    if not isinstance(network, str):
        own = own_network(network, adapter, in_place=True)
        if norm == "group":
            raise OwnlatentError(
                "norm changes networks that are built by name: give a module of your own with the norms that it should "
                "have, for example by ownlatent.nn.norm.without_batchnorm(module)"
            )
        net = own(channels, image_size, **keywords)
        tap, width = measure(net, find(net, layer, pool, own.adapter), channels, image_size)
        return Backbone(net, width, tap=tap, settings=keywords)
    # Not every stem can be changed: some have branches that must go on fitting each other, or another way to the image.
    ways: list[Callable[..., list[str]]] = [fit_stem, partial(fit_stem, smaller=False), lambda *_: []]
    for adapt in ways:
        net = build(network, channels, image_size, pretrained, keywords)
        changes = adapt(net, image_size, channels)
        replaced = without_batchnorm(net) if norm == "group" else 0
        tap = find(net, layer, pool, adapter)
        try:
            tap, width = measure(net, tap, channels, image_size)
            break
        except OwnlatentError:
            if not changes:
                raise
    if library_of(network) == "hf":
        keywords = {"config": net.config.to_dict()}  # type: ignore[operator, union-attr]
    if norm == "group":
        if not replaced:
            raise OwnlatentError(f"{network} has no BatchNorm that could be replaced: leave out --backbone.norm")
        changes.append(f"GroupNorm with standardised weights in place of {replaced} BatchNorm layers")
        keywords = {**keywords, "norm": norm}
    spec = {"name": network, "channels": channels, "image_size": image_size, "keywords": keywords}
    return Backbone(net, width, spec, tuple(changes), tap)


def synchronize_batchnorm(net: nn.Module) -> None:
    """Put BatchNorm over the images of all processes in the place of every BatchNorm within; for CUDA only."""
    from timm.layers import convert_sync_batchnorm  # torch's own drops the activation that timm's layers hold

    convert_sync_batchnorm(net)


def checked_settings(keywords: "Mapping[str, Any]") -> dict[str, Any]:
    """Keywords for `create` that do not collide with its own. Raises OwnlatentError."""
    own = ("network", "layer", "pool", "channels", "image_size", "pretrained", "num_classes", "in_chans", "weights")
    for name in own:
        if name in keywords:
            raise OwnlatentError(
                f"--backbone.{name.replace('_', '-')} cannot be set: it follows the images and the recipe"
            )
    return dict(keywords)


def check_name(name: str) -> None:
    """Raise OwnlatentError, with the nearest names, if `create` knows no such network."""
    library_of(name)


def measure(net: nn.Module, tap: Tap, channels: int, image_size: Size) -> tuple[Tap, int]:
    """As `tap.measured`. Raises OwnlatentError also if the network does not take images of this kind."""
    try:
        return measured(tap, net, channels, image_size)
    except REFUSALS as error:
        raise OwnlatentError(
            f"the backbone does not take {channels} channels of {in_words(image_size)} ({first_line(error)}): "
            "choose another --image-size or --backbone"
        ) from error
