"""encoder.safetensors holds the weights, encoder.json what is needed to build the network again."""

import errno
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.backbones import OwnNetwork
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.weights import put
from ownlatent.errors import OwnlatentError
from ownlatent.files import write_json
from ownlatent.sound.spectrum import front_end_facts
from ownlatent.types import Size

FORMATS = (1, 2, 3)  # 3 is of sounds; 2 says which layer gives the features; 1 where that is the network's own output


def save_encoder(encoder: Encoder, folder: Path) -> None:
    """Write encoder.safetensors and encoder.json into a folder; the weights are the backbone's, unprefixed.

    So they load into the same timm or torchvision network by its own names, apart from a stem that
    was changed for small images.
    """
    tap = encoder.backbone.tap
    inner = bool(tap.layer or tap.key is not None or tap.adapter or tap.pool != "mean")
    stored = {
        "format": 3 if encoder.modality == "audio" else 2 if inner else 1,
        "network": dict(encoder.backbone.spec) if encoder.backbone.spec else None,
        "num_features": encoder.num_features,
        "preprocessing": {
            "image_size": encoder.image_size,
            "mean": encoder.mean.flatten().tolist(),
            "std": encoder.std.flatten().tolist(),
            "peak": encoder.peak,
            "range": "images in [0, 1] (divided by peak) before mean and std",
            **({"sound": front_end_facts()} if encoder.modality == "audio" else {}),
        },
        "changes": list(encoder.backbone.changes),
    }
    if encoder.backbone.settings:
        stored["settings"] = encoder.backbone.settings
    if inner:
        stored["features"] = {"layer": tap.name or None, "pool": tap.pool, "adapter": tap.adapter is not None}
    write_json(folder / "encoder.json", stored)
    weights = folder / "encoder.safetensors"
    beside = weights.with_name(weights.name + ".tmp")
    try:
        save_file(_each_once(encoder.backbone.net), str(beside))
        shutil.copymode(folder / "encoder.json", beside)  # safetensors lets nobody else read its files
        os.replace(beside, weights)
    except SafetensorError as error:
        raise _as_os_error(error, weights) from error
    finally:
        beside.unlink(missing_ok=True)  # what was written in vain


def _size_in(stored: dict[str, Any]) -> Size:
    """Of the images, or of the spectrograms, which this version must make as the one that trained did."""
    size = stored["preprocessing"]["image_size"]
    if stored["format"] < 3:
        return int(size)
    if stored["preprocessing"]["sound"] != front_end_facts():
        raise ValueError("its spectrograms are made otherwise than by this version")
    height, width = map(int, size)
    return height, width


def _each_once(net: nn.Module) -> dict[str, Tensor]:
    """Tensors by name in the usual order of memory; of several names for one the first."""
    found: dict[tuple[int, torch.Size], tuple[str, Tensor]] = {}
    for number, (name, value) in enumerate(net.state_dict().items()):
        place = value.data_ptr() or -number  # those without content share nothing
        found.setdefault((place, value.shape), (name, value.contiguous()))
    return dict(found.values())


def _as_os_error(error: SafetensorError, path: Path) -> OSError:
    """What the system said, which safetensors tells in text alone."""
    code = re.search(r"code: (\d+)", str(error))
    number = int(code[1]) if code else errno.EIO
    return OSError(number, os.strerror(number), str(path))


def load_encoder(folder: str | Path, network: str | nn.Module | OwnNetwork | None = None) -> Encoder:
    """The encoder of a run folder, in evaluation mode on the CPU: images in, (B, D) features out.

    network: for runs that trained a network of the user's own, a fresh module of the same architecture, which is
    used as it is, or FILE.py:NAME. No code is executed that a file of the folder holds or names. Raises
    OwnlatentError if the files are missing, broken or do not fit the network.
    """
    folder = Path(folder)
    description, weights = folder / "encoder.json", folder / "encoder.safetensors"
    if not description.exists() or not weights.exists():
        raise OwnlatentError(f"{folder} holds no encoder: name a run folder with encoder.json and encoder.safetensors")
    try:
        stored = json.loads(description.read_text())
        if stored["format"] not in FORMATS:
            raise OwnlatentError(
                f"{description} has format {stored['format']}, and this version reads {FORMATS[-1]}: update ownlatent"
            )
        mean, std = (tuple(map(float, stored["preprocessing"][key])) for key in ("mean", "std"))
        size, peak = _size_in(stored), float(stored["preprocessing"]["peak"])
        spec = stored["network"]
        name, keywords = (None, {}) if spec is None else (str(spec["name"]), dict(spec["keywords"]))
        settings = dict(stored.get("settings", {}))
        features = {"layer": None, "pool": "mean", "adapter": False, **stored.get("features", {})}
        if len(mean) != len(std) or not mean:
            raise ValueError("mean and std differ in length")
    except (ValueError, KeyError, TypeError) as error:
        raise OwnlatentError(f"{description} is broken ({error}): export the encoder again") from error
    if network is None and name is None:
        raise OwnlatentError(
            f"{folder} was trained on a network of your own: give it as --network FILE.py:NAME, or pass a fresh "
            "module, load_encoder(folder, network)"
        )
    own = None if network is None else backbones.own_network(network, in_place=True)
    if features["adapter"] and (own is None or own.adapter is None):
        raise OwnlatentError(
            f"{folder} was trained through an adapter: pass the network with it, "
            "load_encoder(folder, own_network(module, adapter))"
        )
    chosen = own if own is not None else name
    assert chosen is not None
    backbone = backbones.create(
        chosen,
        layer=features["layer"],
        pool=str(features["pool"]),
        channels=len(mean),
        image_size=size,
        **backbones.checked_settings(keywords if own is None else settings if own.settings else {}),
    )
    try:
        missing, unexpected = put(backbone.net, load_file(str(weights)))
        if missing or unexpected:
            raise RuntimeError(f"it lacks {missing[0]}" if missing else f"nothing there is called {unexpected[0]}")
    except (SafetensorError, RuntimeError) as error:
        raise OwnlatentError(
            f"{weights} does not fit {description} or is broken: {str(error).splitlines()[0]}"
        ) from error
    return Encoder(backbone, size, mean, std, peak).eval()
