"""Blur against a Gaussian written out as a sum over pixels."""

from math import exp, sqrt

import numpy as np
import pytest
import torch

from ownlatent.augment.blur import Blur, apply_blur, blur_window, sample_blur


def slow_blur(image: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    """A two-dimensional Gaussian over a square window, edges mirrored without repeating the edge pixel."""
    height, width = image.shape
    padded = np.pad(image.astype(np.float64), radius, mode="reflect")
    result, total = np.zeros((height, width)), 0.0
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            weight = exp(-(dx * dx + dy * dy) / (2 * sigma * sigma))
            total += weight
            result += weight * padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
    return result / total


def all_of(*sigmas: float) -> Blur:
    return Blur(torch.ones(len(sigmas), dtype=torch.bool), torch.tensor(sigmas))


@pytest.mark.parametrize("window", [3, 9, 23])
def test_blur_equals_a_gaussian_with_each_images_own_sigma(window: int):
    """Channels too: a mix-up of images or channels in the grouped convolution would show."""
    sigmas = (0.1, 0.5, 1.3, 2.0)
    x = torch.rand((4, 3, 30, 26), generator=torch.Generator().manual_seed(0))
    result = apply_blur(x, all_of(*sigmas), window)
    for i, sigma in enumerate(sigmas):
        for channel in range(3):
            expected = slow_blur(x[i, channel].numpy(), sigma, window // 2)
            np.testing.assert_allclose(result[i, channel].numpy(), expected, atol=2e-6)


def test_point_spreads_with_variance_sigma_squared():
    x = torch.zeros(1, 1, 41, 41)
    x[0, 0, 20, 20] = 1
    spread = apply_blur(x, all_of(1.5), 23)[0, 0]
    offset = torch.arange(-20, 21).float()
    assert spread.sum().item() == pytest.approx(1, abs=1e-5)
    assert (spread.sum(0) * offset**2).sum().item() == pytest.approx(1.5**2, rel=1e-4)
    assert (spread.sum(1) * offset**2).sum().item() == pytest.approx(1.5**2, rel=1e-4)
    torch.testing.assert_close(spread, spread.T)


def test_constant_image_stays_constant():
    x = torch.full((2, 3, 16, 16), 0.37)
    torch.testing.assert_close(apply_blur(x, all_of(0.1, 2.0), 9), x)


def test_images_that_are_not_chosen_pass_exactly():
    x = torch.rand(4, 3, 16, 16)
    chosen = torch.tensor([False, True, False, True])
    result = apply_blur(x, Blur(chosen, torch.full((4,), 1.0)), 9)
    assert torch.equal(result[~chosen], x[~chosen])
    assert ((result - x)[chosen].abs().amax((1, 2, 3)) > 0.05).all()


def test_images_smaller_than_the_window_are_blurred_within_their_size():
    """A mirror can show an image of n pixels n - 1 pixels far at most."""
    x = torch.rand((1, 1, 4, 6), generator=torch.Generator().manual_seed(0))
    result = apply_blur(x, all_of(1.0), 23)
    np.testing.assert_allclose(result[0, 0].numpy(), slow_blur(x[0, 0].numpy(), 1.0, 3), atol=2e-6)


def test_single_channel():
    x = torch.rand((2, 1, 12, 12), generator=torch.Generator().manual_seed(0))
    result = apply_blur(x, all_of(0.8, 1.6), 5)
    np.testing.assert_allclose(result[1, 0].numpy(), slow_blur(x[1, 0].numpy(), 1.6, 2), atol=2e-6)


@pytest.mark.parametrize(("size", "window"), [(224, 23), (160, 17), (96, 9), (64, 7), (32, 3), (16, 1)])
def test_window_is_a_tenth_of_the_side_made_odd(size: int, window: int):
    """23 at 224 is the paper's."""
    assert blur_window(size) == window


def test_window_of_one_pixel_does_nothing():
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(apply_blur(x, all_of(1.0, 2.0), 1), x)


def test_draws_are_uniform_and_chosen_with_their_probability():
    n = 40_000
    blur = sample_blur(n, torch.Generator().manual_seed(0), p=0.1, sigma=(0.1, 2.0))
    assert blur.chosen.double().mean().item() == pytest.approx(0.1, abs=5 * sqrt(0.09 / n))
    assert blur.sigma.min() >= 0.1 and blur.sigma.max() <= 2.0
    assert blur.sigma.double().mean().item() == pytest.approx(1.05, abs=5 * 1.9 / sqrt(12 * n))
    assert blur.sigma.double().std().item() == pytest.approx(1.9 / sqrt(12), rel=0.02)
    assert sample_blur(100, torch.Generator().manual_seed(0), p=1.0).chosen.all()
    assert not sample_blur(100, torch.Generator().manual_seed(0), p=0.0).chosen.any()
