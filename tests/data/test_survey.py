"""A look at a sample: sizes, statistics and full scale, which decide a run's defaults."""

import pytest
import torch
from decoded import Decoded
from torch import Tensor

from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.data import survey as module
from ownlatent.data.resident import Resident
from ownlatent.data.survey import survey
from ownlatent.errors import OwnlatentError


def noise(shape: tuple[int, ...], high: int = 256, dtype: torch.dtype = torch.uint8, seed: int = 0) -> Tensor:
    return torch.randint(0, high, shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_colour_of_eight_bits_has_imagenets_statistics() -> None:
    """As in the papers, whatever the images."""
    seen = survey(Resident(torch.zeros(20, 3, 12, 10, dtype=torch.uint8)))
    assert (seen.mean, seen.std, seen.peak) == (IMAGENET_MEAN, IMAGENET_STD, 255)
    assert (seen.channels, seen.side, seen.bytes, seen.count, seen.skipped) == (3, 10, 20 * 3 * 12 * 10, 20, {})


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_other_channels_are_measured_each(channels: int) -> None:
    images = noise((30, channels, 12, 10))
    images = images // torch.arange(1, channels + 1, dtype=torch.uint8).view(-1, 1, 1)
    seen = survey(Resident(images))
    x = images.double() / 255
    assert (seen.channels, seen.peak, seen.bytes) == (channels, 255, images.numel())
    torch.testing.assert_close(torch.tensor(seen.mean).double(), x.mean((0, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(seen.std).double(), x.transpose(0, 1).flatten(1).std(1), atol=0, rtol=1e-3)


@pytest.mark.parametrize(
    ("largest", "peak"),
    [(65535, 65535), (32768, 65535), (4095, 4095), (4000, 4095), (4096, 8191), (1023, 1023), (255, 511), (3, 511)],
)
def test_full_scale_of_sixteen_bits_is_the_smallest_that_holds_the_sample(largest: int, peak: int) -> None:
    """A camera's 10, 12 or 14 bits are not dark pictures of 16."""
    images = noise((16, 2, 8, 8), largest + 1, torch.uint16)
    images[11, 1, 3, 5] = largest
    seen = survey(Resident(images))
    assert seen.peak == peak and seen.bytes == 16 * 2 * 8 * 8 * 2
    x = images.double() / peak
    torch.testing.assert_close(torch.tensor(seen.mean).double(), x.mean((0, 2, 3)), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(seen.std).double(), x.transpose(0, 1).flatten(1).std(1), atol=0, rtol=1e-3)


def test_colour_of_sixteen_bits_is_measured() -> None:
    images = noise((16, 3, 8, 8), 4096, torch.uint16)
    seen = survey(Resident(images))
    assert seen.peak == 4095 and seen.mean != IMAGENET_MEAN
    assert all(abs(mean - 0.5) < 0.05 for mean in seen.mean)


def test_the_largest_value_may_lie_anywhere() -> None:
    """Statistics look at some of the pixels, the peak at all."""
    images = torch.zeros(1, 1, 300, 300, dtype=torch.uint16)
    images[0, 0, 151, 7] = 5000
    assert survey(Resident(images)).peak == 8191


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 1, 9, 9)])
def test_flat_images_can_be_divided_by_their_deviation(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """Also a single pixel, whose deviation is no number."""
    seen = survey(Resident(torch.full(shape, 51, dtype=dtype)))
    assert seen.mean == (round(51 / seen.peak, 5),) and seen.std == (0.001,)


def test_sizes() -> None:
    """The shorter side at the median; how much memory images of different sizes take is not known."""
    sizes = [(10, 99), (50, 20), (30, 30), (41, 40), (90, 80)]
    seen = survey(Decoded([noise((3, *size)) for size in sizes]))
    assert seen.side == 30 and seen.bytes is None


def test_unreadable_images_are_counted_and_named() -> None:
    images: list[Tensor | None] = [noise((3, 8, 8))] * 10
    images[0] = images[7] = None
    seen = survey(Decoded(images))
    assert seen.count == 10
    assert seen.skipped == {"array 0": "nothing there", "array 7": "nothing there"}
    assert seen.bytes == 10 * 3 * 8 * 8


def test_nothing_readable_is_an_error_of_one_line() -> None:
    with pytest.raises(OwnlatentError, match=r"no image of a sample of arrays can be read \(nothing there\)") as caught:
        survey(Decoded([None] * 3))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("count", [1, 511, 513, 1024, 100_000])
def test_a_sample_is_spread_over_the_source(count: int) -> None:
    source = Decoded([noise((1, 4, 4))] * count)
    seen = survey(source)
    assert seen.count == len(source.asked) == len(set(source.asked)) < 1024
    assert min(source.asked) == 0 and max(source.asked) >= count - 1 - count // 512
    assert seen.bytes == count * 16


def test_large_images_are_looked_at_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """But at 16 of them at least, however large."""
    monkeypatch.setattr(module, "_LOOKED", 30 * 48)
    source = Decoded([noise((3, 4, 4))] * 200)
    assert survey(source).count == 31
    monkeypatch.setattr(module, "_LOOKED", 1)
    # An unreadable one does not count among the sixteen, and where it must lie to be met first is seen by asking.
    images = [noise((3, 4, 4))] * 201
    survey(every := Decoded(images))
    images[every.asked[0]] = None
    assert survey(Decoded(images)).count == 17


def test_images_are_looked_at_as_they_are() -> None:
    """Channels side by side in memory or not: the statistics are of channels."""
    images = noise((8, 4, 9, 7))
    images[:, 2] = 255
    apart = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]
    assert survey(Decoded(apart)) == survey(Decoded(list(images)))
    assert survey(Decoded(apart)).mean[2] == 1


def test_a_full_sample_is_not_the_beginning_alone() -> None:
    """Large images fill the sample early: those at the end must still be seen, or bright ones would be cut off."""
    dark, bright = (torch.full((1, 3000, 3000), value, dtype=torch.uint16) for value in (900, 60_000))
    assert survey(Decoded([dark] * 200 + [bright] * 200)).peak == 65535
