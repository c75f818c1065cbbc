"""From a name to images: which source it means, and a labelled one as an evaluator sees it."""

from pathlib import Path

import torch
from torch import Tensor

from ownlatent.data.decode import fit_square
from ownlatent.data.folder import Folder
from ownlatent.data.photos import SPLITS, Photos
from ownlatent.data.resident import Resident, load_resident
from ownlatent.data.source import Source
from ownlatent.errors import OwnlatentError


def open_source(name: str | Path, *, labelled: bool = False) -> Source:
    """A source by name: `photos:train` and `photos:test` are built in, anything else is a folder of images.

    labelled: the labels are wanted (class subfolders); without it they are not even looked for.
    Raises OwnlatentError if there is nothing to read.
    """
    text = str(name)
    if text.startswith("photos:"):
        split = text.removeprefix("photos:")
        if split not in SPLITS:
            raise OwnlatentError(f"the built-in photographs have the parts {' and '.join(SPLITS)}, not {split!r}")
        return Photos(split)
    return Folder(Path(name), labelled=labelled)


def load_labelled(name: str | Path, channels: int, image_size: int) -> Resident:
    """A labelled source in memory, every image uint8 (channels, image_size, image_size).

    Raises OwnlatentError if it has no labels or none of its images can be read.
    """
    source = open_source(name, labelled=True)
    if source.classes is None:
        raise OwnlatentError(f"{name} has no labels: give a folder with a subfolder for each class")
    return load_resident(source, lambda image: _to_channels(fit_square(image, image_size), channels))


def _to_channels(image: Tensor, channels: int) -> Tensor:
    if image.shape[0] == channels:
        return image
    if channels == 1:
        return image.float().mean(0, keepdim=True).round().to(torch.uint8)
    return image[:1].expand(channels, -1, -1)
