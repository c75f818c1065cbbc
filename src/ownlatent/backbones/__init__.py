"""Backbones: any network that turns images (B, C, H, W) into features (B, D)."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ownlatent.backbones.mode import evaluating
from ownlatent.backbones.small import NETWORKS
from ownlatent.backbones.stem import fit_stem, pooled
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.nn.norm import without_batchnorm

if TYPE_CHECKING:
    from collections.abc import Mapping


NORMS = ("batch", "group")

# What networks raise when their settings or the images' shape do not suit them.
_REFUSALS = (TypeError, ValueError, AssertionError, RuntimeError, AttributeError, KeyError, IndexError)


class Backbone(nn.Module):
    """A network whose output is pooled to (B, num_features), with what is needed to build it again.

    spec: how `create` was called ({"name", "channels", "image_size", "keywords"}), or None for a
    module of the user's own. changes: what was adapted to the images, in words.
    """

    def __init__(
        self,
        net: nn.Module,
        num_features: int,
        spec: "Mapping[str, Any] | None" = None,
        changes: tuple[str, ...] = (),
    ):
        super().__init__()
        self.net = net
        self.num_features = num_features
        self.spec = spec
        self.changes = changes

    def forward(self, x: Tensor) -> Tensor:
        return pooled(self.net(x))


def create(
    network: str | nn.Module,
    *,
    channels: int = 3,
    image_size: int = 224,
    pretrained: bool = False,
    norm: str = "batch",
    **keywords: Any,
) -> Backbone:
    """A backbone from a name or a module, with a stem that fits `image_size` pixels and `channels`.

    network: one of this package's small networks, any timm or torchvision classification model
    (`timm:` or `torchvision:` before the name chooses where both have it; timm comes first), or a
    module, which is wrapped as it is. keywords go to the model's own constructor. pretrained loads
    the library's weights, which may need a network connection. norm: "batch" leaves the network's own
    normalisation, "group" puts GroupNorm with weight standardisation in the place of every BatchNorm.

    Raises OwnlatentError for an unknown name, with the nearest ones, or for a network that does not
    take such images.
    """
    if norm not in NORMS:
        raise OwnlatentError(f"there is no norm {norm!r} for a backbone: {nearest(norm, NORMS)}")
    if isinstance(network, nn.Module):
        if norm == "group":
            raise OwnlatentError(
                "norm changes networks that are built by name: give a module of your own with the norms that it should "
                "have, for example by ownlatent.nn.norm.without_batchnorm(module)"
            )
        return Backbone(network, measure(network, channels, image_size))
    net = _build(network, channels, image_size, pretrained, keywords)
    changes = fit_stem(net, image_size, channels)
    if norm == "group":
        replaced = without_batchnorm(net)
        if not replaced:
            raise OwnlatentError(f"{network} has no BatchNorm that could be replaced: leave out --backbone.norm")
        changes.append(f"GroupNorm with standardised weights in place of {replaced} BatchNorm layers")
        keywords = {**keywords, "norm": norm}
    spec = {"name": network, "channels": channels, "image_size": image_size, "keywords": keywords}
    return Backbone(net, measure(net, channels, image_size), spec, tuple(changes))


def synchronize_batchnorm(net: nn.Module) -> None:
    """Put BatchNorm over the images of all processes in the place of every BatchNorm within; for CUDA only."""
    from timm.layers import convert_sync_batchnorm  # torch's own drops the activation that timm's layers hold

    convert_sync_batchnorm(net)


def names() -> list[str]:
    """Every name that `create` takes."""
    return sorted({*NETWORKS, *_timm_names(), *_torchvision_names()})


def checked_settings(keywords: "Mapping[str, Any]") -> dict[str, Any]:
    """Keywords for `create` that do not collide with its own. Raises OwnlatentError."""
    for name in ("network", "channels", "image_size", "pretrained", "num_classes", "in_chans", "weights"):
        if name in keywords:
            raise OwnlatentError(
                f"--backbone.{name.replace('_', '-')} cannot be set: it follows the images and the recipe"
            )
    return dict(keywords)


def check_name(name: str) -> None:
    """Raise OwnlatentError, with the nearest names, if `create` knows no such network."""
    _library(name)


def pretrained_input(name: str) -> tuple[int, list[float], list[float]] | None:
    """Side in pixels, mean and std that the library's weights of a network expect, or None if there are none."""
    library, plain = _library(name), name.rpartition(":")[2]
    if library == "timm":
        import timm

        found = timm.get_pretrained_cfg(plain)
        return None if found is None else (found.input_size[-1], list(found.mean), list(found.std))
    if library == "torchvision":
        import torchvision

        transforms = torchvision.models.get_model_weights(plain).DEFAULT.transforms()  # type: ignore[attr-defined]
        return transforms.crop_size[0], list(transforms.mean), list(transforms.std)
    return None


def _library(name: str) -> str:
    """Which of "ownlatent", "timm" and "torchvision" has a network of this name. Raises OwnlatentError."""
    prefix, _, plain = name.rpartition(":")
    if name in NETWORKS:
        return "ownlatent"
    if prefix in ("", "timm") and plain.partition(".")[0] in _timm_names():  # behind a dot: which of its weights
        return "timm"
    if prefix in ("", "torchvision") and plain in _torchvision_names():
        return "torchvision"
    known = {"timm": _timm_names, "torchvision": _torchvision_names}.get(prefix, names)()
    raise OwnlatentError(f"there is no backbone {name!r}: {nearest(plain, known)}")


def _build(name: str, channels: int, image_size: int, pretrained: bool, keywords: dict[str, Any]) -> nn.Module:
    library, plain = _library(name), name.rpartition(":")[2]
    if library == "ownlatent":
        if keywords or pretrained:
            raise OwnlatentError(f"the backbone {name} takes no settings and has no pretrained weights: leave them out")
        return NETWORKS[name](channels)
    build = _build_timm if library == "timm" else _build_torchvision
    try:
        return build(plain, image_size, pretrained, keywords)
    except Exception as error:
        if pretrained:  # fetching raises what the hub's and the system's libraries like
            raise OwnlatentError(
                f"the weights of {name} cannot be had ({_first_line(error)}): they may need a network "
                f"connection; weights that are a file are {name}=FILE"
            ) from error
        if not isinstance(error, _REFUSALS):
            raise
        raise OwnlatentError(f"the backbone {name} refused its settings ({_first_line(error)}): change them") from error


def _timm_names() -> list[str]:
    import timm

    return timm.list_models()


def _torchvision_names() -> list[str]:
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def _build_timm(name: str, image_size: int, pretrained: bool, keywords: dict[str, Any]) -> nn.Module:
    import timm

    # Only networks with position embeddings take an image size, and of these not all take others than that.
    fixed = {"img_size": image_size}
    dynamic = {**fixed, "dynamic_img_size": True}  # for crops of other sizes
    for sizes in ({**dynamic, "dynamic_img_pad": True}, dynamic, fixed, {}):
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **{**sizes, **keywords})
        except TypeError:
            if not sizes:
                raise
    raise AssertionError


def _build_torchvision(name: str, image_size: int, pretrained: bool, keywords: dict[str, Any]) -> nn.Module:
    import torchvision

    if name.startswith("vit_"):
        keywords = {"image_size": image_size, **keywords}

    if name in ("googlenet", "inception_v3"):  # their auxiliary heads would come along in training
        keywords = {"aux_logits": False, "init_weights": True, **keywords}
    net = torchvision.models.get_model(name, weights="DEFAULT" if pretrained else None, **keywords)
    if name.startswith(("alexnet", "squeezenet", "vgg")):
        return net.features  # what follows belongs to the classifier, also its pooling
    for head in ("fc", "classifier", "heads", "head"):
        if hasattr(net, head):
            setattr(net, head, nn.Identity())
    return net


@torch.no_grad()
def measure(net: nn.Module, channels: int, image_size: int) -> int:
    """Width of the pooled output, on zeros and in evaluation mode, so that no statistic moves.

    Raises OwnlatentError if the network does not take images of this kind.
    """
    device = next((p.device for p in net.parameters()), torch.device("cpu"))
    try:
        with evaluating(net):
            return pooled(net(torch.zeros(2, channels, image_size, image_size, device=device))).shape[1]
    except _REFUSALS as error:
        raise OwnlatentError(
            f"the backbone does not take {channels} channels of {image_size}x{image_size} px ({_first_line(error)}): "
            "choose another --image-size or --backbone"
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
