"""What there is to choose from, and what this installation can do."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.sound.spectrum import MELS
from ownlatent.train.recipe import Recipe, coerce, edit
from ownlatent.types import Size

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.checks.finding import Finding


def doctor() -> "Iterator[Finding]":
    """What this installation can do and what is missing, one Finding after the other."""
    from ownlatent.checks.doctor import examine

    return examine()


def catalogue(what: str, width: int = 100) -> list[str]:
    """Lines about the methods, their recipes or the tables of views: what `ownlatent list` prints."""
    from ownlatent.reporting.catalogue import catalogue as lines

    return lines(what, width)


def layers(
    model: "str | Path | nn.Module", *, image_size: int = 224, channels: int = 3, depth: int = 2, **settings: Any
) -> list[str]:
    """The layers of a network as lines of a tree: the name that --layer takes, the kind, what it gives, its parameters.

    model: as `pretrain` takes a backbone, or a run folder, whose own image size and channels then count. settings: of
    the network, as "backbone.depth". Raises OwnlatentError if there is no such network.
    """
    image_size, channels = coerce(image_size, int, "image_size"), coerce(channels, int, "channels")
    depth = coerce(depth, int, "depth")
    for name, value in (("image-size", image_size), ("channels", channels), ("depth", depth)):
        if value < 1:
            raise OwnlatentError(f"--{name} must be at least 1, not {value}")
    from ownlatent import backbones
    from ownlatent.backbones.byol_a import NETWORKS as OF_SOUNDS
    from ownlatent.backbones.tree import tree
    from ownlatent.export.encoder import load_encoder

    if isinstance(model, (str, Path)) and Path(model).is_dir():
        encoder = load_encoder(model)
        return tree(encoder.backbone.net, encoder.mean.numel(), encoder.image_size, depth)
    keywords = backbones.checked_settings(edit(Recipe(), settings).backbone_settings)
    if isinstance(model, str) and not backbones.is_file(model):
        size: Size = image_size
        if model in OF_SOUNDS:
            if (image_size, channels) != (224, 3):
                raise OwnlatentError(f"{model} is for spectrograms of one size: leave out --image-size and --channels")
            size, channels = (MELS, 96), 1
        net = backbones.create(model, channels=channels, image_size=size, **keywords).net
        return tree(net, channels, size, depth)
    own = backbones.own_network(str(model) if isinstance(model, Path) else model)
    return tree(own(channels, image_size, **keywords), channels, image_size, depth, own.adapter)
