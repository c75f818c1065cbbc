"""A look at a sample of a source: what decides the defaults before everything is loaded."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.data.decode import Unreadable
from ownlatent.data.probe import spread
from ownlatent.data.source import Source, is_of_sounds
from ownlatent.errors import OwnlatentError

_SAMPLED = 512  # images looked at,
_LOOKED = 2 * 10**8  # but no more than some of them once so many bytes were decoded: about two seconds
_PIXELS = 4096  # of each image, for mean and std


@dataclass(frozen=True)
class Survey:
    """What a sample of the images tells.

    channels: of every image. side: the shorter side in pixels, at the median. bytes: of all images
    decoded, or None if they differ in size. mean, std: per channel, of images in [0, 1]. peak: the
    value that counts as 1. count: images looked at. skipped: {title: reason} of the unreadable ones. frames: that nine
    of ten do not exceed, of sounds.
    """

    channels: int
    side: int
    bytes: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    peak: float
    count: int
    skipped: dict[str, str]
    frames: int = 0


def survey(source: Source) -> Survey:
    """Look at images spread over the source. Raises OwnlatentError if none of them can be read."""
    shapes, pixels, largest, skipped, looked, count = [], [], 0, {}, 0, 0
    # In a random order: what is looked at before there are bytes enough is still spread over the whole source.
    for index in np.random.default_rng(0).permutation(spread(len(source), _SAMPLED)).tolist():
        count += 1
        try:
            image = source[index].image
        except Unreadable as error:
            skipped[source.title(index)] = str(error)
            continue
        looked += image.nbytes
        shapes.append(image.shape)
        if image.dtype == torch.uint16:
            largest = max(largest, int(image.int().max()))
        pixels.append(image.flatten(1)[:, :: max(1, image[0].numel() // _PIXELS)].clone())
        if looked > _LOOKED and len(shapes) >= 16:
            break
    if not shapes:
        raise OwnlatentError(
            f"no image of a sample of {source.name} can be read ({next(iter(skipped.values()))}): "
            "check that the files are complete"
        )
    peak = 255.0
    if pixels[0].dtype == torch.uint16:
        # Cameras of 12 or 14 bits store their values in 16: the smallest range that holds the sample is full scale,
        # unless the source knows better, because it made its whole numbers from fractions. Never 255: that is 8 bits'.
        peak = full_scale_of(source) or float(2 ** max(9, largest.bit_length()) - 1)
    mean, std = _statistics(pixels, peak)
    return Survey(
        channels=shapes[0][0],
        side=sorted(min(shape[1:]) for shape in shapes)[len(shapes) // 2],
        bytes=shapes[0].numel() * pixels[0].itemsize * len(source) if len(set(shapes)) == 1 else None,
        mean=mean,
        std=std,
        peak=peak,
        count=count,
        skipped=skipped,
        frames=sorted(shape[2] for shape in shapes)[(len(shapes) - 1) * 9 // 10],
    )


def full_scale_of(source: Source) -> float | None:
    """The value that stands for 1, where the source knows it."""
    if is_of_sounds(source):
        return 65535.0  # levels of a spectrogram
    return getattr(source, "full_scale", None)


def _statistics(pixels: list[Tensor], peak: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std per channel: ImageNet's for 8-bit colour, as in the papers, else measured on the sample."""
    if len(pixels[0]) == 3 and peak == 255:
        return IMAGENET_MEAN, IMAGENET_STD
    every = torch.cat([part.float() for part in pixels], dim=1) / peak
    mean, std = every.mean(1), every.std(1, correction=0).clamp(min=1e-3)
    return tuple(round(v, 5) for v in mean.tolist()), tuple(round(v, 5) for v in std.tolist())
