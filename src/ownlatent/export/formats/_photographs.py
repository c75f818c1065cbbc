"""Photographs to try an encoder on."""

import torch
from torch import Tensor

from ownlatent.data.decode import resize

_NAMES = ("astronaut", "coffee", "cat", "rocket")


def photographs(channels: int, height: int, width: int, count: int = len(_NAMES)) -> Tensor:
    """Some of scikit-image's in [0, 1], (count, channels, height, width); further channels repeat red, green, blue."""
    from skimage import data  # slow to import

    found = []
    for name in _NAMES[:count]:
        image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)
        found.append(resize(image, (height, width))[[channel % 3 for channel in range(channels)]])
    images = torch.stack(found).float() / 255
    return images.contiguous(memory_format=torch.channels_last)  # as an encoder gives them to its network
