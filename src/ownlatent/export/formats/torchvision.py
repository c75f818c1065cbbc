"""Weights by the names of torchvision's network, and the lines of code that load them; read by torch and torchvision.

Networks that timm and torchvision both have under one name, with the same tensors, can be exported too.
"""

import io
from pathlib import Path

import torch
from torch import nn

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.libraries import torchvision_arguments
from ownlatent.errors import OwnlatentError
from ownlatent.export.formats import Written
from ownlatent.export.formats._changes import Differs, changed_layers
from ownlatent.export.formats._code import normalisation, pooling
from ownlatent.export.formats._examples import examples
from ownlatent.export.formats._refusal import check_named, refusal
from ownlatent.export.formats._tensors import tensors_of
from ownlatent.files import replace_file

LIBRARY = "torchvision"
TOLERANCE = 1e-5


def write(encoder: Encoder, folder: Path) -> Written:
    import torchvision

    name = check_named(encoder, "torchvision", "torchvision").partition(".")[0]
    if name not in torchvision.models.list_models(module=torchvision.models):
        raise refusal(encoder, "torchvision", "torchvision has no network of this name")
    net = _as_torchvision(encoder, name)
    made, changes = _made_from(encoder, name, net)
    images = examples(encoder, 2)
    pool = pooling(net((images - encoder.mean) / encoder.std), encoder(images))
    if pool is None:
        raise refusal(encoder, "torchvision", "torchvision's network gives other features with the same weights")
    content = io.BytesIO()
    torch.save(tensors_of(net), content)
    replace_file(folder / "weights.pth", content.getvalue())
    return Written(
        (
            "import torch, torchvision",
            f"net = {made}",
            *changes,
            'net.load_state_dict(torch.load("FOLDER/weights.pth", weights_only=True))',
            normalisation(encoder),
            f"features = net.eval()((images - mean) / std){pool}",
        )
    )


def _as_torchvision(encoder: Encoder, name: str) -> nn.Module:
    """The encoder's network, or torchvision's of the same name with its weights. Raises OwnlatentError."""
    net = encoder.backbone.net
    if type(net).__module__.startswith("timm."):
        try:
            same = backbones.create(
                f"torchvision:{name}", channels=len(encoder.mean), image_size=encoder.image_size
            ).net.eval()
            same.load_state_dict(net.state_dict())
        except (OwnlatentError, RuntimeError) as error:
            raise refusal(encoder, "torchvision", "timm's network has other tensors than torchvision's") from error
        return same
    return net


def _made_from(encoder: Encoder, name: str, net: nn.Module) -> tuple[str, list[str]]:
    """The call that makes torchvision's network, and lines that change it into `net`. Raises OwnlatentError."""
    import torchvision

    assert encoder.backbone.spec is not None
    keywords = dict(encoder.backbone.spec["keywords"]) if net is encoder.backbone.net else {}
    if keywords.pop("norm", "batch") != "batch":
        raise refusal(encoder, "torchvision", "its BatchNorm was replaced, which torchvision does not know")
    arguments = torchvision_arguments(name, encoder.image_size, keywords)
    whole = torchvision.models.get_model(name, weights=None, **arguments)
    call = f"torchvision.models.{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    fresh = whole
    features = getattr(whole, "features", None)
    if isinstance(features, nn.Module) and features.state_dict().keys() == net.state_dict().keys():
        fresh, call = features, f"{call}.features"
    try:
        return call, changed_layers(fresh, net)
    except Differs as difference:
        raise refusal(encoder, "torchvision", f"{difference} than torchvision's {name} has") from difference
