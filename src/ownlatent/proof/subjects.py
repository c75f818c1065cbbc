"""Who is compared: the trained encoder, the same one untrained, its plain input, and whatever else the user names."""

import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex
from typing import Any

import torch
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.backbones import OwnNetwork
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.weights import load_weights, read_weights
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.baselines import Bands, Pixels, calibrate_batchnorm
from ownlatent.evaluation.cache import weights_fingerprint
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.knn import knn_accuracy
from ownlatent.evaluation.layer import LayerOf
from ownlatent.export.encoder import load_encoder
from ownlatent.types import Size

log = logging.getLogger("ownlatent")
OURS = ("trained", "random", "pixels", "bands", "supervised")
"""The names of those that are always compared."""


@dataclass
class Subject:
    """Something that turns images into features.

    name: "trained", "random", "pixels", of sounds "bands", or as the user wrote it. variant: which form of it, in
    words. network: images (B, channels, image_size, image_size) to (B, D). shift: subtracted from the features.
    """

    name: str
    variant: str
    network: nn.Module
    channels: int
    image_size: Size
    weights: str
    shift: Tensor | None = None

    @property
    def encoder(self) -> Encoder | None:
        """What can be trained further, which pixels cannot."""
        return self.network if isinstance(self.network, Encoder) else getattr(self.network, "encoder", None)

    def scale_of(self, dtype: torch.dtype) -> float:
        """The value of the images that counts as 1."""
        assert isinstance(self.network, (Encoder, LayerOf, Pixels, Bands))
        return self.network.scale_of(dtype)


def of_encoder(name: str, variant: str, encoder: Encoder, layer: str | None = None) -> Subject:
    """A subject of an encoder, or of one of its layers."""
    network, tap = encoder if layer is None else LayerOf(encoder, layer), encoder.backbone.tap
    facts = (encoder.image_size, encoder.mean.flatten().tolist(), encoder.std.flatten().tolist(), encoder.peak)
    description = (
        json.dumps(encoder.backbone.spec, default=str, sort_keys=True),
        repr(encoder.backbone.net),  # of a module of one's own: the weights do not tell a stride or a pooling
        repr(replace(tap, adapter=None)),
        # What a function does nobody can tell: its features are not found again.
        *([token_hex()] if tap.adapter is not None else []),
    )
    weights = weights_fingerprint(encoder.backbone.net, description, facts)
    return Subject(name, variant, network, encoder.mean.numel(), encoder.image_size, weights)


def untrained(trained: Encoder, seed: int, network: OwnNetwork | None = None) -> Encoder:
    """The same encoder as it was before training, its weights drawn again from the seed.

    network: where the run trained one of the user's own. Raises OwnlatentError if that is missing or holds the trained
    weights.
    """
    spec, size = trained.backbone.spec, trained.image_size
    if spec is None and network is None:
        raise OwnlatentError(
            "the run trained a network of your own: give --network FILE.py:NAME, or pass a fresh module, "
            "evaluate(run, network=module)"
        )
    tap = trained.backbone.tap
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        source = network if spec is None else spec["name"]
        settings = trained.backbone.settings if spec is None else spec["keywords"]
        assert source is not None
        backbone = backbones.create(
            source,
            channels=trained.mean.numel(),
            image_size=size,
            layer=tap.name or None,
            pool=tap.pool,
            **({} if spec is None and not source.settings else settings),
        )
    made = Encoder(backbone, size, trained.mean.flatten().tolist(), trained.std.flatten().tolist(), trained.peak)
    if of_encoder("", "", made).weights == of_encoder("", "", trained).weights:
        raise OwnlatentError("the fresh module has the trained weights: pass one that was not trained")
    return made


def random_subject(encoder: Encoder, images: Tensor, labels: Tensor, layer: str | None, device: Any) -> Subject:
    """An untrained encoder with its BatchNorm statistics as they are or calibrated, whichever is better.

    images, labels: some training images, on which that is decided (k-NN, each by the others).
    """
    plain = of_encoder("random", "initial BatchNorm statistics", encoder, layer)
    encoder.to(device)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    first = knn_accuracy(embed(plain.network, images, device=device), labels)
    if not calibrate_batchnorm(encoder, images):
        plain.variant = "as drawn"
        return plain
    calibrated = of_encoder("random", "BatchNorm calibrated on training images", encoder, layer)
    if knn_accuracy(embed(calibrated.network, images, device=device), labels) > first:
        return calibrated
    encoder.load_state_dict(before)
    return plain


def input_subject(trained: Encoder, images: Tensor, labels: Tensor) -> Subject:
    """What the encoder is given, without one: pixels, or mean and deviation of the bands of sounds.

    As they are or with the mean image subtracted, whichever is better; decided as above.
    """
    sounds = trained.modality == "audio"
    network = Bands(trained.full_scale) if sounds else Pixels(trained.full_scale)
    name = "bands" if sounds else "pixels"
    size, channels = trained.image_size, trained.mean.numel()
    features = embed(network, images)
    centre = features.mean(0)
    best = knn_accuracy(features - centre, labels) > knn_accuracy(features, labels)
    variant = f"mean {'sound' if sounds else 'image'} subtracted" if best else "as they are"
    weights = weights_fingerprint(network, name, size, channels, trained.full_scale)
    return Subject(name, variant, network, channels, size, weights, centre if best else None)


def named_subject(name: str, trained: Encoder, layer: str | None) -> Subject:
    """An encoder as `--against` names it. Raises OwnlatentError.

    NAME: a timm or torchvision network with its library's weights; random:NAME: untrained; NAME=FILE: with the
    weights of a file; a run folder.
    """
    if name in OURS:
        raise OwnlatentError(
            f"--against {name} has the name of a baseline: write a run folder of that name as ./{name}"
        )
    if Path(name).is_dir():
        return of_encoder(name, "another run", load_encoder(name), layer)
    plain, equals, file = name.partition("=")
    drawn = plain.startswith("random:")
    plain = plain.removeprefix("random:")
    channels = trained.mean.numel()
    backbones.check_name(plain)
    size, mean, std = trained.image_size, trained.mean.flatten().tolist(), trained.std.flatten().tolist()
    pretrained = not drawn and not equals
    if pretrained or equals:
        size, mean, std = backbones.pretrained_input(plain) or (size, list(IMAGENET_MEAN), list(IMAGENET_STD))
        channels = 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = backbones.create(plain, channels=channels, image_size=size, pretrained=pretrained)
    variant = "its library's weights" if pretrained else "random weights" if drawn else "weights of a file"
    if equals:
        log.info("%-10s %s: %s", "weights", file, load_weights(backbone.net, read_weights(file), file))
    return of_encoder(name, variant, Encoder(backbone, size, mean, std, trained.peak).eval(), layer)
