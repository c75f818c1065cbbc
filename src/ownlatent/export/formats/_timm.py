"""timm's networks: built again as timm builds them, and written into a folder in timm's layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.libraries import build_timm
from ownlatent.export.formats._changes import Differs, changed_layers
from ownlatent.export.formats._code import pooling
from ownlatent.export.formats._examples import examples
from ownlatent.export.formats._refusal import check_named, refusal
from ownlatent.export.formats._tensors import write_tensors
from ownlatent.export.preprocessing import as_text, crop_share, plain, preprocessing
from ownlatent.files import write_json
from ownlatent.types import height_and_width


@dataclass(frozen=True)
class TimmNetwork:
    """name, arguments: what `timm.create_model` makes it from. changes: lines of code for layers that were changed
    afterwards. pool: what is written behind its output. config: timm's description of its weights."""

    name: str
    arguments: dict[str, Any]
    changes: list[str]
    pool: str
    config: dict[str, Any]


def timm_network(encoder: Encoder, format: str, library: str) -> TimmNetwork:
    """How timm makes the encoder's network. library: that will use it. Raises OwnlatentError for one of others."""
    net, plain_name = encoder.backbone.net, check_named(encoder, format, library)
    if not type(net).__module__.startswith("timm."):
        raise refusal(encoder, format, f"it is no network that {library} has")
    assert encoder.backbone.spec is not None
    keywords = dict(encoder.backbone.spec["keywords"])
    if keywords.pop("norm", "batch") != "batch":
        raise refusal(encoder, format, "its BatchNorm was replaced, which timm does not know")
    name = plain_name.partition(".")[0]  # behind the dot: which of timm's weights it began with
    if len(encoder.mean) != 3:
        keywords["in_chans"] = len(encoder.mean)
    fresh, arguments = build_timm(name, encoder.image_size, False, keywords)
    try:
        changes = changed_layers(fresh, net)
    except Differs as difference:
        raise refusal(encoder, format, f"{difference} than timm's {name} has") from difference
    images = examples(encoder, 2)
    pool = pooling(net((images - encoder.mean) / encoder.std), encoder(images))
    if pool is None:
        raise refusal(encoder, format, "its features are not made of the network's output alone")
    return TimmNetwork(name, arguments, changes, pool, _config(encoder, name, arguments, fresh))


def write_folder(encoder: Encoder, network: TimmNetwork, folder: Path) -> None:
    """model.safetensors, and config.json if timm's network is as it was."""
    metadata = {"network": network.name, **as_text(preprocessing(encoder))}
    write_tensors(encoder.backbone.net, folder / "model.safetensors", metadata)
    if not network.changes:
        write_json(folder / "config.json", network.config)


def _config(encoder: Encoder, name: str, arguments: dict[str, Any], fresh: nn.Module) -> dict[str, Any]:
    own: dict[str, Any] = fresh.pretrained_cfg  # type: ignore[assignment]
    height, width = height_and_width(encoder.image_size)
    return {
        "architecture": name,
        "num_classes": 0,
        "num_features": encoder.num_features,
        "model_args": arguments,
        "pretrained_cfg": {
            "input_size": [len(encoder.mean), height, width],
            "fixed_input_size": "img_size" in arguments and "dynamic_img_size" not in arguments,
            "interpolation": "bilinear",
            "crop_pct": crop_share(height) if height == width else 1.0,
            "crop_mode": "center",
            "mean": plain(encoder.mean),
            "std": plain(encoder.std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": own.get("first_conv"),
            "classifier": own.get("classifier"),
        },
    }
