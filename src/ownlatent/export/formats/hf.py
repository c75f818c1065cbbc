"""A folder for Hugging Face transformers: AutoModel loads the network, and AutoImageProcessor its preprocessing.

For transformers' own networks, and for timm's as they are, which transformers wraps.
"""

from pathlib import Path

from torch import nn

from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.export.formats import Written
from ownlatent.export.formats._code import normalisation, pooling
from ownlatent.export.formats._examples import examples
from ownlatent.export.formats._refusal import check_output, refusal
from ownlatent.export.formats._timm import timm_network, write_folder
from ownlatent.export.preprocessing import plain, preprocessing
from ownlatent.files import write_json

LIBRARY = "transformers"
TOLERANCE = 1e-5
_LOADED = ("import torch, transformers", 'net = transformers.AutoModel.from_pretrained("FOLDER").eval()')
_PREPARES = '`transformers.AutoImageProcessor.from_pretrained("FOLDER")` prepares Pillow images alike.'
_OUTPUTS = ("pooler_output", "last_hidden_state")


def write(encoder: Encoder, folder: Path) -> Written:
    try:
        from transformers import PreTrainedModel
    except ImportError:
        raise OwnlatentError("the format hf needs transformers: pip install 'ownlatent[transformers]'") from None

    if encoder.modality == "audio":
        raise refusal(encoder, "hf", "its image processors do not know spectrograms")
    check_output(encoder, "hf")
    net = encoder.backbone.net
    if isinstance(net, PreTrainedModel):
        return _write_own(encoder, net, folder)
    network = timm_network(encoder, "hf", LIBRARY)
    if network.changes:
        raise refusal(encoder, "hf", f"its layers were changed for the images ({', '.join(encoder.backbone.changes)})")
    write_folder(encoder, network, folder)
    return Written(
        (
            *_LOADED,
            'mean, std = (torch.tensor(net.config.pretrained_cfg[key]).view(-1, 1, 1) for key in ("mean", "std"))',
            f"features = net((images - mean) / std).pooler_output{network.pool}",
        ),
        (_PREPARES,),
    )


def _write_own(encoder: Encoder, net: nn.Module, folder: Path) -> Written:
    """One of transformers' own networks, by its own way of writing."""
    net.save_pretrained(folder)  # type: ignore[operator]
    facts = preprocessing(encoder)
    write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",  # the one that resizes, cuts out the centre and normalises
            "do_convert_rgb": facts["channels"] == 3,
            "do_resize": True,
            "size": {"shortest_edge": facts["resize_shorter_side"]},
            "resample": 2,  # Pillow's number for bilinear
            "do_center_crop": True,
            "crop_size": {"height": facts["centre_crop"], "width": facts["centre_crop"]},
            "do_rescale": True,
            "rescale_factor": 1 / facts["divide_by"],
            "do_normalize": True,
            "image_mean": plain(encoder.mean),
            "image_std": plain(encoder.std),
        },
    )
    last = f"features = net((images - mean) / std){_part(encoder, folder)}"
    return Written((*_LOADED, normalisation(encoder), last), (_PREPARES,))


def _part(encoder: Encoder, folder: Path) -> str:
    """What is written behind the output of the network, as transformers loads it, to get the features."""
    from transformers import AutoModel

    images = examples(encoder, 2)
    output = AutoModel.from_pretrained(folder).eval()((images - encoder.mean) / encoder.std)
    for name in _OUTPUTS:
        part = getattr(output, name, None)
        code = None if part is None else pooling(part, encoder(images))
        if code is not None:
            return f".{name}{code}"
    raise refusal(encoder, "hf", "its features are not made of the network's output alone")
