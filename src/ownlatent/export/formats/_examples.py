"""Photographs and sounds to try an encoder on."""

import numpy as np
import torch
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.data.decode import resize
from ownlatent.data.sources.sounds import Sounds
from ownlatent.sound.front_end import to_levels
from ownlatent.sound.spectrum import HOP
from ownlatent.types import Size, height_and_width

_NAMES = ("astronaut", "coffee", "cat", "rocket")


def examples(encoder: Encoder, count: int = len(_NAMES), size: Size | None = None) -> Tensor:
    """What the network takes, in [0, 1]: photographs (count, C, H, W), or spectrograms (count, 1, 64, T) of sounds.

    size: another than the encoder was trained at.
    """
    height, width = height_and_width(encoder.image_size if size is None else size)
    if encoder.front_end is not None:
        return to_levels(encoder.front_end(waveforms(count, (width - 1) * HOP)))
    return photographs(len(encoder.mean), height, width, count)


def inputs(encoder: Encoder, count: int = len(_NAMES), size: Size | None = None) -> Tensor:
    """What the encoder takes from somebody who has it in one file: images as above, or waveforms (count, samples)."""
    if encoder.front_end is not None:
        return waveforms(count, (height_and_width(encoder.image_size if size is None else size)[1] - 1) * HOP)
    return examples(encoder, count, size)


def photographs(channels: int, height: int, width: int, count: int = len(_NAMES)) -> Tensor:
    """Some of scikit-image's in [0, 1], (count, channels, height, width); further channels repeat red, green, blue."""
    from skimage import data  # slow to import

    found = []
    for name in _NAMES[:count]:
        image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)
        found.append(resize(image, (height, width))[[channel % 3 for channel in range(channels)]])
    images = torch.stack(found).float() / 255
    return images.contiguous(memory_format=torch.channels_last)  # as an encoder gives them to its network


def waveforms(count: int, samples: int) -> Tensor:
    """Made sounds of several kinds (count, samples), of 16 kHz."""
    source = Sounds("test")
    made = [source.waveform(number * len(source) // count) for number in range(count)]
    return torch.from_numpy(np.stack([np.resize(each, samples) for each in made]))  # repeated where they are shorter
