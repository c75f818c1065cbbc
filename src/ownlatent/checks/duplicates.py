"""Images that are there twice, or nearly."""

from typing import NamedTuple

import torch
from torch import Tensor

from ownlatent.data.decode import fit_square, resize
from ownlatent.data.resident import Resident
from ownlatent.data.source import Source, is_of_sounds
from ownlatent.train.images import read_or_none

_SIDE = 16  # of the thumbnails that are compared, in pixels
_NEAR = 0.995  # their cosine, brightness and contrast apart, from which two are called nearly the same
_FLAT = 1e-6  # variance below which an image shows nothing that could be compared


class Duplicates(NamedTuple):
    """Of `looked` images: how many equal another pixel by pixel, and how many more look nearly the same."""

    looked: int
    exact: int
    near: int


def duplicates(data: Resident | Source, rows: list[int]) -> Duplicates:
    """Look at the images `rows`. Each is counted once: a pair of equal images is one too many."""
    seen: set[bytes] = set()
    thumbnails: list[Tensor] = []
    looked = exact = 0
    for row in rows:
        image = read_or_none(data, row)
        if image is None:
            continue
        looked += 1
        content = bytes(str(tuple(image.shape)), "ascii") + image.numpy().tobytes()
        if content in seen:
            exact += 1
            continue
        seen.add(content)
        whole = resize(image, (_SIDE, _SIDE)) if is_of_sounds(data) else fit_square(image, _SIDE)
        thumbnails.append(whole.float().mean(0).flatten())
    return Duplicates(looked, exact, _near(torch.stack(thumbnails)) if thumbnails else 0)


def _near(thumbnails: Tensor) -> int:
    """How many have another before them that is nearly the same."""
    centred = thumbnails - thumbnails.mean(1, keepdim=True)
    shown = centred.square().mean(1) > _FLAT
    unit = torch.nn.functional.normalize(centred[shown], dim=1)
    alike = (unit @ unit.T).tril(-1) > _NEAR
    return int(alike.any(1).sum())
