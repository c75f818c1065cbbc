"""One file with network, weights and normalisation, images in, features out, which torch alone loads, in C++ too.

It takes uint8 or floats in [0, 1], and raises for anything else rather than give wrong features.
"""

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from ownlatent.backbones.encoder import Encoder
from ownlatent.export.formats import Written
from ownlatent.export.formats._photographs import photographs
from ownlatent.export.formats._refusal import refusal
from ownlatent.export.formats._sizes import agrees, any_size_fact, other_sizes
from ownlatent.export.preprocessing import as_text, preprocessing
from ownlatent.files import replace_file

LIBRARY = "torch"
TOLERANCE = 1e-5


class _Images(nn.Module):
    """Whole numbers to floats before a traced encoder, which knows floats only. side: the only one it takes, or 0."""

    def __init__(self, encoder: nn.Module, side: int):
        super().__init__()
        self.encoder = encoder
        self.side = side

    def forward(self, images: Tensor) -> Tensor:
        if images.dtype == torch.uint8:
            images = images.float() / 255
        if not images.is_floating_point():
            raise ValueError("give images as uint8 or as floats in [0, 1]")
        if self.side > 0 and (images.size(2) != self.side or images.size(3) != self.side):
            raise ValueError("this network takes images of the size that it was trained at")
        return self.encoder(images)


def write(encoder: Encoder, folder: Path) -> Written:
    channels, side = len(encoder.mean), encoder.image_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have everybody compile
        try:
            traced = torch.jit.trace(encoder, photographs(channels, side, side, 2), check_trace=False)
        except Exception as error:  # a network's own code may raise anything
            raise refusal(encoder, "torchscript", f"torch cannot trace it ({error})".splitlines()[0]) from error
        sizes = other_sizes(encoder)
        any_size = bool(sizes) and all(agrees(traced, images, encoder, TOLERANCE) for images in sizes)
        scripted = torch.jit.script(_Images(traced, 0 if any_size else side))
        content = io.BytesIO()
        about = {f"{name}.txt": text for name, text in as_text(preprocessing(encoder)).items()}
        torch.jit.save(scripted, content, _extra_files=about)
    replace_file(folder / "encoder.pt", content.getvalue())
    return Written(
        (
            "import torch",
            'net = torch.jit.load("FOLDER/encoder.pt")',
            "features = net(images)  # uint8 or floats in [0, 1], (B, C, H, W)",
        ),
        ("It normalises by itself.", any_size_fact(any_size, side)),
    )
