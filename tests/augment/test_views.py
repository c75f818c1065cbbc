"""From images to views: draws per image, reproducible, whatever the chunking, the threads and the depth."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ownlatent.augment import views
from ownlatent.augment.blur import Blur, apply_blur
from ownlatent.augment.colour import Jitter, apply_grayscale, apply_jitter, apply_solarize
from ownlatent.augment.crop import apply_crop, apply_flip, boxes_of, crop_image
from ownlatent.augment.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import MultiView, ViewParams, apply_view, sample_crops, sample_view

PLAIN = View(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=0, jitter=0, grayscale=0, blur=0, solarize=0)
"""A view that shows the whole image as it is."""


def images(batch: int, channels: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, channels, size, size), generator=generator, dtype=torch.uint8)


def cut(batch: Tensor, boxes: Tensor, size: int) -> Tensor:
    """The boxes (B, 4) cut out of uint8 images (B, C, H, W) one by one, as a loader's process does it."""
    crops = torch.empty((*batch.shape[:2], size, size), dtype=torch.uint8)
    for image, box, out in zip(batch, boxes.double().tolist(), crops.numpy(), strict=True):
        crop_image(image, tuple(box), out)
    return crops


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
    """On a processor the batch goes through in pieces that fit its cache; nothing may depend on them."""
    batch, make = images(300), byol_views()
    assert views._CACHE_BYTES // (3 * 32 * 32) < 150  # so 300 images are several pieces
    generator = seeded()
    boxes = [boxes_of(crop, 32, 32) for crop in sample_crops(RECIPES["byol"], 300, generator)]
    params = [sample_view(300, generator, view) for view in RECIPES["byol"]]
    for v, view in enumerate(make.of_images(batch, seeded())):
        crops = cut(batch, boxes[v], 32)
        expected = normalize(apply_view(crops.float() / 255, params[v]), IMAGENET_MEAN, IMAGENET_STD)
        torch.testing.assert_close(view, expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize("cache", [1, 100_000, 10**9])
def test_size_of_the_pieces_does_not_matter(cache: int, monkeypatch: pytest.MonkeyPatch):
    batch, make = images(100), byol_views()
    expected = make.of_images(batch, seeded())
    monkeypatch.setattr(views, "_CACHE_BYTES", cache)
    for view, reference in zip(make.of_images(batch, seeded()), expected, strict=True):
        assert torch.equal(view, reference)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of torch's threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_number_of_threads_does_not_matter(threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch):
    """Also where there are more threads than images."""
    monkeypatch.setattr("ownlatent.augment.views._PIXELS_PER_THREAD", 1)
    batch, make = images(37), byol_views()
    threads(1)
    expected, few = make.of_images(batch, seeded()), make.of_images(batch[:3], seeded())
    for count in (3, 4):
        threads(count)
        assert all(torch.equal(a, b) for a, b in zip(make.of_images(batch, seeded()), expected, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(make.of_images(batch[:3], seeded()), few, strict=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_rows_of_a_data_set_are_a_batch_of_those_images(dtype: torch.dtype):
    """Without a copy of them where the loops are compiled; an image may be asked for twice."""
    every, make, rows = images(50).to(dtype), byol_views(), torch.tensor([7, 0, 49, 7, 20])
    batch = torch.stack([every[row] for row in rows.tolist()])
    for ours, theirs in zip(make.of_images(every, seeded(), rows), make.of_images(batch, seeded()), strict=True):
        assert torch.equal(ours, theirs)


def test_views_of_different_sizes():
    """DINO's ten: two large, eight small."""
    make = MultiView(RECIPES["dino"], 56, IMAGENET_MEAN, IMAGENET_STD)
    assert make.sizes == (56, 56, *(24,) * 8)
    result = make.of_images(images(3, size=70), seeded())
    assert [view.shape for view in result] == [(3, 3, size, size) for size in make.sizes]
    crops = [images(3, size=size, seed=size) for size in make.sizes]
    assert [view.shape for view in make.of_crops(crops, seeded())] == [view.shape for view in result]


def test_ready_crops_go_to_their_own_view():
    """Crop v is augmented as view v: here the second view mirrors, the first does nothing."""
    crops = [images(5, seed=0), images(5, seed=1)]
    made = MultiView([PLAIN, replace(PLAIN, flip=1.0)], 32, IMAGENET_MEAN, IMAGENET_STD).of_crops(crops, seeded())
    for view, expected in zip(made, (crops[0], crops[1].flip(-1)), strict=True):
        reference = normalize(expected.float() / 255, IMAGENET_MEAN, IMAGENET_STD)
        torch.testing.assert_close(view, reference, atol=1e-6, rtol=0)


def test_ready_crops_are_augmented_reproducibly_and_left_alone():
    crops = [images(50, seed=0), images(50, seed=1)]
    before, make = [crop.clone() for crop in crops], byol_views()
    first, again = make.of_crops(crops, seeded()), make.of_crops(crops, seeded())
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(crops, before, strict=True))


@pytest.mark.parametrize("recipe", ["byol", "dino"])
def test_crops_cut_elsewhere_give_the_views_of_the_images(recipe: str):
    """The crops are drawn before everything else, so that a loader's process can draw them alone."""
    batch, make = images(20, size=50), MultiView(RECIPES[recipe], 32, IMAGENET_MEAN, IMAGENET_STD)
    crops = []
    for draws, size in zip(sample_crops(make.views, 20, seeded()), make.sizes, strict=True):
        crops.append(cut(batch, boxes_of(draws, 50, 50), size))
    for ours, theirs in zip(make.of_crops(crops, seeded()), make.of_images(batch, seeded()), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_single_channel_images(recipe: str):
    make = MultiView(RECIPES[recipe], 32, (0.5,), (0.25,))
    for view, size in zip(make.of_images(images(20, channels=1), seeded()), make.sizes, strict=True):
        assert view.shape == (20, 1, size, size)
        assert view.min() >= -2 - 1e-5 and view.max() <= 2 + 1e-5


def deep(batch: int, channels: int = 3, peak: int = 4095, size: int = 40) -> Tensor:
    """Uint16 noise from 0 to peak."""
    return torch.randint(0, peak + 1, (batch, channels, size, size), generator=seeded(), dtype=torch.uint16)


@pytest.mark.parametrize("channels", [1, 3, 13])
@pytest.mark.parametrize("recipe", ["byol", "simclr"])
def test_images_of_twelve_bits_are_the_same_chain_on_floats(recipe: str, channels: int):
    """The cut is rounded to whole numbers of the file, a sixteenth of a gray level, and 4095 is white."""
    batch, (mean, std) = deep(12, channels), ((0.4,) * channels, (0.3,) * channels)
    make = MultiView(RECIPES[recipe], 24, mean, std, peak=4095)
    generator = seeded()
    boxes = [boxes_of(crop, 40, 40) for crop in sample_crops(make.views, 12, generator)]
    for v, view in enumerate(make.of_images(batch, seeded())):
        params = sample_view(12, generator, make.views[v])
        x = apply_crop(batch.float(), boxes[v], 24).round() / 4095
        torch.testing.assert_close(view, normalize(apply_view(x, params), mean, std), atol=1e-5, rtol=0)
        back = view * 0.3 + 0.4
        assert back.min() >= -1e-5 and back.max() <= 1 + 1e-5


def test_images_of_sixteen_bits_look_as_their_bytes():
    """Every level times 257 is the same picture, here made by the other of the two paths."""
    batch = images(30)
    make, deeper = byol_views(), MultiView(RECIPES["byol"], 32, IMAGENET_MEAN, IMAGENET_STD, peak=65535)
    wide = (batch.int() * 257).to(torch.uint16)
    for a, b in zip(make.of_images(batch, seeded()), deeper.of_images(wide, seeded()), strict=True):
        difference = (a - b).abs() * torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255
        assert difference.mean() < 0.5  # one of the two rounds its crops to 8 bits
    crops = [images(30, seed=seed) for seed in (0, 1)]
    wide_crops = [(crop.int() * 257).to(torch.uint16) for crop in crops]
    for a, b in zip(make.of_crops(crops, seeded()), deeper.of_crops(wide_crops, seeded()), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)


def test_values_beyond_the_peak_are_white():
    """The peak comes from a sample of the images: another may be brighter."""
    batch = torch.tensor([0, 1000, 4095, 65535], dtype=torch.uint16).view(4, 1, 1, 1).expand(4, 1, 8, 8).contiguous()
    (view,) = MultiView([PLAIN], 8, (0.0,), (1.0,), peak=4095).of_images(batch, seeded())
    torch.testing.assert_close(view.amax((1, 2, 3)), torch.tensor([0.0, 1000 / 4095, 1.0, 1.0]))
    (view,) = MultiView([PLAIN], 8, (0.0,), (1.0,), peak=4095).of_crops([batch], seeded())
    torch.testing.assert_close(view.amax((1, 2, 3)), torch.tensor([0.0, 1000 / 4095, 1.0, 1.0]))


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
