"""From uint8 images to views: draws per image, reproducible, whatever the chunking."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ownlatent.augment import views
from ownlatent.augment.blur import Blur, apply_blur
from ownlatent.augment.colour import Jitter, apply_grayscale, apply_jitter, apply_solarize
from ownlatent.augment.crop import apply_crop, apply_flip, sample_crop
from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import MultiView, ViewParams, apply_view, sample_view

PLAIN = View(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0, jitter=0, grayscale=0, blur=0, solarize=0)
"""A view that shows the whole image as it is."""


def images(batch: int, channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, size, size), generator=generator, dtype=torch.uint8)


def byol_views(size: int = 32) -> MultiView:
    return MultiView(RECIPES["byol"], size, IMAGENET_MEAN, IMAGENET_STD)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_normalisation_per_channel():
    x = torch.rand(2, 3, 4, 5)
    result = normalize(x, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0))
    for channel, (mean, std) in enumerate([(0.1, 0.5), (0.2, 0.25), (0.3, 2.0)]):
        torch.testing.assert_close(result[:, channel], (x[:, channel] - mean) / std)


def test_view_without_augmentation_is_the_normalised_image():
    batch = images(5)
    (view,) = MultiView([PLAIN], 32, IMAGENET_MEAN, IMAGENET_STD).of_images(batch, seeded())
    torch.testing.assert_close(view, normalize(batch.float() / 255, IMAGENET_MEAN, IMAGENET_STD), atol=1e-5, rtol=0)


def test_views_have_the_asked_size_and_range():
    result = byol_views(size=24).of_images(images(6, size=40), seeded())
    assert len(result) == 2
    for view in result:
        assert view.shape == (6, 3, 24, 24) and view.dtype == torch.float32
        back = view * torch.tensor(IMAGENET_STD).view(3, 1, 1) + torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        assert back.min() >= -1e-5 and back.max() <= 1 + 1e-5


def test_images_are_left_as_they_were():
    batch = images(4)
    before = batch.clone()
    byol_views().of_images(batch, seeded())
    assert torch.equal(batch, before)


def test_same_seed_same_views_other_seed_other_views():
    batch, make = images(8), byol_views()
    first, again, other = (make.of_images(batch, seeded(seed)) for seed in (3, 3, 4))
    for v in range(2):
        assert torch.equal(first[v], again[v])
        assert not torch.allclose(first[v], other[v], atol=0.1)


def test_global_random_state_plays_no_part():
    batch, make = images(4), byol_views()
    torch.manual_seed(0)
    first = make.of_images(batch, seeded())
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(first, make.of_images(batch, seeded()), strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_every_image_of_a_batch_is_drawn_by_itself():
    """One image repeated: no two views of it may be alike, and the two views of each differ."""
    batch = images(1).repeat(12, 1, 1, 1)
    first, second = byol_views().of_images(batch, seeded())
    every = torch.cat([first, second]).flatten(1)
    distance = torch.cdist(every, every) + 1e9 * torch.eye(24)
    assert distance.min() > 1


@pytest.mark.parametrize(
    ("field", "value"), [("flip", 0.5), ("jitter", 0.8), ("grayscale", 0.5), ("blur", 0.5), ("solarize", 0.5)]
)
def test_each_operation_alone_is_drawn_per_image(field: str, value: float):
    """Some images of the batch are changed and some are not."""
    batch = images(1, size=64).repeat(40, 1, 1, 1)
    make = MultiView([replace(PLAIN, **{field: value})], 64, IMAGENET_MEAN, IMAGENET_STD)
    (view,) = make.of_images(batch, seeded())
    plain = normalize(batch.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    changed = (view - plain).abs().amax((1, 2, 3)) > 1e-3
    assert 0 < changed.sum() < 40


def test_crops_are_drawn_per_image():
    batch = images(1).repeat(10, 1, 1, 1)
    (view,) = MultiView([replace(PLAIN, crop_scale=(0.2, 0.5))], 32, IMAGENET_MEAN, IMAGENET_STD).of_images(
        batch, seeded()
    )
    distance = torch.cdist(view.flatten(1), view.flatten(1)) + 1e9 * torch.eye(10)
    assert distance.min() > 1


def test_hundred_images_equal_the_same_draws_applied_at_once():
    """On a processor the batch goes through in chunks that fit its cache; nothing may depend on them."""
    batch, make, view = images(100), byol_views(), RECIPES["byol"][0]
    assert views._CACHE_BYTES // (4 * 3 * 32 * 32) < 50  # so 100 images are several chunks
    generator = seeded()
    boxes = sample_crop(100, 32, 32, generator, view.crop_scale, view.crop_ratio)
    params = sample_view(100, generator, view)
    expected = normalize(apply_view(apply_crop(batch, boxes, 32) / 255, params), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(make.of_images(batch, seeded())[0], expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("cache", [1, 100_000, 10**9])
def test_size_of_the_chunks_does_not_matter(cache: int, monkeypatch: pytest.MonkeyPatch):
    batch, make = images(100), byol_views()
    expected = make.of_images(batch, seeded())
    monkeypatch.setattr(views, "_CACHE_BYTES", cache)
    for view, reference in zip(make.of_images(batch, seeded()), expected, strict=True):
        torch.testing.assert_close(view, reference, atol=2e-5, rtol=0)


def test_ready_crops_go_to_their_own_view():
    """Crop v is augmented as view v: here the second view mirrors, the first does nothing."""
    crops = torch.stack([images(5, seed=0), images(5, seed=1)], dim=1)
    made = MultiView([PLAIN, replace(PLAIN, flip=1.0)], 32, IMAGENET_MEAN, IMAGENET_STD).of_crops(crops, seeded())
    for view, expected in zip(made, (crops[:, 0], crops[:, 1].flip(-1)), strict=True):
        reference = normalize(expected.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
        torch.testing.assert_close(view, reference, atol=1e-6, rtol=0)


def test_ready_crops_are_augmented_reproducibly_and_left_alone():
    crops = torch.stack([images(50, seed=0), images(50, seed=1)], dim=1)
    before, make = crops.clone(), byol_views()
    first, again = make.of_crops(crops, seeded()), make.of_crops(crops, seeded())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(crops, before)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_single_channel_images(recipe: str):
    make = MultiView(RECIPES[recipe], 32, (0.5,), (0.25,))
    for view in make.of_images(images(20, channels=1), seeded()):
        assert view.shape == (20, 1, 32, 32)
        assert view.min() >= -2 - 1e-5 and view.max() <= 2 + 1e-5


def test_operations_come_in_the_papers_order():
    """Flip, jitter, grayscale, blur, solarise; every pair of neighbours swapped gives another picture."""
    x = torch.rand((1, 3, 32, 32), generator=seeded())
    yes = torch.tensor([True])
    params = ViewParams(
        flip=yes,
        jitter=Jitter(torch.tensor([[1.3, 0.7, 1.2, 0.1]]), torch.tensor([[2, 0, 3, 1]])),
        grayscale=yes,
        blur=Blur(yes, torch.tensor([1.0])),
        solarize=yes,
    )
    colour = apply_grayscale(apply_jitter(apply_flip(x, yes), params.jitter), yes)
    expected = apply_solarize(apply_blur(colour, params.blur, 3), yes)
    torch.testing.assert_close(apply_view(x, params), expected, atol=1e-6, rtol=0)
    swapped = apply_blur(apply_solarize(colour, yes), params.blur, 3)
    assert (swapped - expected).abs().max() > 0.01
    gray_first = apply_jitter(apply_grayscale(apply_flip(x, yes), yes), params.jitter)
    assert (gray_first - colour).abs().max() > 0.01


def test_probabilities_of_a_view_reach_the_draws():
    """The two rows of BYOL's table, drawn 20,000 times each."""
    n, error = 20_000, 5 * 0.5 / 20_000**0.5
    for view, blur, solarize in zip(RECIPES["byol"], (1.0, 0.1), (0.0, 0.2), strict=True):
        params = sample_view(n, seeded(), view)
        jittered = (params.jitter.factors != torch.tensor([1.0, 1.0, 1.0, 0.0])).any(1)
        for drawn, p in (
            (params.flip, 0.5),
            (jittered, 0.8),
            (params.grayscale, 0.2),
            (params.blur.chosen, blur),
            (params.solarize, solarize),
        ):
            assert drawn.double().mean().item() == pytest.approx(p, abs=error)
