"""The compiled crop against the functions that define it and against Pillow; test_kernels_view.py has the rest."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ownlatent.augment.crop import Box, apply_crop, boxes_of, crop_image, sample_crop
from ownlatent.augment.kernels.crop import crop_batch, planes
from ownlatent.augment.recipes import RECIPES
from ownlatent.augment.views import MultiView

SIZES = [(1, 1), (2, 3), (32, 32), (50, 70), (375, 500)]


def noise(channels: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Uint8 noise: the hardest image for an interpolation."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (channels, height, width), generator=generator, dtype=torch.uint8)


def cut(image: Tensor, box: Box, size: int) -> Tensor:
    """(C, size, size) from one image, by the compiled loops where it is uint8."""
    out = np.zeros((image.shape[0], size, size), image[:, :1].numpy().dtype)
    crop_image(image, tuple(map(float, box)), out)
    return torch.from_numpy(out)


def interleaved(image: Tensor) -> Tensor:
    """The same image with its channels side by side in memory, as decoders make it."""
    return image.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def boxes_in(height: int, width: int, count: int) -> Iterator[tuple[int, int, int, int]]:
    """The whole image and some boxes in it, of any shape."""
    yield 0, 0, height, width
    rng = np.random.default_rng(height * width)
    for _ in range(count):
        h, w = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
        yield int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w


def pillow(image: Tensor, box: Box, size: int) -> Tensor:
    """Pillow's crop and resize, channel by channel: (C, size, size). Pixels that the box touches count whole."""
    top, left, height, width = box
    first_row, first_column = int(np.floor(top)), int(np.floor(left))
    hull = (first_column, first_row, int(np.ceil(left + width)), int(np.ceil(top + height)))
    inside = (left - first_column, top - first_row, left + width - first_column, top + height - first_row)
    return torch.stack(
        [
            torch.from_numpy(
                np.array(
                    Image.fromarray(channel.numpy()).crop(hull).resize((size, size), Image.Resampling.BILINEAR, inside)
                )
            )
            for channel in image.contiguous()
        ]
    )


def apart(a: Tensor, b: Tensor) -> Tensor:
    """a - b in levels."""
    return a.float() - b.float()


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_crop_is_within_a_level_of_the_definition_and_of_pillow(channels: int, height: int, width: int):
    """Every one of the three rounds once or twice; over many pixels that leaves no lasting difference."""
    image = noise(channels, height, width)
    signed = []
    for size in (1, 8, 24, 32, 64, 96, 224):
        # The large ones take longest, and their loops are the same whatever the channels.
        for box in boxes_in(height, width, 0 if channels == 13 and height > 100 else 3):
            ours = cut(image, box, size)
            theirs = pillow(image, box, size)
            assert apart(ours, theirs).abs().max() <= 1
            signed.append(apart(ours, theirs).flatten())
            if size <= 96 or channels == 3:
                assert apart(ours, apply_crop(image[None], torch.tensor([box]), size)[0]).abs().max() <= 1
    every = torch.cat(signed)
    assert every.abs().mean() < 0.3 and every.mean().abs() < 0.03


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("channels", [2, 3, 4, 13])
def test_order_in_memory_changes_nothing(channels: int, height: int, width: int):
    """Decoders put channels side by side, tensors one after the other: a run must not depend on it."""
    image = noise(channels, height, width)
    for size in (1, 8, 24, 224):
        for box in boxes_in(height, width, 2):
            assert torch.equal(cut(image, box, size), cut(interleaved(image), box, size))


@pytest.mark.parametrize("layout", [Tensor.contiguous, interleaved])
@pytest.mark.parametrize("size", [5, 24, 64])
def test_boxes_between_pixels_are_pillows(size: int, layout: Callable[[Tensor], Tensor]):
    """As a box is after the file was decoded at half the size. Pillow resizes such boxes too."""
    rng = np.random.default_rng(0)
    image = layout(noise(3, 61, 83))
    signed = []
    for _ in range(40):
        height, width = rng.uniform(1, 61), rng.uniform(1, 83)
        box = (rng.uniform(0, 61 - height), rng.uniform(0, 83 - width), height, width)
        difference = apart(cut(image, box, size), pillow(image, box, size))
        assert difference.abs().max() <= 1
        signed.append(difference.flatten())
    every = torch.cat(signed)
    assert every.abs().mean() < 0.3 and every.mean().abs() < 0.03


@pytest.mark.parametrize("size", [1, 8, 24, 64])
def test_whole_image_is_torchs_interpolation(size: int):
    for height, width in SIZES:
        image = noise(3, height, width)
        expected = F.interpolate(image[None].float(), (size, size), mode="bilinear", antialias=True)[0]
        assert apart(cut(image, (0, 0, height, width), size), expected).abs().max() <= 1.02


def test_box_at_its_own_size_is_exact():
    image = noise(3, 50, 70)
    for top, left in ((0, 0), (3, 4), (18, 38)):
        assert torch.equal(cut(image, (top, left, 32, 32), 32), image[:, top : top + 32, left : left + 32])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (40, 1), (1, 500), (300, 2), (9, 9)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_thin_images_and_boxes_of_a_pixel(channels: int, height: int, width: int):
    image = noise(channels, height, width)
    for size in (1, 7, 24):
        for box in [(0, 0, height, width), (height - 1, width - 1, 1, 1), (0, 0, 1, width), (0, 0, height, 1)]:
            ours = cut(image, box, size)
            assert apart(ours, pillow(image, box, size)).abs().max() <= 1
            if box[2:] == (1, 1):
                assert (ours == image[:, box[0], box[1]].view(-1, 1, 1)).all()


@pytest.mark.parametrize("level", [0, 1, 127, 254, 255])
def test_flat_image_stays_flat(level: int):
    """Also white, which fills a lane of the compiled sums to its last value."""
    for channels, (height, width) in ((1, (37, 53)), (3, (375, 500)), (13, (32, 32))):
        image = torch.full((channels, height, width), level, dtype=torch.uint8)
        for size in (1, 8, 24, 224):
            for box in boxes_in(height, width, 3):
                assert (cut(image, box, size) == level).all()


@pytest.mark.parametrize("width", [4000, 16000])
def test_reduced_a_thousandfold(width: int):
    """The weights are a few whole numbers there: they must still sum to one, and their rounding even out."""
    image = noise(3, 4, width)
    for size in (8, 16, 32):
        assert apart(cut(image, (0, 0, 4, width), size), pillow(image, (0, 0, 4, width), size)).abs().max() <= 1
    for size in (1, 2, 3, 8):
        for level in (1, 128, 255):
            flat = torch.full_like(image, level)
            assert (cut(flat, (0, 0, 4, width), size) == level).all()


@pytest.mark.parametrize("layout", [Tensor.contiguous, interleaved])
@pytest.mark.parametrize("shrink", [2, 4, 8])
def test_flat_image_stays_flat_when_decoded_smaller(shrink: int, layout: Callable[[Tensor], Tensor]):
    """Boxes that end at the image's edge end a rounding error beyond it: there is nothing there to be mixed in."""
    rng = np.random.default_rng(shrink)
    ended_beyond = 0
    for _ in range(300):
        height, width = (int(side) for side in rng.integers(60, 600, 2))
        rows, columns = -(-height // shrink), -(-width // shrink)
        down, across = rows / height, columns / width
        h, w = int(rng.integers(8, height + 1)), int(rng.integers(8, width + 1))
        box = ((height - h) * down, (width - w) * across, h * down, w * across)
        ended_beyond += box[0] + box[2] > rows or box[1] + box[3] > columns
        image = layout(torch.full((3, rows, columns), 200, dtype=torch.uint8))
        assert (cut(image, box, 6) == 200).all(), (height, width, h, w)
    assert ended_beyond > 5  # else nothing was tested


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
@pytest.mark.parametrize("layout", [Tensor.contiguous, interleaved])
@pytest.mark.parametrize("box", [(10, 20, 12, 15), (0, 0, 1, 1), (39, 55, 1, 1), (10.25, 20.5, 11.5, 14.25)])
def test_nothing_outside_the_box_is_seen(box: Box, layout: Callable[[Tensor], Tensor], dtype: torch.dtype):
    image = noise(3, 40, 56)
    inside = torch.zeros(40, 56, dtype=torch.bool)
    inside[int(box[0]) : int(np.ceil(box[0] + box[2])), int(box[1]) : int(np.ceil(box[1] + box[3]))] = True
    poisoned = torch.where(inside, image, 255 - image)
    for size in (1, 6, 40):
        clean, other = (cut(layout(picture.to(dtype)), box, size) for picture in (image, poisoned))
        assert torch.equal(clean, other)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_nothing_of_the_neighbours_in_a_batch_is_seen(channels: int):
    """The loops read a fixed number of taps: beyond an image's last row lies the next image."""
    middle = noise(channels, 20, 30)
    boxes = torch.tensor([(0, 0, 20, 30), (19, 29, 1, 1), (17, 20, 3, 10)], dtype=torch.float64).repeat_interleave(3, 0)
    for size in (1, 7, 24):
        results = []
        for level in (0, 255):
            batch = torch.full((9, channels, 20, 30), level, dtype=torch.uint8)
            batch[1::3] = middle
            out = np.full((9, channels, size, size), 99, np.uint8)
            crop_batch(batch.numpy(), np.arange(9), boxes.numpy(), out)
            results.append(out)
        assert (results[0][1::3] == results[1][1::3]).all()
        for crop, box in zip(results[0][1::3], boxes[1::3], strict=True):
            assert torch.equal(torch.from_numpy(crop), cut(middle, tuple(box.tolist()), size))


def test_batch_is_its_images_one_by_one():
    """Any of the images in any order, one of them twice."""
    images = torch.stack([noise(3, 50, 70, seed) for seed in range(12)])
    places = [3, 0, 11, 3, 7, 5]
    boxes = boxes_of(sample_crop(6, torch.Generator().manual_seed(0)), 50, 70).double()
    out = np.empty((6, 3, 24, 24), np.uint8)
    crop_batch(images.numpy(), np.array(places), boxes.numpy(), out)
    for place, box, result in zip(places, boxes.tolist(), out, strict=True):
        assert torch.equal(torch.from_numpy(result), cut(images[place], tuple(box), 24))


def test_planes_takes_both_orders_without_a_copy():
    for image in (noise(3, 5, 7), interleaved(noise(3, 5, 7))):
        assert np.shares_memory(planes(image), image.numpy())
    assert planes(noise(3, 5, 7)).shape == (3, 5, 7) and planes(interleaved(noise(3, 5, 7))).shape == (1, 5, 21)


def slices() -> list[Tensor]:
    """Views of (13, 40, 56) and such in every way that tensors come: each is no plain block of memory."""
    large = noise(13, 80, 112)
    return [large[:3, ::2, ::2], large[::4, 20:60, 30:86], interleaved(large)[2:5, :40, :56], large[5:6, :40, 3:59]]


def test_images_that_are_views_of_others():
    for image in slices():
        assert not image.is_contiguous()
        before = image.clone()
        expected = cut(image.contiguous().clone(), (3, 5, 30, 41), 24)
        assert torch.equal(cut(image, (3, 5, 30, 41), 24), expected)
        assert torch.equal(image, before)


def test_batches_that_are_views_of_others():
    """Every second image, a part of each, channels last, turned, one image repeated."""
    large = torch.randint(0, 256, (12, 4, 50, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    make = MultiView(RECIPES["byol"][:1], 24, (0.5,) * 3, (0.25,) * 3)
    for batch in (
        large[::2, :3],
        large[:6, 1:, 5:45, 7:47],
        large[:6, :3].contiguous(memory_format=torch.channels_last),
        large[:6, :3].transpose(2, 3),
        large[:1, :3].expand(6, -1, -1, -1),
    ):
        assert batch.shape[:2] == (6, 3)
        plain = batch.contiguous().clone()
        (ours,) = make.of_images(batch, torch.Generator().manual_seed(0))
        (expected,) = make.of_images(plain, torch.Generator().manual_seed(0))
        assert torch.equal(ours, expected)


def test_files_that_may_not_be_written_to(tmp_path: Path):
    """A data set mapped from disk is read-only; a write to it would end the process."""
    batch = torch.randint(0, 256, (6, 3, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    np.save(tmp_path / "images.npy", batch.numpy())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that the memory cannot be written to
        mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="r"))
    make = MultiView(RECIPES["byol"][:1], 24, (0.5,) * 3, (0.25,) * 3)
    (ours,) = make.of_images(mapped, torch.Generator().manual_seed(0))
    assert torch.equal(ours, make.of_images(batch, torch.Generator().manual_seed(0))[0])
    assert torch.equal(cut(mapped[0], (1, 2, 30, 20), 24), cut(batch[0], (1, 2, 30, 20), 24))
