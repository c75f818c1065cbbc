"""The tensors by the network's own names, preprocessing and the network's name among their metadata; for safetensors.

Where the network is made of plain layers, the lines of code build it from torch alone.
"""

from pathlib import Path

from torch import nn

from ownlatent.backbones.encoder import Encoder
from ownlatent.export.formats import Written
from ownlatent.export.formats._code import constructor, normalisation, pooling
from ownlatent.export.formats._examples import examples
from ownlatent.export.formats._tensors import write_tensors
from ownlatent.export.preprocessing import as_text, preprocessing, without_folders

LIBRARY = "safetensors"
TOLERANCE = 1e-5


def write(encoder: Encoder, folder: Path) -> Written:
    spec = encoder.backbone.spec
    name = "a module of the author's own" if spec is None else without_folders(spec["name"])
    changes = list(encoder.backbone.changes)
    metadata = {"network": name, "changes": changes, **preprocessing(encoder)}
    write_tensors(encoder.backbone.net, folder / "model.safetensors", as_text(metadata))
    built = _plain(encoder)
    if built is not None:
        return Written(tuple(built))
    facts = [f"The tensors have the names of the network {name}: `net.load_state_dict(weights)` loads them."]
    if layer := getattr(encoder.backbone, "layer", None):
        facts.append(f"The features are those of its layer {layer}.")
    return Written(
        (
            "from safetensors import safe_open",
            'with safe_open("FOLDER/model.safetensors", "pt") as file:',
            "    about, weights = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}",
        ),
        (*facts, *(f"Changed for the images: {change}." for change in changes)),
    )


def _plain(encoder: Encoder) -> list[str] | None:
    """Lines that build the network from plain layers, load it and give features; None if it is not made of such."""
    net = encoder.backbone.net
    made = constructor(net)
    if made is None or getattr(encoder.backbone, "layer", None):
        return None
    images = examples(encoder, 2)
    pool = pooling(net((images - encoder.mean) / encoder.std), encoder(images))
    if pool is None:
        return None
    parts = [f"    {constructor(part)}," for part in net.children()] if isinstance(net, nn.Sequential) else []
    return [
        "import torch, torchvision" if "torchvision." in made else "import torch",
        "from safetensors.torch import load_file",
        *(["net = torch.nn.Sequential(", *parts, ")"] if parts else [f"net = {made}"]),
        'net.load_state_dict(load_file("FOLDER/model.safetensors"))',
        normalisation(encoder),
        f"features = net.eval()((images - mean) / std){pool}",
    ]
