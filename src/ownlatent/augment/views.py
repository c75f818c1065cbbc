"""From a batch of uint8 images to normalised views."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ownlatent.augment.blur import Blur, apply_blur, blur_window, sample_blur
from ownlatent.augment.colour import (
    Jitter,
    apply_grayscale,
    apply_jitter,
    apply_solarize,
    sample_grayscale,
    sample_jitter,
    sample_solarize,
)
from ownlatent.augment.crop import apply_crop, apply_flip, sample_crop, sample_flip
from ownlatent.augment.normalize import normalize
from ownlatent.augment.recipes import View
from ownlatent.types import Views

# Images whose float32 copies fit a core's cache are several times faster to augment than a whole batch.
_CACHE_BYTES = 400_000


class ViewParams(NamedTuple):
    """Everything drawn for one view of n images, except the crop; enough to make the view again."""

    flip: Tensor
    jitter: Jitter
    grayscale: Tensor
    blur: Blur
    solarize: Tensor


class MultiView:
    """Makes V normalised views (B, C, size, size) of uint8 images; all draws are per image.

    views: the distribution of each view. size: side of the views in pixels. mean, std: per channel,
    of images in [0, 1].
    """

    def __init__(self, views: Sequence[View], size: int, mean: Sequence[float], std: Sequence[float]):
        self.views, self.size, self.mean, self.std = tuple(views), size, tuple(mean), tuple(std)

    def of_images(self, images: Tensor, generator: torch.Generator) -> Views:
        """Crop and augment uint8 images (B, C, H, W) of one size."""
        n, _, height, width = images.shape
        results = []
        for view in self.views:
            boxes = sample_crop(n, height, width, generator, view.crop_scale, view.crop_ratio)
            params = sample_view(n, generator, view)
            results.append(self._apply(images, boxes, params))
        return results

    def of_crops(self, crops: Tensor, generator: torch.Generator) -> Views:
        """Augment crops (B, V, C, size, size) of uint8 that were cut and resized already."""
        params = [sample_view(len(crops), generator, view) for view in self.views]
        return [self._apply(crops[:, v], None, p) for v, p in enumerate(params)]

    def _apply(self, images: Tensor, boxes: Tensor | None, params: ViewParams) -> Tensor:
        chunk = len(images)
        if images.device.type == "cpu":
            chunk = max(1, _CACHE_BYTES // (4 * images.shape[1] * self.size**2))
        else:
            params = _to(params, images.device)
            boxes = None if boxes is None else boxes.to(images.device, non_blocking=True)
        parts = []
        for start in range(0, len(images), chunk):
            rows = slice(start, start + chunk)
            part = images[rows]
            x = part.float() if boxes is None else apply_crop(part, boxes[rows], self.size)
            x = apply_view(x.div_(255), _slice(params, rows))
            parts.append(normalize(x, self.mean, self.std))
        return torch.cat(parts).contiguous(memory_format=torch.channels_last)


def sample_view(n: int, generator: torch.Generator, view: View) -> ViewParams:
    """Draw, for each of n images, everything that follows the crop."""
    return ViewParams(
        flip=sample_flip(n, generator, view.flip),
        jitter=sample_jitter(n, generator, view.brightness, view.contrast, view.saturation, view.hue, view.jitter),
        grayscale=sample_grayscale(n, generator, view.grayscale),
        blur=sample_blur(n, generator, view.blur, view.blur_sigma),
        solarize=sample_solarize(n, generator, view.solarize),
    )


def apply_view(x: Tensor, params: ViewParams) -> Tensor:
    """Flip, jitter, grayscale, blur and solarise images (B, C, H, W) in [0, 1], in the papers' order."""
    x = apply_flip(x, params.flip)
    x = apply_jitter(x, params.jitter)
    x = apply_grayscale(x, params.grayscale)
    x = apply_blur(x, params.blur, blur_window(min(x.shape[-2:])))
    return apply_solarize(x, params.solarize)


def _slice(params: ViewParams, rows: slice) -> ViewParams:
    flip, jitter, grayscale, blur, solarize = params
    return ViewParams(
        flip[rows],
        Jitter(jitter.factors[rows], jitter.order[rows]),
        grayscale[rows],
        Blur(blur.chosen[rows], blur.sigma[rows]),
        solarize[rows],
    )


def _to(params: ViewParams, device: torch.device) -> ViewParams:
    flip, jitter, grayscale, blur, solarize = params
    return ViewParams(
        flip.to(device),
        Jitter(jitter.factors.to(device), jitter.order.to(device)),
        grayscale.to(device),
        Blur(blur.chosen.to(device), blur.sigma.to(device)),
        solarize.to(device),
    )
