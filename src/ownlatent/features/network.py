"""The encoder as features are taken from it: which one it is, where it runs, what is kept of what it gives."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.cache import weights_fingerprint
from ownlatent.evaluation.layer import LayerOf

DTYPES = ("float32", "float16")


def fingerprint(encoder: Encoder) -> str:
    """Sixteen hexadecimal digits that change with whatever changes the features of an image."""
    spec = encoder.backbone.spec
    # Of a module of one's own the weights do not tell a stride or a pooling.
    network = repr(encoder.backbone.net) if spec is None else sorted(map(str, spec.items()))
    tap = replace(encoder.backbone.tap, adapter=None)
    return weights_fingerprint(encoder, network, tap, encoder.image_size, encoder.peak)


def name_of(encoder: Encoder) -> str:
    """What a person would call its network."""
    spec = encoder.backbone.spec
    return str(spec["name"]) if spec else type(encoder.backbone.net).__name__


@contextmanager
def placed(encoder: Encoder, layer: str | None, device: torch.device) -> Iterator[nn.Module]:
    """The encoder, or one of its layers, on a device for a while. Raises OwnlatentError for an unknown layer."""
    network = encoder if layer is None else LayerOf(encoder, layer)
    home = encoder.mean.device
    try:
        # Encoders bring their images into this order; weights in another would be turned around for every batch.
        yield network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    finally:
        encoder.to(home)


def as_stored(features: Tensor, normalise: bool, dtype: str) -> np.ndarray:
    """Features (B, D) as they go into a file. Raises OwnlatentError if they are no numbers there."""
    kept = F.normalize(features, dim=1) if normalise else features
    with np.errstate(over="ignore"):
        array = kept.numpy().astype(dtype, copy=False)
    if not np.isfinite(array).all():
        if torch.isfinite(kept).all():
            most = kept.abs().max().item()
            raise OwnlatentError(
                f"features of {most:.4g} are more than float16 holds: leave out --dtype, or --normalise"
            )
        raise OwnlatentError("the encoder gives features that are no numbers: give one whose training did not diverge")
    return array
