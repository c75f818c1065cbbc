"""Operations on spectrograms against plain NumPy, and what their draws depend on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ownlatent.augment.fader import apply_fader, apply_tilt, sample_fader
from ownlatent.augment.mixup import apply_mixup, sample_mixup
from ownlatent.augment.recipes import SOUND_RECIPES, SoundView
from ownlatent.augment.recording import apply_gain, apply_noise, sample_gain, sample_noise
from ownlatent.augment.resize_crop import ResizeCrop, apply_resize_crop, sample_resize_crop
from ownlatent.augment.sound_views import SoundViews, sample_cuts, sample_sound, standardised
from ownlatent.augment.views import Within
from ownlatent.data.loader import generator
from ownlatent.sound.front_end import LogMel, to_levels
from ownlatent.sound.spectrum import SPAN


def spectrograms(n: int = 4, frames: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn((n, 1, 64, frames), generator=torch.Generator().manual_seed(seed))


def test_mixing_is_done_where_sounds_add() -> None:
    x, other, share = spectrograms().double(), spectrograms(seed=1).double(), sample_mixup(4, generator(0)).double()
    a = share.numpy()[:, None, None, None]
    expected = np.log((1 - a) * np.exp(x.numpy()) + a * np.exp(other.numpy()))
    assert np.abs(apply_mixup(x, other, share).numpy() - expected).max() < 1e-5
    assert torch.allclose(apply_mixup(x, other, torch.zeros(4)), x, atol=1e-5)
    assert torch.allclose(apply_mixup(x, x, share), x, atol=1e-5)  # a sound mixed with itself


def test_the_share_of_the_other_is_uniform_up_to_the_ratio() -> None:
    share = sample_mixup(20_000, generator(0), 0.4)
    assert share.min() >= 0 and share.max() <= 0.4
    assert share.mean().item() == pytest.approx(0.2, abs=0.003)


def cropped_by_slicing(x: torch.Tensor, crop: ResizeCrop, row: int, canvas: tuple[float, float]) -> torch.Tensor:
    """As BYOL-A's description has it: onto a canvas, cut out, resized."""
    frequency, time = x.shape[2:]
    high, wide = int(canvas[0] * frequency), int(canvas[1] * time)
    whole = x.new_zeros(1, 1, high, wide)
    top, left = (high - frequency) // 2, (wide - time) // 2
    whole[0, :, top : top + frequency, left : left + time] = x[row]
    h = min(max(1, int(crop.height[row] * frequency)), high)
    w = min(max(1, int(crop.width[row] * time)), wide)
    i, j = int(crop.place[row, 0] * (high - h + 1)), int(crop.place[row, 1] * (wide - w + 1))
    part = whole[:, :, i : i + h, j : j + w]
    return F.interpolate(part, (frequency, time), mode="bicubic", align_corners=True)[0]


@pytest.mark.parametrize("canvas", [(1.0, 1.5), (1.0, 1.0), (1.3, 1.7)])
def test_resize_crops_equal_explicit_slices(canvas: tuple[float, float]) -> None:
    x = spectrograms(32)
    crop = sample_resize_crop(32, generator(0))
    made = apply_resize_crop(x, crop, canvas)
    for row in range(32):
        assert torch.allclose(made[row], cropped_by_slicing(x, crop, row, canvas), atol=2e-4), row


def test_a_crop_of_the_whole_changes_nothing() -> None:
    x, one = spectrograms(), torch.ones(4)
    assert torch.allclose(apply_resize_crop(x, ResizeCrop(one, one, torch.zeros(4, 2)), (1.0, 1.0)), x, atol=1e-5)


def test_heights_and_widths_are_uniform() -> None:
    crop = sample_resize_crop(20_000, generator(0))
    for drawn in (crop.height, crop.width):
        assert drawn.min() >= 0.6 and drawn.max() <= 1.5
        assert drawn.mean().item() == pytest.approx(1.05, abs=0.01)


def test_the_fader_adds_a_line_over_time() -> None:
    x, ends = spectrograms(), sample_fader(4, generator(0))
    line = ends.numpy()[:, :1] + (ends.numpy()[:, 1:] - ends.numpy()[:, :1]) * np.arange(32) / 31
    assert np.abs((apply_fader(x, ends) - x).numpy() - line[:, None, None, :]).max() < 1e-5
    many = sample_fader(20_000, generator(0), 0.5)
    assert many.min() >= -0.5 and many.max() <= 0.5 and abs(many.mean()) < 0.01


def made_views(n: int = 4, mean: float = 0.4, std: float = 0.1, **changes: object) -> list[torch.Tensor]:
    views = SoundViews([SoundView(**changes)] * 2, (64, 32), (mean,), (std,))  # type: ignore[arg-type]
    return views.of_images(levels(n), generator(3))


def levels(n: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 65536, (n, 1, 64, 32)).astype(np.uint16))


def test_all_views_together_have_mean_0_and_variance_1() -> None:
    views = torch.cat(made_views(16))
    assert abs(views.mean()) < 1e-4 and views.std().item() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(torch.cat(standardised([torch.full((2, 1, 4, 4), 3.0)])), torch.zeros(2, 1, 4, 4))


def test_nothing_done_is_the_normalised_spectrogram() -> None:
    off = {"mixup": 0.0, "crop_height": (1.0, 1.0), "crop_width": (1.0, 1.0), "standardise": False}
    for view in made_views(**off):
        expected = (levels(4).float() / 65535 - 0.4) / 0.1
        assert torch.allclose(view, expected, atol=1e-4)


def test_two_views_of_a_sound_differ_and_the_same_draws_repeat() -> None:
    first, second = made_views()
    assert (first - second).abs().mean() > 0.1
    again, _ = made_views()
    assert torch.equal(first, again)


@pytest.mark.parametrize("table", list(SOUND_RECIPES))
def test_a_process_makes_its_share_as_one_would_have(table: str) -> None:
    """But for what is standardised, which looks over the batch and is averaged over the processes."""
    rows = [SoundView(**{**vars(view), "standardise": False}) for view in SOUND_RECIPES[table]]
    make = SoundViews(rows, (64, 32), (0.4,), (0.1,))
    mixed = sum(view.mixup > 0 for view in rows)
    crops = [levels(8, seed) for seed in range(len(rows) + mixed)]
    whole = make.of_crops(crops, generator(5))
    part = make.of_crops([crop[4:] for crop in crops], generator(5), Within(4, 8))
    for one, other in zip(whole, part, strict=True):
        assert torch.allclose(one[4:], other, atol=1e-5)


def test_cuts_are_drawn_before_everything_else() -> None:
    """So that the process that cuts and the one that mixes agree without speaking."""
    views = SOUND_RECIPES["byol_a_v2"]
    first, second = generator(1), generator(1)
    cuts = sample_cuts(views, 6, first)
    again = sample_cuts(views, 6, second)
    assert all(torch.equal(a, b) for x, y in zip(cuts, again, strict=True) for a, b in zip(x, y, strict=True))
    a, b = (sample_sound(6, generator, views[0], (64, 32)) for generator in (first, second))
    assert torch.equal(a.share, b.share) and torch.equal(a.fader, b.fader)


def test_the_tilt_adds_a_line_over_the_bands() -> None:
    x, ends = spectrograms(), sample_fader(4, generator(0))
    line = ends.numpy()[:, :1] + (ends.numpy()[:, 1:] - ends.numpy()[:, :1]) * np.arange(64) / 63
    assert np.abs((apply_tilt(x, ends) - x).numpy() - line[:, None, :, None]).max() < 1e-5


def powers(n: int = 4) -> torch.Tensor:
    """Of a sound that comes after silence: log(1 + p), from 0 to 20."""
    x = 20 * torch.rand((n, 1, 64, 32), generator=generator(7))
    x[..., :8] = 0
    return x


def test_a_gain_is_that_of_the_waveform() -> None:
    """A waveform of twice the amplitude has four times the power, and the silence around it stays silent."""
    waveform = torch.zeros(1, 8_000)
    waveform[:, 3_000:6_000] = 0.1 * torch.randn(3_000, generator=generator(1))
    quiet, loud = (SPAN * to_levels(LogMel()(a * waveform)).double() for a in (1, 2))
    assert torch.allclose(apply_gain(quiet, torch.tensor([np.log(4.0)])), loud, atol=1e-3)
    assert loud.min() == 0


def test_gains_are_uniform_in_decibels() -> None:
    gain = sample_gain(20_000, generator(0), 10.0)
    assert gain.abs().max() <= np.log(10) and gain.abs().mean().item() == pytest.approx(np.log(10) / 2, abs=0.02)


def test_a_noise_adds_its_power() -> None:
    x, noise = powers(), sample_noise(4, generator(0), (64, 32), p=1.0)
    place = np.linspace(0, 3, 64)
    for row, drawn in enumerate(x.double().numpy()[:, 0]):
        bands = np.interp(place, np.arange(4), noise.bands[row].numpy())
        level = drawn.max() - noise.below[row].item() + bands[:, None] + noise.uneven[row].numpy()
        expected = np.log(np.exp(drawn) + np.exp(level))
        assert np.abs(apply_noise(x, noise)[row, 0].numpy() - expected).max() < 1e-4


def test_a_noise_is_as_far_below_and_as_frequent_as_asked_for() -> None:
    below = sample_noise(20_000, generator(0), (0, 0), p=0.3, snr=(10.0, 30.0)).below
    there = below[below.isfinite()] * 10 / np.log(10)
    assert len(there) / 20_000 == pytest.approx(0.3, abs=0.02)
    assert there.min() >= 10 and there.max() <= 30 and there.mean().item() == pytest.approx(20, abs=0.3)


def test_without_a_noise_a_sound_stays_as_it_is() -> None:
    assert torch.equal(apply_noise(powers(), sample_noise(4, generator(0), (64, 32), p=0.0)), powers())
