"""The compiled chain behind the crop: each operation against torchvision or scipy, all of them against apply_view."""

from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as TF
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ownlatent.augment import views
from ownlatent.augment.blur import Blur, apply_blur
from ownlatent.augment.channels import suited_to
from ownlatent.augment.colour import Jitter, apply_grayscale, apply_jitter
from ownlatent.augment.crop import boxes_of, crop_image
from ownlatent.augment.kernels.view import finish
from ownlatent.augment.normalize import normalize
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import MultiView, apply_view, sample_crops, sample_view

NEUTRAL = (1.0, 1.0, 1.0, 0.0)
OPERATIONS: list[Callable] = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue]
LEVEL = 1 / 255


def run(
    crops: Tensor,
    flip: bool = False,
    factors: tuple[float, ...] = NEUTRAL,
    order: tuple[int, ...] = (0, 1, 2, 3),
    gray: bool = False,
    sigma: float = 0.0,
    window: int = 1,
    solarize: bool = False,
) -> Tensor:
    """The compiled chain on uint8 (n, C, S, S), the same for every image, not normalised: (n, C, S, S) in [0, 1]."""
    n, channels, size = crops.shape[:3]
    out = np.full((n, size, size, channels), np.nan, np.float32)
    finish(
        crops.numpy(),
        np.full(n, flip),
        np.tile(np.array(factors, np.float32), (n, 1)),
        np.tile(np.array(order), (n, 1)),
        np.full(n, gray),
        np.full(n, sigma, np.float32),
        window,
        np.full(n, solarize),
        np.zeros(channels, np.float32),
        np.ones(channels, np.float32),
        out,
    )
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def noise(batch: int, channels: int, height: int, width: int | None = None, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, height, width or height), generator=generator, dtype=torch.uint8)


def levels(batch: int = 2, size: int = 32) -> Tensor:
    """Uint8 images with gradients, saturated colours, grays and noise."""
    images = noise(batch, 3, size)
    images[:, 0, :8] = torch.arange(0, 256, 256 // size).to(torch.uint8)
    images[:, :, 8:12] = images[:, :1, 8:12]  # gray rows
    images[:, :, 12:14], images[:, 2, 14:16] = 0, 255
    return images


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def tensor(image: Image.Image) -> Tensor:
    """Back to (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def only(number: int, factor: float) -> tuple[float, ...]:
    """A jitter of one operation, the others neutral."""
    return (*NEUTRAL[:number], factor, *NEUTRAL[number + 1 :])


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_nothing_to_do_is_exact_to_the_level(channels: int):
    crops = noise(3, channels, 17)
    torch.testing.assert_close(run(crops), crops.float() / 255, atol=1e-7, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_flip_is_exact(channels: int):
    crops = noise(3, channels, 17)
    assert torch.equal(run(crops, flip=True), run(crops).flip(-1))
    if channels == 3:
        for image, result in zip(crops, run(crops, flip=True), strict=True):
            assert torch.equal((result * 255).round(), tensor(TF.hflip(pillow(image))).mul(255).round())


@pytest.mark.parametrize(
    ("number", "factor"),
    [(number, factor) for number in (0, 1, 2) for factor in (0.0, 0.2, 0.6, 0.8, 1.2, 1.4, 1.8)]
    + [(3, turns) for turns in (-0.5, -0.2, -0.1, 0.02, 0.1, 0.2, 0.5)],
)
def test_each_operation_of_the_jitter_equals_torchvision_on_pillow_images(number: int, factor: float):
    """Pillow truncates to whole levels (and its hue to 1/256 of a turn): about one level in the mean."""
    images = levels()
    # torchvision turns a Pillow image's hue by whole bytes, int(255 factor) of 256: ask for the same turn.
    given = int(factor * 255) / 256 if number == 3 else factor
    for image, result in zip(images, run(images, factors=only(number, given)), strict=True):
        expected = tensor(OPERATIONS[number](pillow(image), factor))
        assert (result - expected).abs().mean() <= 1.1 * LEVEL
        assert result.min() >= 0 and result.max() <= 1
        same_in_floats = OPERATIONS[number](image.float() / 255, given)
        torch.testing.assert_close(result, same_in_floats, atol=0.005 * LEVEL, rtol=0)


def test_every_order_is_honoured():
    image, factors = levels(1), (1.3, 0.7, 1.2, 0.08)
    for order in permutations(range(4)):
        expected = image[0].float() / 255
        for number in order:
            expected = OPERATIONS[number](expected, factors[number])
        torch.testing.assert_close(run(image, factors=factors, order=order)[0], expected, atol=0.01 * LEVEL, rtol=0)


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_other_channels_have_brightness_and_contrast_only(channels: int):
    crops, jitter = noise(2, channels, 16), (1.2, 0.7, 0.1, 0.4)
    defined = Jitter(torch.tensor([jitter]).repeat(2, 1), torch.tensor([[3, 0, 2, 1]]).repeat(2, 1))
    expected = apply_jitter(crops.float() / 255, defined)
    torch.testing.assert_close(run(crops, factors=jitter, order=(3, 0, 2, 1)), expected, atol=0.01 * LEVEL, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("size", [8, 224, 512])
def test_contrast_leaves_a_flat_image_alone(size: int, channels: int):
    """Its mean is a sum over all pixels, which in float32 alone would lose the last of 24 bits many times."""
    values = torch.arange(5, 256, 50, dtype=torch.uint8)[: 5 if size < 512 else 2]
    crops = values.view(-1, 1, 1, 1).expand(-1, channels, size, size).contiguous()
    flat = crops.float() / 255
    if channels == 3:  # the papers' weights of red, green and blue sum to 0.9999
        flat = 0.2 * flat + 0.8 * 0.9999 * flat
    torch.testing.assert_close(run(crops, factors=(1.0, 0.2, 1.0, 0.0)), flat, atol=0.01 * LEVEL, rtol=0)


def test_grayscale_equals_torchvision_on_pillow_images():
    """Pillow rounds to whole levels, and its weights have a fourth digit that BYOL's lack."""
    images = levels()
    for image, result in zip(images, run(images, gray=True), strict=True):
        assert (result - tensor(TF.to_grayscale(pillow(image), num_output_channels=3))).abs().max() <= 0.55 * LEVEL
        assert torch.equal(result[0], result[1]) and torch.equal(result[0], result[2])


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_grayscale_of_other_channels_is_their_mean(channels: int):
    crops = noise(2, channels, 16)
    expected = (crops.float() / 255).mean(1, keepdim=True).expand(-1, channels, -1, -1)
    torch.testing.assert_close(run(crops, gray=True), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(apply_grayscale(crops.float() / 255, torch.tensor([True, True])), expected)


def test_solarize_is_exact_to_the_level():
    """Every level: 0 to 127 stay, 128 to 255 are inverted."""
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    expected = tensor(TF.solarize(pillow(image[0]), 128))
    torch.testing.assert_close(run(image, solarize=True)[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("sigma", [0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.3, 1.7, 2.0])
@pytest.mark.parametrize(("size", "window"), [(32, 3), (64, 7), (96, 9), (224, 23)])
def test_blur_is_a_gaussian(size: int, window: int, sigma: float):
    """In the papers' window; at 224 px that holds five sigma, which is all there is of a Gaussian."""
    crops = noise(1, 3, size)
    (result,) = run(crops, sigma=sigma, window=window).double()
    reach = {"truncate": 12.0} if size == 224 else {"radius": window // 2}
    for channel, blurred in zip(crops[0].numpy(), result, strict=True):
        expected = gaussian_filter(channel / 255.0, float(np.float32(sigma)), mode="mirror", **reach)
        assert np.abs(blurred.numpy() - expected).max() <= 0.05 * LEVEL


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("channels", [1, 3, 13])
def test_blur_of_images_smaller_than_its_window(channels: int, size: int):
    """A mirror can show an image of n pixels n - 1 pixels far at most."""
    crops = noise(2, channels, size)
    for window in (3, 9, 23, 101):
        for sigma in (0.1, 1.0, 2.0, 30.0):
            blur = Blur(torch.ones(2, dtype=torch.bool), torch.full((2,), sigma))
            expected = apply_blur(crops.float() / 255, blur, window)
            torch.testing.assert_close(run(crops, sigma=sigma, window=window), expected, atol=0.01 * LEVEL, rtol=0)


@pytest.mark.parametrize(("size", "window"), [(1, 23), (8, 23), (32, 3), (224, 23)])
def test_blur_leaves_a_flat_image_alone(size: int, window: int):
    for level in (1, 94, 255):
        crops = torch.full((1, 3, size, size), level, dtype=torch.uint8)
        for sigma in (0.1, 0.7, 2.0):
            result = run(crops, sigma=sigma, window=window)
            torch.testing.assert_close(result, crops.float() / 255, atol=1e-6, rtol=0)


def test_what_is_done_to_an_image_stays_with_it():
    """The loops share their memory from image to image: a batch is its images one by one."""
    crops, generator = noise(40, 3, 32), torch.Generator().manual_seed(0)
    view = View(blur=0.5, solarize=0.5, grayscale=0.5)
    params = sample_view(40, generator, view)
    together = finished(crops, params)
    for i in (0, 7, 39):
        row = slice(i, i + 1)
        alone = views.ViewParams(
            params.flip[row],
            Jitter(params.jitter.factors[row], params.jitter.order[row]),
            params.grayscale[row],
            Blur(params.blur.chosen[row], params.blur.sigma[row]),
            params.solarize[row],
        )
        assert torch.equal(finished(crops[row], alone), together[row])


def finished(crops: Tensor, params: views.ViewParams, window: int = 5) -> Tensor:
    """The compiled chain with drawn parameters, not normalised."""
    n, channels, size = crops.shape[:3]
    out = np.full((n, size, size, channels), np.nan, np.float32)
    sigma = torch.where(params.blur.chosen, params.blur.sigma, 0.0)
    drawn = (params.flip, *params.jitter, params.grayscale, sigma)
    plain = np.zeros(channels, np.float32), np.ones(channels, np.float32)
    finish(crops.numpy(), *(t.numpy() for t in drawn), window, params.solarize.numpy(), *plain, out)
    return torch.from_numpy(out).permute(0, 3, 1, 2)


def compare(recipe: tuple[View, ...], batch: Tensor, size: int) -> None:
    """MultiView against the definitions, of images and of ready crops: 0.01 of a level after the same crop."""
    n, channels, height, width = batch.shape
    mean, std = [0.3 + 0.02 * c for c in range(channels)], [0.2 + 0.01 * c for c in range(channels)]
    make = MultiView(recipe, size, mean, std)
    made = make.of_images(batch, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    boxes = [boxes_of(draws, height, width) for draws in sample_crops(recipe, n, generator)]
    every = []
    for view, box, result in zip(recipe, boxes, made, strict=True):
        params = sample_view(n, generator, view)
        crops = torch.empty((n, channels, view.pixels(size), view.pixels(size)), dtype=torch.uint8)
        for image, corners, out in zip(batch, box.double().tolist(), crops.numpy(), strict=True):
            crop_image(image, tuple(corners), out)
        every.append(crops)
        expected = normalize(apply_view(crops.float() / 255, params), mean, std)
        difference = (result - expected).abs() * torch.tensor(std).view(-1, 1, 1)
        assert result.dtype == torch.float32 and result.is_contiguous(memory_format=torch.channels_last)
        assert difference.max() <= 0.01 * LEVEL
    again = make.of_crops(every, torch.Generator().manual_seed(5))
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_is_its_definition(recipe: str):
    compare(RECIPES[recipe], noise(24, 3, 50, 70), 32)
    compare(RECIPES[recipe], noise(6, 3, 40, 130), 96)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (32, 32), (50, 70), (375, 500)])
def test_any_image_is_its_definition(channels: int, height: int, width: int):
    """Enlarged and reduced, thin and large, as many channels as cameras have; with views made for them and not."""
    batch = noise(4, channels, height, width)
    for size in (1, 8, 24, 32, 64, 96):
        compare(RECIPES["byol"], batch, size)
    compare(suited_to(RECIPES["simclr"], channels)[0], batch, 24)


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_large_views_are_their_definition(channels: int):
    compare(RECIPES["byol"], noise(3, channels, 375, 500), 224)


def test_dino_at_its_size_is_its_definition():
    compare(RECIPES["dino"], noise(2, 3, 240, 260), 224)


def test_window_larger_than_the_image_is_its_definition(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(views, "blur_window", lambda size: 23)
    for size in (1, 2, 8):
        compare(RECIPES["byol"], noise(8, 3, 20), size)
