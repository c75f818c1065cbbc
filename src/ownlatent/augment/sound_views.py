"""From stretches of spectrograms to normalised views: what `MultiView` is for images."""

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from ownlatent.augment.fader import apply_fader, apply_tilt, sample_fader
from ownlatent.augment.mixup import apply_mixup, sample_mixup
from ownlatent.augment.recipes import AnyView, SoundView, View
from ownlatent.augment.recording import Noise, apply_gain, apply_noise, sample_gain, sample_noise
from ownlatent.augment.resize_crop import ResizeCrop, apply_resize_crop, sample_resize_crop
from ownlatent.augment.views import MultiView, Within, pick, rows_of
from ownlatent.nn.collectives import average
from ownlatent.sound.spectrum import SPAN
from ownlatent.types import Size, Views, height_and_width


class Cut(NamedTuple):
    """Which stretch of each of n sounds a view shows, and which of which other is mixed into it: (n,) in [0, 1)."""

    place: Tensor
    other: Tensor
    other_place: Tensor

    def rows(self, rows: slice) -> "Cut":
        """The draws of some of the sounds."""
        return Cut(*(draws[rows] for draws in self))


class Recording(NamedTuple):
    """What was drawn for how n sounds were recorded."""

    gain: Tensor
    noise: Noise


class SoundParams(NamedTuple):
    """Everything else that is drawn for one view of n sounds."""

    recording: Recording
    other_recording: Recording
    share: Tensor
    crop: ResizeCrop
    fader: Tensor
    tilt: Tensor


class SoundViews:
    """Makes V normalised views (B, 1, 64, T) of stretches of spectrograms; all draws are per sound.

    views: the distribution of each view. size: (64, T), of whose frames a view may be a share. mean, std: of levels
    (spectrograms in [0, 1]), by which they are normalised before anything else is done to them. peak: the level that
    counts as 1. Where a view says so, all views of a batch together are brought to mean 0 and variance 1 at the end.
    """

    def __init__(
        self,
        views: Sequence[SoundView],
        size: Size,
        mean: Sequence[float],
        std: Sequence[float],
        peak: float = 65535.0,
    ):
        self.views, self.size, self.mean, self.std, self.peak = tuple(views), size, tuple(mean), tuple(std), peak
        self.sizes = [height_and_width(view.pixels(size)) for view in views]

    def of_crops(self, crops: Sequence[Tensor], generator: torch.Generator, within: Within | None = None) -> Views:
        """Augment stretches (B, 1, 64, T), as `data.clips.Clips` cuts them: of each view, then of what is mixed in."""
        _, params = self._drawn(len(crops[0]), generator, within)
        return self._made(crops, params)

    def of_images(
        self, images: Tensor, generator: torch.Generator, rows: Tensor | None = None, within: Within | None = None
    ) -> Views:
        """Augment spectrograms (N, 1, 64, T), or `rows` (B,) of them, no shorter than a view; others are mixed in.

        within: where they stand in the batch that the generator is for; without it, they are all of it.
        """
        rows = torch.arange(len(images)) if rows is None else rows
        cuts, params = self._drawn(len(rows), generator, within)
        crops = [_stretch(pick(images, rows), cut.place, t) for cut, (_, t) in zip(cuts, self.sizes, strict=True)]
        for v, view in enumerate(self.views):
            if view.mixup:
                others = pick(images, (cuts[v].other * len(images)).long())
                crops.append(_stretch(others, cuts[v].other_place, self.sizes[v][1]))
        return self._made(crops, params)

    def _drawn(self, n: int, generator: torch.Generator, within: Within | None) -> tuple[list[Cut], list[SoundParams]]:
        """The draws for n sounds: all cuts first, so that whoever only cuts and whoever does the rest agree."""
        first, total = within or (0, n)
        part = slice(first, first + n)
        cuts = [cut.rows(part) for cut in sample_cuts(self.views, total, generator)]
        drawn = [sample_sound(total, generator, *each) for each in zip(self.views, self.sizes, strict=True)]
        return cuts, [rows_of(params, part) for params in drawn]

    def _made(self, crops: Sequence[Tensor], params: Sequence[SoundParams]) -> Views:
        levels = [crop.float() / self.peak for crop in crops]
        others = iter(levels[len(self.views) :])
        views = []
        for view, x, drawn in zip(self.views, levels, params, strict=False):
            x = self._normalised(_recorded(x, view, drawn.recording))
            if view.mixup:
                other = self._normalised(_recorded(next(others), view, drawn.other_recording))
                x = apply_mixup(x, other, drawn.share)
            if view.crop_height != (1.0, 1.0) or view.crop_width != (1.0, 1.0):
                x = apply_resize_crop(x, drawn.crop, (1.0, view.canvas))
            if view.fader:
                x = apply_fader(x, drawn.fader)
            if view.tilt:
                x = apply_tilt(x, drawn.tilt)
            views.append(x)
        if all(view.standardise for view in self.views):
            views = standardised(views)
        return [x.contiguous(memory_format=torch.channels_last) for x in views]

    def _normalised(self, levels: Tensor) -> Tensor:
        return (levels - self.mean[0]) / self.std[0]


def make_views(
    views: Sequence[AnyView],
    size: Size,
    mean: Sequence[float],
    std: Sequence[float],
    peak: float = 255.0,
) -> MultiView | SoundViews:
    """What makes these views, of images or of sounds."""
    if isinstance(size, int):
        return MultiView(cast(Sequence[View], views), size, mean, std, peak)
    return SoundViews(cast(Sequence[SoundView], views), size, mean, std, peak)


def _recorded(levels: Tensor, view: SoundView, drawn: Recording) -> Tensor:
    """Levels (B, 1, 64, T) as another recording of the sounds would have them."""
    if not view.gain and not view.noise:
        return levels
    power = levels * SPAN
    if view.gain:
        power = apply_gain(power, drawn.gain)
    if view.noise:
        power = apply_noise(power, drawn.noise)
    return power / SPAN


def _stretch(sounds: Tensor, place: Tensor, frames: int) -> Tensor:
    """So many frames of each of (B, 1, 64, T), from the places (B,) in [0, 1)."""
    length = sounds.shape[3]
    if length == frames:
        return sounds
    if length < frames:
        raise ValueError(f"spectrograms of {length} frames are too short for views of {frames}: pad them first")
    first = (place * (length - frames + 1)).long().tolist()
    return torch.stack([sound[..., start : start + frames] for sound, start in zip(sounds, first, strict=True)])


def sample_cuts(views: Sequence[SoundView], n: int, generator: torch.Generator) -> list[Cut]:
    """Draw the stretches of every view of n sounds: the first thing that a batch's generator is asked for."""
    return [Cut(*torch.rand((3, n), generator=generator, dtype=torch.float64)) for _ in views]


def sample_recording(n: int, generator: torch.Generator, view: SoundView, size: tuple[int, int]) -> Recording:
    """Draw how each of n sounds was recorded; nothing of (F, T) is drawn for a view without noise."""
    size = size if view.noise else (0, 0)
    return Recording(sample_gain(n, generator, view.gain), sample_noise(n, generator, size, view.noise, view.snr))


def sample_sound(n: int, generator: torch.Generator, view: SoundView, size: tuple[int, int]) -> SoundParams:
    """Draw, for each of n sounds, everything that follows."""
    return SoundParams(
        recording=sample_recording(n, generator, view, size),
        other_recording=sample_recording(n, generator, view, size),
        share=sample_mixup(n, generator, view.mixup),
        crop=sample_resize_crop(n, generator, view.crop_height, view.crop_width),
        fader=sample_fader(n, generator, view.fader),
        tilt=sample_fader(n, generator, view.tilt),
    )


def standardised(views: Views) -> Views:
    """All views of a batch together brought to mean 0 and variance 1, over all processes (BYOL-A's post-norm)."""
    count = sum(x.numel() for x in views)
    sums = torch.stack([torch.stack([x.sum(), x.square().sum()]) for x in views]).sum(0)
    mean, square = average(sums) / count
    std = (square - mean.square()).clamp(min=1e-12).sqrt()
    return [(x - mean) / std for x in views]
