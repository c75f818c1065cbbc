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
from ownlatent.export.formats._examples import inputs
from ownlatent.export.formats._refusal import refusal
from ownlatent.export.formats._sizes import agrees, any_size_fact, other_sizes
from ownlatent.export.preprocessing import as_text, preprocessing
from ownlatent.files import replace_file
from ownlatent.sound.spectrum import HOP

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


class _Sounds(nn.Module):
    """Refuses what is no waveform. samples: the only length it takes, or 0."""

    def __init__(self, encoder: nn.Module, samples: int):
        super().__init__()
        self.encoder = encoder
        self.samples = samples

    def forward(self, sounds: Tensor) -> Tensor:
        if not sounds.is_floating_point() or sounds.dim() != 2:
            raise ValueError("give waveforms of 16 kHz as floats, (B, samples)")
        if self.samples > 0 and sounds.size(1) != self.samples:
            raise ValueError("this network takes sounds of the length that it was trained at")
        return self.encoder(sounds)


def write(encoder: Encoder, folder: Path) -> Written:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would rather have everybody compile
        try:
            traced = torch.jit.trace(encoder, inputs(encoder, 2), check_trace=False)
        except Exception as error:  # a network's own code may raise anything
            raise refusal(encoder, "torchscript", f"torch cannot trace it ({error})".splitlines()[0]) from error
        sizes = other_sizes(encoder)
        any_size = bool(sizes) and all(agrees(traced, images, encoder, TOLERANCE) for images in sizes)
        size = encoder.image_size
        if isinstance(size, int):
            scripted = torch.jit.script(_Images(traced, 0 if any_size else size))
        else:
            scripted = torch.jit.script(_Sounds(traced, 0 if any_size else (size[1] - 1) * HOP))
        content = io.BytesIO()
        about = {f"{name}.txt": text for name, text in as_text(preprocessing(encoder)).items()}
        torch.jit.save(scripted, content, _extra_files=about)
    replace_file(folder / "encoder.pt", content.getvalue())
    return Written(
        (
            "import torch",
            'net = torch.jit.load("FOLDER/encoder.pt")',
            "features = net(images)  # uint8 or floats in [0, 1], (B, C, H, W)"
            if isinstance(size, int)
            else "features = net(sounds)  # waveforms of 16 kHz, floats in [-1, 1], (B, samples)",
        ),
        ("It normalises by itself.", any_size_fact(any_size, size)),
        takes_sounds=True,
    )
