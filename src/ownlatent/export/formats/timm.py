"""A folder for timm: `create_model("local-dir:FOLDER")` loads weights, settings and preprocessing.

Where the stem was changed for small images timm's own files cannot say so; then it is the weights, and the lines of
code that change timm's network alike.
"""

from pathlib import Path

from ownlatent.backbones.encoder import Encoder
from ownlatent.export.formats import Written
from ownlatent.export.formats._code import normalisation
from ownlatent.export.formats._timm import timm_network, write_folder

LIBRARY = "timm"
TOLERANCE = 1e-5


def write(encoder: Encoder, folder: Path) -> Written:
    network = timm_network(encoder, "timm", LIBRARY)
    write_folder(encoder, network, folder)
    features = f"features = net((images - mean) / std){network.pool}"
    if not network.changes:
        return Written(
            (
                "import timm, torch",
                'net = timm.create_model("local-dir:FOLDER", pretrained=True).eval()',
                'mean, std = (torch.tensor(net.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))',
                features,
            ),
            ("`timm.data.create_transform(**timm.data.resolve_model_data_config(net))` prepares Pillow images alike.",),
        )
    arguments = "".join(f", {name}={value!r}" for name, value in network.arguments.items())
    return Written(
        (
            "import timm, torch",
            "from safetensors.torch import load_file",
            f"net = timm.create_model({network.name!r}, num_classes=0{arguments})",
            *network.changes,
            'net.load_state_dict(load_file("FOLDER/model.safetensors"))',
            normalisation(encoder),
            features.replace("net(", "net.eval()("),
        ),
        ("Layers of timm's network were changed for images of this kind, as the lines of code say.",),
    )
