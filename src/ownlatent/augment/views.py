"""From a batch of images to normalised views."""

import itertools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from math import gcd
from typing import Any, NamedTuple

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
from ownlatent.augment.crop import Crop, apply_crop, apply_flip, boxes_of_views, sample_crop, sample_flip
from ownlatent.augment.device import moved
from ownlatent.augment.normalize import normalize
from ownlatent.augment.recipes import View
from ownlatent.types import Views

_CACHE_BYTES = 400_000  # images are handed to the compiled loops in pieces whose crops fit a core's cache
_PIXELS_PER_THREAD = 2**19  # of views; with fewer, waking a thread takes as long as it saves


class ViewParams(NamedTuple):
    """Everything drawn for one view of n images, except the crop; enough to make the view again."""

    flip: Tensor
    jitter: Jitter
    grayscale: Tensor
    blur: Blur
    solarize: Tensor


class Within(NamedTuple):
    """A process's share of a batch: its images are those from number `first` on of `total`."""

    first: int
    total: int


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

    def of_images(
        self, images: Tensor, generator: torch.Generator, rows: Tensor | None = None, within: Within | None = None
    ) -> Views:
        """Crop and augment images (N, C, H, W) of one size, uint8 or uint16; or `rows` (B,) int64 of them.

        within: where these images stand in the batch that the generator is for; without it, they are all of it.
        """
        rows = torch.arange(len(images)) if rows is None else rows
        height, width = images.shape[2:]
        crops, params = self._drawn(len(rows), generator, within)
        boxes = boxes_of_views(crops, height, width)
        if self._is_compiled(images):
            return self._compiled([images.contiguous().numpy()] * len(boxes), rows.cpu().numpy(), boxes, params)
        images = pick(images, rows)
        cut = [apply_crop(images, box, size) for box, size in zip(boxes, self.sizes, strict=True)]
        return self._plain(cut, params)

    def of_crops(self, crops: Sequence[Tensor], generator: torch.Generator, within: Within | None = None) -> Views:
        """Augment V batches of crops (B, C, S, S) that were cut and resized already, by `sample_crops` of this seed."""
        _, params = self._drawn(len(crops[0]), generator, within)
        if all(map(self._is_compiled, crops)):
            return self._compiled([view.contiguous().numpy() for view in crops], None, None, params)
        return self._plain([view.float() for view in crops], params)

    def _drawn(self, n: int, generator: torch.Generator, within: Within | None) -> tuple[list[Crop], list[ViewParams]]:
        """The draws for n images: all crops first, so that whoever only cuts and whoever only colours agree."""
        first, total = within or (0, n)
        crops = sample_crops(self.views, total, generator)
        params = [sample_view(total, generator, view) for view in self.views]
        if total == n:
            return crops, params
        part = slice(first, first + n)
        return [crop.rows(part) for crop in crops], [rows_of(each, part) for each in params]

    @staticmethod
    def _is_compiled(images: Tensor) -> bool:
        return images.device.type == "cpu" and images.dtype == torch.uint8

    def _plain(self, crops: Sequence[Tensor], params: Sequence[ViewParams]) -> Views:
        """Views of crops (B, C, S, S) of any kind, by the functions that define the operations."""
        views = [apply_view((x / self.peak).clamp_(max=1), drawn) for x, drawn in zip(crops, params, strict=True)]
        return [normalize(x, self.mean, self.std).contiguous(memory_format=torch.channels_last) for x in views]

    def _compiled(
        self,
        sources: Sequence[np.ndarray],
        places: np.ndarray | None,
        boxes: Sequence[Tensor] | None,
        params: Sequence[ViewParams],
    ) -> Views:
        """Views by the compiled loops: of `places` (B,) in sources (N, C, H, W), or of crops where there are no boxes.

        The threads share all views at once.
        """
        from ownlatent.augment.kernels.crop import crop_batch
        from ownlatent.augment.kernels.view import finish

        n, channels = len(params[0].flip), sources[0].shape[1]
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        outs = [np.empty((n, s, s, channels), np.float32) for s in self.sizes]  # not torch's: numpy asks for huge pages
        drawn = []
        for view in params:
            flip, factors, order, gray, solarize = (
                t.numpy() for t in (view.flip, *view.jitter, view.grayscale, view.solarize)
            )
            sigma = torch.where(view.blur.chosen, view.blur.sigma, 0.0).numpy()
            drawn.append((flip, factors, order, gray, sigma, solarize))
        corners = None if boxes is None else [box.double().numpy() for box in boxes]

        def work(v: int, first: int, last: int) -> None:
            size, window = self.sizes[v], blur_window(self.sizes[v])
            piece = max(1, _CACHE_BYTES // (channels * size * size))
            for start in range(first, last, piece):
                part = slice(start, min(start + piece, last))
                if corners is None or places is None:
                    crops = sources[v][part]
                else:
                    crops = np.empty((part.stop - start, channels, size, size), np.uint8)
                    crop_batch(sources[v], places[part], corners[v][part], crops)
                *before, solarize = (each[part] for each in drawn[v])
                finish(crops, *before, window, solarize, mean, std, outs[v][part])

        pixels = n * sum(size**2 for size in self.sizes)
        threads = max(1, min(torch.get_num_threads(), n, pixels // _PIXELS_PER_THREAD))
        share = threads // gcd(threads, len(outs))  # parts of a view, so that all threads have as much to do
        edges = [n * part // share for part in range(share + 1)]
        tasks = [(v, *span) for v in range(len(outs)) for span in itertools.pairwise(edges)]
        if threads == 1:
            for task in tasks:
                work(*task)
        else:
            others = [_pool(threads - 1, os.getpid()).submit(work, *task) for task in tasks[1:]]
            work(*tasks[0])
            for other in others:
                other.result()
        return [torch.from_numpy(out).permute(0, 3, 1, 2) for out in outs]


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


def rows_of(params: Any, part: slice) -> Any:
    """The draws of some of the images: of a tensor (n, ...), or of a tuple of such as it stands."""
    if isinstance(params, tuple):
        return type(params)(*(rows_of(each, part) for each in params))
    return params[part]


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
