"""encoder.safetensors holds the weights, encoder.json what is needed to build the network again."""

import errno
import json
import os
import re
import shutil
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import nn

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.files import write_json

FORMAT = 1


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write encoder.safetensors and encoder.json into a folder; the weights are the backbone's, unprefixed.

    So they load into the same timm or torchvision network by its own names, apart from a stem that
    was changed for small images.
    """
    stored = {
        "format": FORMAT,
        "network": dict(encoder.backbone.spec) if encoder.backbone.spec else None,
        "num_features": encoder.num_features,
        "preprocessing": {
            "image_size": encoder.image_size,
            "mean": encoder.mean.flatten().tolist(),
            "std": encoder.std.flatten().tolist(),
            "peak": encoder.peak,
            "range": "images in [0, 1] (divided by peak) before mean and std",
        },
        "changes": list(encoder.backbone.changes),
    }
    write_json(folder / "encoder.json", stored)
    weights = folder / "encoder.safetensors"
    beside = weights.with_name(weights.name + ".tmp")
    try:
        save_model(encoder.backbone.net, str(beside))
        shutil.copymode(folder / "encoder.json", beside)  # safetensors lets nobody else read its files
        os.replace(beside, weights)
    except SafetensorError as error:
        raise _as_os_error(error, weights) from error
    finally:
        beside.unlink(missing_ok=True)  # what was written in vain


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """What the system said, which safetensors tells in text alone."""
    code = re.search(r"code: (\d+)", str(error))
    number = int(code[1]) if code else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def load_encoder(folder: str | Path, network: nn.Module | None = None) -> Encoder:
    """The encoder of a run folder, in evaluation mode on the CPU: images in, (B, D) features out.

    network: a fresh module of the same architecture, for runs that trained a module of the user's
    own. No code of the file is executed. Raises OwnlatentError if the files are missing, broken or
    do not fit the network.
    """
    folder = Path(folder)
    description, weights = folder / "encoder.json", folder / "encoder.safetensors"
    if not description.exists() or not weights.exists():
        raise OwnlatentError(f"{folder} holds no encoder: name a run folder with encoder.json and encoder.safetensors")
    try:
        stored = json.loads(description.read_text())
        if stored["format"] != FORMAT:
            raise OwnlatentError(
                f"{description} has format {stored['format']}, and this version reads {FORMAT}: update ownlatent"
            )
        mean, std = (tuple(map(float, stored["preprocessing"][key])) for key in ("mean", "std"))
        size, peak = int(stored["preprocessing"]["image_size"]), float(stored["preprocessing"]["peak"])
        spec = stored["network"]
        name, keywords = (None, {}) if spec is None else (str(spec["name"]), dict(spec["keywords"]))
        if len(mean) != len(std) or not mean:
            raise ValueError("mean and std differ in length")
    except (ValueError, KeyError, TypeError) as error:
        raise OwnlatentError(f"{description} is broken ({error}): export the encoder again") from error
    if network is None and name is None:
        raise OwnlatentError(
            f"{folder} was trained on a module of your own: pass a fresh one, load_encoder(folder, network)"
        )
    chosen = network if network is not None else name
    assert chosen is not None
    keywords = {} if network is not None else backbones.checked_settings(keywords)
    backbone = backbones.create(chosen, channels=len(mean), image_size=size, **keywords)
    try:
        load_model(backbone.net, str(weights))
    except (SafetensorError, RuntimeError) as error:
        raise OwnlatentError(
            f"{weights} does not fit {description} or is broken: {str(error).splitlines()[0]}"
        ) from error
    return Encoder(backbone, size, mean, std, peak).eval()
