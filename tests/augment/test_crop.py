"""Crops and flips against Pillow's resize and torchvision's random resized crop."""

from math import log, sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import RandomResizedCrop

from ownlatent.augment.crop import apply_crop, apply_flip, resize_weights, sample_crop, sample_flip

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


@pytest.mark.parametrize("size", [8, 24, 64])
def test_crop_equals_pillow_up_to_its_rounding(size: int):
    """Pillow rounds to whole levels twice, after the columns and after the rows: at most one level together."""
    images = noise(len(BOXES))
    ours = apply_crop(images, torch.tensor(BOXES), size)
    for image, (top, left, height, width), result in zip(images, BOXES, ours, strict=True):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        cut = picture.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
        expected = torch.from_numpy(np.array(cut)).permute(2, 0, 1).float()
        assert (result - expected).abs().max() <= 1.001


@pytest.mark.parametrize("size", [8, 24, 64])
def test_crop_equals_torch_with_antialiasing(size: int):
    """The same filter in float: agreement to float32's rounding of values up to 255."""
    images = noise(len(BOXES))
    ours = apply_crop(images, torch.tensor(BOXES), size)
    for image, (top, left, height, width), result in zip(images, BOXES, ours, strict=True):
        cut = image[None, :, top : top + height, left : left + width].float()
        expected = F.interpolate(cut, size=(size, size), mode="bilinear", antialias=True)[0]
        torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)


def test_enlarging_is_plain_bilinear_interpolation():
    """When the box is smaller than the result there is nothing to smooth."""
    images, boxes = noise(3), [(0, 0, 20, 20), (15, 30, 25, 26), (7, 9, 2, 31)]
    ours = apply_crop(images, torch.tensor(boxes), 32)
    for image, (top, left, height, width), result in zip(images, boxes, ours, strict=True):
        cut = image[None, :, top : top + height, left : left + width].float()
        expected = F.interpolate(cut, size=(32, 32), mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(result, expected, atol=2e-3, rtol=0)


def test_crop_at_its_own_size_is_exact():
    images = noise(2)
    ours = apply_crop(images, torch.tensor([(3, 4, 16, 16), (24, 40, 16, 16)]), 16)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours[0], images[0, :, 3:19, 4:20].float(), atol=1e-4, rtol=0)
    torch.testing.assert_close(ours[1], images[1, :, 24:40, 40:56].float(), atol=1e-4, rtol=0)


def test_crop_sees_nothing_outside_its_box():
    images = noise(1)
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
    boxes = sample_crop(20_000, height, width, torch.Generator().manual_seed(0))
    top, left, h, w = boxes.unbind(1)
    assert boxes.dtype == torch.int64
    assert (h >= 1).all() and (w >= 1).all()
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + h <= height).all() and (left + w <= width).all()


def test_boxes_reach_both_edges():
    """The last admissible place must be drawn too."""
    boxes = sample_crop(5_000, 32, 32, torch.Generator().manual_seed(0), scale=(0.5, 0.6))
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
    ours = sample_crop(50_000, height, width, torch.Generator().manual_seed(0), scale, ratio).double().numpy()
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
    boxes = sample_crop(40_000, 1000, 1000, torch.Generator().manual_seed(0), scale=(0.1, 0.3))
    share = (boxes[:, 3] > boxes[:, 2]).double().mean().item()
    assert share == pytest.approx(0.5, abs=5 * 0.5 / sqrt(40_000))


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (33, 97)])
def test_fallback_is_torchvisions_central_crop(height: int, width: int):
    """No box of the whole area fits an image outside the ratios: the largest central box is taken."""
    ratio = (3 / 4, 4 / 3)
    expected = RandomResizedCrop.get_params(torch.empty(1, height, width), [1.0, 1.0], list(ratio))
    boxes = sample_crop(50, height, width, torch.Generator().manual_seed(0), scale=(1.0, 1.0), ratio=ratio)
    assert boxes.tolist() == [list(expected)] * 50


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
