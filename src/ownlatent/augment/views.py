"""From a batch of images to normalised views."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
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
from ownlatent.augment.crop import Crop, apply_crop, apply_flip, boxes_of, sample_crop, sample_flip
from ownlatent.augment.device import moved
from ownlatent.augment.normalize import normalize
from ownlatent.augment.recipes import View
from ownlatent.types import Views

_CACHE_BYTES = 400_000  # images are handed to the compiled loops in pieces whose crops fit a core's cache


class ViewParams(NamedTuple):
    """Everything drawn for one view of n images, except the crop; enough to make the view again."""

    flip: Tensor
    jitter: Jitter
    grayscale: Tensor
    blur: Blur
    solarize: Tensor


class MultiView:
    """Makes V normalised views (B, C, S, S) of images; all draws are per image.

    views: the distribution of each view. size: side of the views in pixels, of which a view may be a
    share. mean, std: per channel, of images in [0, 1]. peak: the value that counts as 1.

    uint8 images on a processor go through compiled loops (kernels/); everything else through the
    functions that define the operations, on the images' device.
    """

    def __init__(
        self, views: Sequence[View], size: int, mean: Sequence[float], std: Sequence[float], peak: float = 255.0
    ):
        self.views, self.size, self.mean, self.std, self.peak = tuple(views), size, tuple(mean), tuple(std), peak
        self.sizes = tuple(view.pixels(size) for view in views)

    def of_images(self, images: Tensor, generator: torch.Generator, rows: Tensor | None = None) -> Views:
        """Crop and augment images (N, C, H, W) of one size, uint8 or uint16; or `rows` (B,) int64 of them."""
        rows = torch.arange(len(images)) if rows is None else rows
        n, (height, width) = len(rows), images.shape[2:]
        boxes = [boxes_of(crop, height, width) for crop in sample_crops(self.views, n, generator)]
        params = [sample_view(n, generator, view) for view in self.views]
        if not self._is_compiled(images):
            images, rows = pick(images, rows), None
        return [self._render(images, rows, b, p, s) for b, p, s in zip(boxes, params, self.sizes, strict=True)]

    def of_crops(self, crops: Sequence[Tensor], generator: torch.Generator) -> Views:
        """Augment V batches of crops (B, C, S, S) that were cut and resized already, by `sample_crops` of this seed."""
        n = len(crops[0])
        sample_crops(self.views, n, generator)  # the same views as of_images makes: the crops are drawn first
        params = [sample_view(n, generator, view) for view in self.views]
        return [self._render(c, None, None, p, s) for c, p, s in zip(crops, params, self.sizes, strict=True)]

    @staticmethod
    def _is_compiled(images: Tensor) -> bool:
        return images.device.type == "cpu" and images.dtype == torch.uint8

    def _render(
        self, images: Tensor, rows: Tensor | None, boxes: Tensor | None, params: ViewParams, size: int
    ) -> Tensor:
        if self._is_compiled(images):
            return self._compiled(images, rows, boxes, params, size)
        x = images.float() if boxes is None else apply_crop(images, boxes, size)
        x = apply_view((x / self.peak).clamp_(max=1), params)
        return normalize(x, self.mean, self.std).contiguous(memory_format=torch.channels_last)

    def _compiled(
        self, images: Tensor, rows: Tensor | None, boxes: Tensor | None, params: ViewParams, size: int
    ) -> Tensor:
        from ownlatent.augment.kernels.crop import crop_batch
        from ownlatent.augment.kernels.view import finish

        n, channels = len(params.flip), images.shape[1]
        source, places = images.contiguous().numpy(), np.arange(n) if rows is None else rows.cpu().numpy()
        window = blur_window(size)
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        flip, factors, order, gray, solarize = (
            t.numpy() for t in (params.flip, *params.jitter, params.grayscale, params.solarize)
        )
        sigma = torch.where(params.blur.chosen, params.blur.sigma, 0.0).numpy()
        corners = None if boxes is None else boxes.double().numpy()
        out = np.empty((n, size, size, channels), np.float32)  # not torch's: numpy asks for huge pages
        piece = max(1, _CACHE_BYTES // (channels * size * size))

        def work(first: int, last: int) -> None:
            for start in range(first, last, piece):
                part = slice(start, min(start + piece, last))
                if corners is None:
                    crops = source[part]
                else:
                    crops = np.empty((part.stop - start, channels, size, size), np.uint8)
                    crop_batch(source, places[part], corners[part], crops)
                finish(
                    *(crops, flip[part], factors[part], order[part], gray[part], sigma[part], window, solarize[part]),
                    *(mean, std, out[part]),
                )

        threads = min(torch.get_num_threads(), n)
        if threads == 1:
            work(0, n)
        else:
            edges = [n * t // threads for t in range(threads + 1)]
            list(_pool(threads, os.getpid()).map(work, edges[:-1], edges[1:]))
        return torch.from_numpy(out).permute(0, 3, 1, 2)


@cache
def _pool(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads for the compiled loops, which release the interpreter; a forked process needs its own."""
    return ThreadPoolExecutor(threads, thread_name_prefix="views")


def pick(images: Tensor, rows: Tensor) -> Tensor:
    """Some of the images (N, ...); torch can index uint16 only as the int16 of the same bits."""
    rows = moved(rows, images.device)
    if images.dtype == torch.uint16:
        return images.view(torch.int16)[rows].view(torch.uint16)
    return images[rows]


def sample_crops(views: Sequence[View], n: int, generator: torch.Generator) -> list[Crop]:
    """Draw the crops of every view of n images: the first thing that a batch's generator is asked for."""
    return [sample_crop(n, generator, view.crop_scale, view.crop_ratio) for view in views]


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
    """Flip, jitter, grayscale, blur and solarise images (B, C, H, W) in [0, 1], in the papers' order.

    The draws may stay on the processor: which images an operation concerns is then known without
    waiting for an accelerator.
    """
    x = apply_flip(x, params.flip)
    x = apply_jitter(x, params.jitter)
    x = apply_grayscale(x, params.grayscale)
    x = apply_blur(x, params.blur, blur_window(min(x.shape[-2:])))
    return apply_solarize(x, params.solarize)
