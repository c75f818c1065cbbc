"""Colour operations against torchvision, on Pillow images and on float tensors."""

from collections.abc import Callable
from itertools import permutations
from math import sqrt

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from torch import Tensor

from ownlatent.augment.colour import (
    Jitter,
    apply_grayscale,
    apply_jitter,
    apply_solarize,
    luma,
    sample_grayscale,
    sample_jitter,
    sample_solarize,
)

NEUTRAL = (1.0, 1.0, 1.0, 0.0)
OPERATIONS: list[Callable] = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
ONE = [  # (number of the operation, factor)
    (0, 0.6),
    (0, 1.4),
    (1, 0.6),
    (1, 1.4),
    (2, 0.8),
    (2, 1.2),
    (2, 0.0),
    (3, 0.1),
    (3, -0.1),
    (3, 0.5),
]


def levels(batch: int = 2, seed: int = 0) -> Tensor:
    """Uint8 images with gradients, saturated colours, grays and noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (batch, 3, 24, 32), generator=generator)
    images[:, 0, :8] = torch.arange(0, 256, 8)
    images[:, :, 8:12] = images[:, :1, 8:12]  # gray rows
    images[:, :, 12:14], images[:, 2, 14:16] = 0, 255
    return images.to(torch.uint8)


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    """Back to (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def only(number: int, factor: float, batch: int) -> Jitter:
    """A jitter of one operation, the others neutral."""
    factors = torch.tensor([NEUTRAL]).repeat(batch, 1)
    factors[:, number] = factor
    return Jitter(factors, torch.arange(4).repeat(batch, 1))


def test_grayscale_equals_torchvision():
    """Pillow rounds to whole levels, and its weights have a fourth digit that BYOL's lack."""
    images = levels()
    ours = apply_grayscale(images.float() / 255, torch.tensor([True, True]))
    for image, result in zip(images, ours, strict=True):
        expected = tensor(TF.to_grayscale(pillow(image), num_output_channels=3))
        assert (result - expected).abs().max() <= 0.55 / 255
        torch.testing.assert_close(result, TF.rgb_to_grayscale(image.float() / 255, 3), atol=1e-6, rtol=0)


def test_grayscale_only_where_chosen():
    x = levels(3).float() / 255
    chosen = torch.tensor([False, True, False])
    result = apply_grayscale(x, chosen)
    assert torch.equal(result[~chosen], x[~chosen])
    assert torch.equal(result[1, 0], result[1, 1]) and torch.equal(result[1, 0], result[1, 2])


def test_luma_of_pure_colours():
    pure = torch.eye(3).view(3, 3, 1, 1)
    torch.testing.assert_close(luma(pure).flatten(), torch.tensor([0.2989, 0.5870, 0.1140]))


def test_solarize_equals_torchvision():
    """Every level: 0 to 127 stay, 128 to 255 are inverted."""
    image = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    result = apply_solarize((image.float() / 255).unsqueeze(0), torch.tensor([True]))[0]
    torch.testing.assert_close(result, tensor(TF.solarize(pillow(image), 128)), atol=1e-6, rtol=0)


def test_solarize_only_where_chosen():
    x = levels(3).float() / 255
    chosen = torch.tensor([True, False, True])
    result = apply_solarize(x, chosen)
    assert torch.equal(result[1], x[1])
    assert torch.equal(result[chosen], torch.where(x[chosen] < 0.5, x[chosen], 1 - x[chosen]))


@pytest.mark.parametrize(("number", "factor"), ONE)
def test_each_operation_equals_torchvision_on_pillow_images(number: int, factor: float):
    """Pillow truncates to whole levels (and its hue to 1/256 of a turn): about one level in the mean."""
    images = levels()
    # torchvision turns a Pillow image's hue by whole bytes, int(255 factor) of 256: ask for the same turn.
    given = int(factor * 255) / 256 if number == 3 else factor
    ours = apply_jitter(images.float() / 255, only(number, given, 2))
    for image, result in zip(images, ours, strict=True):
        expected = tensor(OPERATIONS[number](pillow(image), factor))
        assert (result - expected).abs().mean() <= 1.1 / 255


@pytest.mark.parametrize(("number", "factor"), ONE)
def test_each_operation_equals_torchvision_on_tensors(number: int, factor: float):
    """The same formulas without rounding to levels: agreement to float32."""
    images = levels().float() / 255
    ours = apply_jitter(images, only(number, factor, 2))
    for image, result in zip(images, ours, strict=True):
        torch.testing.assert_close(result, OPERATIONS[number](image, factor), atol=5e-6, rtol=0)


def test_every_order_is_honoured_per_image():
    """One image in all 24 orders in one batch, against torchvision's operations one after the other."""
    image = levels(1)[0].float() / 255
    factors = (1.3, 0.7, 1.2, 0.08)
    orders = list(permutations(range(4)))
    jitter = Jitter(torch.tensor([factors]).repeat(24, 1), torch.tensor(orders))
    results = apply_jitter(image.repeat(24, 1, 1, 1), jitter)
    for order, result in zip(orders, results, strict=True):
        expected = image
        for number in order:
            expected = OPERATIONS[number](expected, factors[number])
        torch.testing.assert_close(result, expected, atol=2e-5, rtol=0)
    assert (results[0] - results[orders.index((1, 0, 2, 3))]).abs().max() > 1e-2  # order does matter here


def test_each_image_has_its_own_factors():
    """A batch equals its images one by one."""
    x = levels(6).float() / 255
    jitter = sample_jitter(6, torch.Generator().manual_seed(0), p=1.0)
    together = apply_jitter(x, jitter)
    for i in range(6):
        alone = apply_jitter(x[i : i + 1], Jitter(jitter.factors[i : i + 1], jitter.order[i : i + 1]))
        torch.testing.assert_close(together[i : i + 1], alone, atol=1e-6, rtol=0)


def test_neutral_draw_is_the_identity():
    x = levels(4).float() / 255
    jitter = sample_jitter(4, torch.Generator().manual_seed(0), p=0.0)
    assert jitter.factors.tolist() == [list(NEUTRAL)] * 4
    assert torch.equal(apply_jitter(x, jitter), x)


def test_jitter_leaves_its_input_alone():
    x = levels(2).float() / 255
    before = x.clone()
    apply_jitter(x, sample_jitter(2, torch.Generator().manual_seed(0), p=1.0))
    assert torch.equal(x, before)


def test_hue_by_a_full_turn_is_the_identity():
    x = levels().float() / 255
    torch.testing.assert_close(apply_jitter(x, only(3, 1.0, 2)), x, atol=5e-6, rtol=0)


def test_hue_by_thirds_of_a_turn_permutes_the_primaries():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    for turns, colour in ((1 / 3, [0.0, 1.0, 0.0]), (-1 / 3, [0.0, 0.0, 1.0]), (0.5, [0.0, 1.0, 1.0])):
        torch.testing.assert_close(
            apply_jitter(red, only(3, turns, 1)).flatten(), torch.tensor(colour), atol=1e-5, rtol=0
        )


def test_hue_keeps_grays_and_the_range():
    gray = torch.linspace(0, 1, 12).view(1, 1, 3, 4).expand(1, 3, 3, 4)
    torch.testing.assert_close(apply_jitter(gray, only(3, 0.3, 1)), gray)
    turned = apply_jitter(levels().float() / 255, only(3, 0.3, 2))
    assert turned.min() >= 0 and turned.max() <= 1


def test_result_stays_in_range_under_strong_jitter():
    x = levels(32).float() / 255
    jitter = sample_jitter(32, torch.Generator().manual_seed(0), 1.0, 1.0, 1.0, 0.5, p=1.0)
    result = apply_jitter(x, jitter)
    assert result.min() >= 0 and result.max() <= 1


def test_single_channel_has_brightness_and_contrast_only():
    x = torch.rand((2, 1, 6, 5), generator=torch.Generator().manual_seed(0))
    jitter = Jitter(torch.tensor([[1.2, 0.7, 0.1, 0.4]]).repeat(2, 1), torch.tensor([[3, 0, 2, 1], [1, 2, 0, 3]]))
    result = apply_jitter(x, jitter)
    bright = (1.2 * x[0]).clamp(0, 1)
    torch.testing.assert_close(result[0], (bright.mean() + 0.7 * (bright - bright.mean())).clamp(0, 1))
    flat = (x[1].mean() + 0.7 * (x[1] - x[1].mean())).clamp(0, 1)
    torch.testing.assert_close(result[1], (1.2 * flat).clamp(0, 1))
    assert torch.equal(apply_grayscale(x, torch.tensor([True, True])), x)


def test_draws_differ_from_image_to_image_and_stay_in_their_ranges():
    n, strengths = 20_000, (0.4, 0.4, 0.2, 0.1)
    jitter = sample_jitter(n, torch.Generator().manual_seed(0), *strengths, p=0.8)
    chosen = (jitter.factors != torch.tensor(NEUTRAL)).any(1)
    assert chosen.double().mean().item() == pytest.approx(0.8, abs=5 * sqrt(0.8 * 0.2 / n))
    drawn = jitter.factors[chosen]
    for column, (strength, neutral) in enumerate(zip(strengths, NEUTRAL, strict=True)):
        values = drawn[:, column]
        assert values.unique().numel() > 0.99 * len(values)
        assert values.min() >= neutral - strength - 1e-6 and values.max() <= neutral + strength + 1e-6
        # A uniform law on neutral +- strength: its mean and its standard deviation, strength / sqrt(3).
        error = strength / sqrt(3) / sqrt(len(values))
        assert values.double().mean().item() == pytest.approx(neutral, abs=5 * error)
        assert values.double().std().item() == pytest.approx(strength / sqrt(3), rel=0.03)


def test_every_order_is_drawn_equally_often():
    n = 24_000
    order = sample_jitter(n, torch.Generator().manual_seed(0)).order
    assert torch.equal(order.sort(1).values, torch.arange(4).expand(n, 4))
    codes = (order * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = codes.unique(return_counts=True)[1]
    assert len(counts) == 24
    assert (counts - 1000).abs().max() < 5 * sqrt(1000)


def test_factors_cannot_be_negative_nor_hues_exceed_half_a_turn():
    factors = sample_jitter(5_000, torch.Generator().manual_seed(0), 2.0, 2.0, 2.0, 0.9, p=1.0).factors
    assert (factors[:, :3] >= 0).all() and (factors[:, :3] <= 3).all() and factors[:, :3].max() > 2.5
    assert (factors[:, 3].abs() <= 0.5).all()


@pytest.mark.parametrize("sample", [sample_grayscale, sample_solarize])
def test_probability_of_grayscale_and_solarize(sample: Callable[..., Tensor]):
    generator = torch.Generator().manual_seed(0)
    assert not sample(100, generator, p=0.0).any()
    assert sample(100, generator, p=1.0).all()
    share = sample(40_000, generator, p=0.2).double().mean().item()
    assert share == pytest.approx(0.2, abs=5 * sqrt(0.2 * 0.8 / 40_000))
