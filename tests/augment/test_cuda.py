"""On a GPU the same draws give the same views as on the processor."""

import pytest
import torch
from torch import Tensor

from ownlatent.augment.blur import apply_blur
from ownlatent.augment.colour import apply_grayscale, apply_jitter, apply_solarize
from ownlatent.augment.crop import apply_crop, apply_flip, boxes_of, sample_crop
from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import MultiView, apply_view, pick, sample_view
from ownlatent.data.loader import Batches, ResidentLoader
from ownlatent.data.resident import Resident

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
GPU = torch.device("cuda")
STRONG = View(brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, grayscale=0.3, blur=0.5, solarize=0.3)


def noise(batch: int, channels: int = 3, size: int = 48) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, channels, size, size), generator=generator, dtype=torch.uint8)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def in_levels(a: Tensor, b: Tensor, std: tuple[float, ...]) -> Tensor:
    """|a - b| of normalised views, in gray levels."""
    return (a.cpu() - b.cpu()).abs() * torch.tensor(std).view(-1, 1, 1) * 255


@pytest.mark.parametrize("channels", [1, 3, 13])
def test_every_operation_is_the_processors(channels: int):
    """The draws stay on the processor; an operation by itself agrees to float32's rounding."""
    x = noise(64, channels).float() / 255
    params = sample_view(64, seeded(), STRONG)
    boxes = boxes_of(sample_crop(64, seeded()), 48, 48)
    for apply, *drawn in (
        (apply_crop, boxes, 32),
        (apply_flip, params.flip),
        (apply_jitter, params.jitter),
        (apply_grayscale, params.grayscale),
        (apply_blur, params.blur, 9),
        (apply_solarize, params.solarize),
        (apply_view, params),
    ):
        ours = apply(x.to(GPU), *drawn)
        assert ours.device.type == GPU.type
        torch.testing.assert_close(ours.cpu(), apply(x, *drawn), atol=2e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("recipe", ["byol", "simclr", "dino"])
def test_views_of_crops_are_the_processors(recipe: str, channels: int):
    """0.01 of a level, as for the compiled loops."""
    mean, std = (0.4,) * channels, (0.25,) * channels
    make = MultiView(RECIPES[recipe], 48, mean, std)
    crops = [noise(32, channels, size) for size in make.sizes]
    on_gpu = make.of_crops([crop.to(GPU) for crop in crops], seeded())
    for ours, theirs in zip(on_gpu, make.of_crops(crops, seeded()), strict=True):
        assert ours.device.type == GPU.type and ours.is_contiguous(memory_format=torch.channels_last)
        assert in_levels(ours, theirs, std).max() <= 0.01


def test_views_of_images_are_the_processors():
    """Both round their crops to whole levels, once and twice: they differ where the two round apart."""
    make = MultiView(RECIPES["byol"], 32, IMAGENET_MEAN, IMAGENET_STD)
    batch = noise(128)
    for ours, theirs in zip(make.of_images(batch.to(GPU), seeded()), make.of_images(batch, seeded()), strict=True):
        assert in_levels(ours, theirs, IMAGENET_STD).mean() <= 0.5


def test_views_of_sixteen_bits_are_the_processors():
    """Both are the definitions; a crop is rounded to a sixteenth of a gray level, seldom to another one."""
    make = MultiView(RECIPES["byol"], 32, IMAGENET_MEAN, IMAGENET_STD, peak=4080)
    batch = (noise(64).int() * 16).to(torch.uint16)
    for ours, theirs in zip(make.of_images(batch.to(GPU), seeded()), make.of_images(batch, seeded()), strict=True):
        assert in_levels(ours, theirs, IMAGENET_STD).mean() <= 0.01


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_resident_images_stay_on_the_gpu(dtype: torch.dtype):
    images = noise(40, 1, 16).to(dtype)
    make = MultiView(RECIPES["byol"], 16, (0.0,), (1.0,))
    on_gpu = iter(ResidentLoader(Resident(images), Batches(40, 8, seed=1), GPU))
    on_cpu = iter(ResidentLoader(Resident(images), Batches(40, 8, seed=1), torch.device("cpu")))
    for _ in range(7):
        ours, theirs = next(on_gpu), next(on_cpu)
        assert ours["images"].device.type == GPU.type and ours["images"].dtype == dtype
        assert torch.equal(pick(ours["images"], ours["rows"]).cpu(), pick(theirs["images"], theirs["rows"]))
        for rows in (ours["rows"], ours["rows"].to(GPU)):  # Lightning takes every tensor of a batch to the device
            for a, b in zip(
                make.of_images(ours["images"], seeded(), rows),
                make.of_images(theirs["images"], seeded(), theirs["rows"]),
                strict=True,
            ):
                assert in_levels(a, b, (1.0,)).mean() <= 0.5
