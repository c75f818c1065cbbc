"""Crops and flips against Pillow's resize and torchvision's random resized crop."""

from math import log, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from ownlatent.augment.crop import (
    Crop,
    apply_crop,
    apply_flip,
    boxes_of,
    boxes_of_views,
    crop_image,
    resize_weights,
    sample_crop,
    sample_flip,
)

BOXES = [  # (top, left, height, width) in an image of 40 x 56
    (0, 0, 40, 56),
    (3, 5, 30, 41),
    (10, 20, 24, 24),
    (39, 55, 1, 1),
    (0, 30, 12, 17),
    (21, 0, 7, 50),
    (5, 40, 33, 3),
]


def noise(batch: int, channels: int = 3, height: int = 40, width: int = 56, seed: int = 0) -> Tensor:
    """Uint8 noise: the hardest image for an interpolation."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, height, width), generator=generator, dtype=torch.uint8)


def draw(
    n: int,
    height: int,
    width: int,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Tensor:
    """Boxes (n, 4) in images of one size, from seed 0."""
    return boxes_of(sample_crop(n, torch.Generator().manual_seed(0), scale, ratio), height, width)


@pytest.mark.parametrize("size", [8, 24, 64])
def test_crop_equals_pillow_up_to_its_rounding(size: int):
    """Pillow rounds to whole levels twice, after the columns and after the rows: at most one level together."""
    images = noise(len(BOXES))
    ours = apply_crop(images.float(), torch.tensor(BOXES), size)
    for image, (top, left, height, width), result in zip(images, BOXES, ours, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        cut = picture.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(cut)).permute(2, 0, 1).float()
        assert (result - expected).abs().max() <= 1.001


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_whole_numbers_are_rounded_to_whole_numbers(dtype: torch.dtype):
    """As Pillow does it; floats are not."""
    images = noise(len(BOXES)).to(torch.int32) * (1 if dtype == torch.uint8 else 257)
    ours = apply_crop(images.to(dtype), torch.tensor(BOXES), 24)
    exact = apply_crop(images.float(), torch.tensor(BOXES), 24)
    assert ours.dtype == torch.float32 and torch.equal(ours, exact.round())
    assert not torch.equal(exact, exact.round())


@pytest.mark.parametrize("size", [8, 24, 64])
def test_crop_equals_torch_with_antialiasing(size: int):
    """The same filter in float: agreement to float32's rounding of values up to 255."""
    images = noise(len(BOXES)).float()
    ours = apply_crop(images, torch.tensor(BOXES), size)
    for image, (top, left, height, width), result in zip(images, BOXES, ours, strict=True):
        cut = image[None, :, top : top + height, left : left + width].float()
        expected = F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)


def test_enlarging_is_plain_bilinear_interpolation():
    """When the box is smaller than the result there is nothing to smooth."""
    images, boxes = noise(3).float(), [(0, 0, 20, 20), (15, 30, 25, 26), (7, 9, 2, 31)]
    ours = apply_crop(images, torch.tensor(boxes), 32)
    for image, (top, left, height, width), result in zip(images, boxes, ours, strict=True):
        cut = image[None, :, top : top + height, left : left + width].float()
        expected = F.interpolate(cut, size=(32, 32), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)


def test_crop_at_its_own_size_is_exact():
    images = noise(2).float()
    ours = apply_crop(images, torch.tensor([(3, 4, 16, 16), (24, 40, 16, 16)]), 16)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours[0], images[0, :, 3:19, 4:20], atol=1e-4, rtol=0)
    torch.testing.assert_close(ours[1], images[1, :, 24:40, 40:56], atol=1e-4, rtol=0)


def test_crop_sees_nothing_outside_its_box():
    images = noise(1).float()
    inside = torch.zeros(40, 56, dtype=torch.bool)
    inside[10:22, 20:35] = True
    altered = torch.where(inside, images, 255 - images)
    box = torch.tensor([(10, 20, 12, 15)])
    for size in (6, 40):
        assert torch.equal(apply_crop(images, box, size), apply_crop(altered, box, size))


def test_constant_image_stays_constant():
    x = torch.full((len(BOXES), 1, 40, 56), 37.0)
    torch.testing.assert_close(apply_crop(x, torch.tensor(BOXES), 20), torch.full((len(BOXES), 1, 20, 20), 37.0))


def test_interpolation_weights_are_shares():
    """Not negative, summing to one in every row, and zero outside the box."""
    weights = resize_weights(torch.tensor([3, 0]), torch.tensor([20, 2]), source=30, size=9)
    assert weights.shape == (2, 9, 30)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 9))
    assert not weights[0, :, :3].any() and not weights[0, :, 23:].any() and not weights[1, :, 2:].any()


def test_any_number_of_channels():
    for channels in (1, 2, 4):
        assert apply_crop(noise(1, channels), torch.tensor([BOXES[1]]), 24).shape == (1, channels, 24, 24)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (20, 60), (60, 20), (7, 200), (200, 7), (1, 1), (2, 3)])
def test_boxes_always_lie_inside_the_image(height: int, width: int):
    boxes = draw(20_000, height, width)
    top, left, h, w = boxes.unbind(1)
    assert boxes.dtype == torch.int64
    assert (h >= 1).all() and (w >= 1).all()
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()


def test_boxes_reach_both_edges():
    """The last admissible place must be drawn too."""
    boxes = draw(5_000, 32, 32, scale=(0.5, 0.6))
    for start, length in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        assert (start == 0).any() and (start + length == 32).any()


def largest_gap(a: np.ndarray, b: np.ndarray) -> float:
    """Kolmogorov and Smirnov's statistic: the largest difference of the two distribution functions."""
    grid = np.union1d(a, b)
    return float(
        np.abs(
            np.searchsorted(np.sort(a), grid, "right") / len(a) - np.searchsorted(np.sort(b), grid, "right") / len(b)
        ).max()
    )


@pytest.mark.parametrize(("height", "width", "scale"), [(96, 96, (0.08, 1.0)), (90, 140, (0.3, 1.0))])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: tuple[float, float]):
    """Area, aspect and place: at these counts a gap this large happens once in a million for equal laws."""
    ratio = (3 / 4, 4 / 3)
    ours = draw(50_000, height, width, scale, ratio).double().numpy()
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, scale, ratio) for _ in range(3_000)], dtype=float)
    bound = sqrt(-log(1e-6 / 2) / 2) * sqrt(1 / 50_000 + 1 / 3_000)
    for read in (
        lambda boxes: boxes[:, 2] * boxes[:, 3],
        lambda boxes: boxes[:, 3] / boxes[:, 2],
        lambda boxes: boxes[:, 0],
        lambda boxes: boxes[:, 1],
    ):
        assert largest_gap(read(ours), read(theirs)) < bound


def test_aspect_is_log_uniform():
    """As often wider than high as the reverse; uniform aspects would make 57 % wider."""
    boxes = draw(40_000, 1000, 1000, scale=(0.1, 0.3))
    share = (boxes[:, 3] > boxes[:, 2]).double().mean().item()
    assert share == pytest.approx(0.5, abs=5 * 0.5 / sqrt(40_000))


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (33, 97)])
def test_fallback_is_torchvisions_central_crop(height: int, width: int):
    """No box of the whole area fits an image outside the ratios: the largest central box is taken."""
    ratio = (3 / 4, 4 / 3)
    expected = RandomResizedCrop.get_params(torch.empty(1, height, width), [1.0, 1.0], list(ratio))
    boxes = draw(50, height, width, scale=(1.0, 1.0), ratio=ratio)
    assert boxes.tolist() == [list(expected)] * 50


@pytest.mark.parametrize("ratio", [(0.2, 0.4), (2.5, 5.0)])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1)])
def test_boxes_hold_a_pixel_at_least(height: int, width: int, ratio: tuple[float, float]):
    """The central box of an image that is one pixel wide would round to nothing."""
    top, left, h, w = draw(200, height, width, ratio=ratio).unbind(1)
    assert (h >= 1).all() and (w >= 1).all() and (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()


def test_the_last_place_is_inside_whatever_is_drawn():
    """The largest number below one, times any number of places, must not round up to a place too many."""
    count, last = 5_000, 1 - 2**-24
    side = torch.arange(1, count + 1)
    ones, place = torch.ones(count, 10), torch.full((count, 2), last)
    crop = Crop(
        (1 / side.double() ** 2).float().unsqueeze(1) * ones, ones, place, (1.0, 1.0)
    )  # one pixel of each image
    top, left, h, w = boxes_of(crop, side, side).unbind(1)
    assert (h == 1).all() and (w == 1).all()
    assert torch.equal(top, side - 1) and torch.equal(left, side - 1)


def test_boxes_in_images_of_many_sizes_are_those_of_each_size():
    """The sizes may differ within a batch, and a row is what it would be alone."""
    crop = sample_crop(200, torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    heights, widths = (torch.randint(1, 300, (200,), generator=generator) for _ in range(2))
    boxes = boxes_of(crop, heights, widths)
    for row in range(200):
        alone = boxes_of(crop.rows(slice(row, row + 1)), int(heights[row]), int(widths[row]))
        assert torch.equal(boxes[row : row + 1], alone)


@pytest.mark.parametrize("size", [8, 24, 64])
def test_one_image_of_sixteen_bits_is_cropped_as_a_batch(size: int):
    """To one of 65,535 levels: the two round floats of another order of summation."""
    images = (noise(len(BOXES)).to(torch.int32) * 257).to(torch.uint16)
    batch = apply_crop(images, torch.tensor(BOXES), size)
    for image, box, expected in zip(images, BOXES, batch, strict=True):
        alone = np.zeros((3, size, size), np.uint16)
        crop_image(image, box, alone)
        assert np.abs(alone.astype(np.float32) - expected.numpy()).max() <= 1


def test_flip_is_exact_and_only_where_chosen():
    x = torch.rand(4, 3, 5, 6)
    flip = torch.tensor([True, False, True, False])
    flipped = apply_flip(x, flip)
    assert torch.equal(flipped[flip], x[flip].flip(-1))
    assert torch.equal(flipped[~flip], x[~flip])
    assert torch.equal(apply_flip(flipped, flip), x)


def test_flip_probability():
    generator = torch.Generator().manual_seed(0)
    assert not sample_flip(100, generator, p=0.0).any()
    assert sample_flip(100, generator, p=1.0).all()
    assert sample_flip(40_000, generator).double().mean().item() == pytest.approx(0.5, abs=5 * 0.5 / sqrt(40_000))


def test_views_of_one_size_get_the_boxes_that_each_would_get():
    generator = torch.Generator().manual_seed(3)
    crops = [
        sample_crop(9, generator, (0.2, 1.0)),
        sample_crop(9, generator, (0.05, 0.4), (0.5, 2.0)),
        sample_crop(9, generator, (0.1, 0.3)),
    ]
    together = boxes_of_views(crops, 40, 57)
    for crop, boxes in zip(crops, together, strict=True):
        assert torch.equal(boxes, boxes_of(crop, 40, 57))
