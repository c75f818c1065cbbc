"""What is done to an image or a sound before an encoder sees it, as plain facts that travel with its files."""

import json
import math
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.data.decode import shorter_side
from ownlatent.sound.spectrum import front_end_facts


def preprocessing(encoder: Encoder) -> dict[str, Any]:
    """The steps in their order, and their numbers: pixels, values of the file, values in [0, 1]."""
    size = encoder.image_size
    if not isinstance(size, int):
        return {
            "channels": len(encoder.mean),
            "image_size": list(size),
            "sound": front_end_facts(),
            "levels": "(ln(power in the band + e^silence) - silence) / span, at least 0 and at most 1",
            "mean": plain(encoder.mean),
            "std": plain(encoder.std),
        }
    return {
        "channels": len(encoder.mean),
        "image_size": size,
        "resize_shorter_side": shorter_side(size),
        "interpolation": "bilinear",
        "antialias": True,
        "centre_crop": size,
        "divide_by": encoder.peak if encoder.peak > 255 else 255.0,
        "mean": plain(encoder.mean),
        "std": plain(encoder.std),
    }


def as_text(facts: dict[str, Any]) -> dict[str, str]:
    """For files whose metadata are text alone: everything but text as JSON."""
    return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}


def crop_share(size: int) -> float:
    """The share of the resized image's shorter side that is kept, as timm has it.

    timm makes the shorter side floor(size / share), which must be `shorter_side(size)`.
    """
    share = size / shorter_side(size)
    while math.floor(size / share) < shorter_side(size):
        share = math.nextafter(share, 0)
    return share


def without_folders(name: str) -> str:
    """What data or a network are called, without the folders of somebody's disk that they lie in.

    >>> [without_folders(name) for name in ("/home/me/photos/", "hf:owner/name", "hf:/home/me/vit", "photos:train")]
    ['photos', 'hf:owner/name', 'hf:vit', 'photos:train']
    """
    found = re.fullmatch(r"([a-z]+:)?(.*)", name.strip(), re.DOTALL)
    assert found
    kind, rest = found[1] or "", found[2]
    return kind + rest if kind and not rest.startswith(("/", ".", "~")) else kind + (Path(rest).name or rest)


def plain(values: Tensor) -> list[float]:
    """The shortest numbers that are the same in float32, such as 0.485 and not 0.48500001430511475."""
    return [float(str(value)) for value in values.detach().cpu().flatten().numpy()]
