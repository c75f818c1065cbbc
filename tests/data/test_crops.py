"""The crops that a loader's process cuts: those of the definition, from no more pixels than they need."""

import io
import pickle
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from decoded import Decoded
from PIL import Image
from skimage import data
from torch import Tensor

from ownlatent.augment.crop import boxes_of, crop_image
from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import sample_crops
from ownlatent.data import crops
from ownlatent.data.crops import Crops
from ownlatent.data.decode import Format, decode
from ownlatent.data.resident import Resident
from ownlatent.data.source import EncodedSource, Source

VIEWS = (View(), View(crop_scale=(0.5, 1.0)))
SEED = 17


class Files(EncodedSource):
    """Image files in memory."""

    name = "files"

    def __init__(self, files: list[bytes], format: Format = Format(3, 8)):  # noqa: B008
        self.files, self.format = files, format

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> bytes:
        return self.files[index]

    def title(self, index: int) -> str:
        return f"file {index}"


def noise(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def mixed(count: int = 40) -> list[bytes]:
    """PNGs of different sizes, more than are opened at a time."""
    return [encode(noise(20 + 3 * number % 37, 70 - number, number)) for number in range(count)]


def defined(source: Source, indices: list[int], views: tuple[View, ...], size: int) -> list[Tensor]:
    """Every view's crop of every image, from whole images one by one."""
    result = []
    draws = sample_crops(views, len(indices), torch.Generator().manual_seed(SEED))
    for view, drawn in zip(views, draws, strict=True):
        rows = []
        for place, index in enumerate(indices):
            image = source[index].image
            box = boxes_of(drawn.rows(slice(place, place + 1)), image.shape[1], image.shape[2])[0].double().tolist()
            rows.append(torch.zeros((image.shape[0], view.pixels(size), view.pixels(size)), dtype=image.dtype))
            crop_image(image.contiguous(), tuple(box), rows[-1].numpy())
        result.append(torch.stack(rows))
    return result


def same(made: list[Tensor] | None, expected: list[Tensor]) -> bool:
    assert made is not None
    return all(torch.equal(a, b) for a, b in zip(made, expected, strict=True))


@pytest.mark.parametrize("views", [VIEWS, RECIPES["dino"]])
def test_crops_are_those_of_the_definition(views: tuple[View, ...]) -> None:
    """Of files and of images that are there already: mixed sizes, several pieces, views of two sizes."""
    files = Files(mixed())
    indices = [5, 39, 0, 12, *range(30)]
    made, number, skipped, _ = Crops(files, views, 28)[3, indices, SEED]
    assert number == 3 and skipped == {}
    assert [crop.shape for crop in made or ()] == [(34, 3, view.pixels(28), view.pixels(28)) for view in views]
    assert same(made, defined(files, indices, views, 28))
    arrays = Decoded([files[index].image for index in range(len(files))])
    assert same(Crops(arrays, views, 28)[3, indices, SEED][0], made or [])


def test_another_seed_gives_other_crops() -> None:
    files = Files([encode(noise(64, 64, 0))] * 4)
    first, other = (Crops(files, VIEWS, 16)[0, [0, 1, 2, 3], seed][0] for seed in (1, 2))
    every = torch.cat([*(first or ()), *(other or ())])
    assert len(every.unique(dim=0)) == 16  # of one picture


def test_sixteen_bits_stay_sixteen() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 65536, (5, 4, 40, 30), generator=generator, dtype=torch.uint16)
    made = Crops(Resident(images), VIEWS, 16)[0, [4, 0, 2], SEED][0]
    assert same(made, defined(Resident(images), [4, 0, 2], VIEWS, 16))
    assert made and made[0].dtype == torch.uint16 and made[0].int().max() > 40_000


def test_a_loader_can_be_sent_to_another_process() -> None:
    worker = Crops(Files(mixed(4)), VIEWS, 16)
    item = 0, [3, 1], SEED
    assert same(pickle.loads(pickle.dumps(worker))[item][0], worker[item][0] or [])


def shrinks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The fraction at which each image was asked for, from now on."""
    asked: list[int] = []

    def note(content: bytes, format: Format, shrink: int = 1) -> Tensor:
        asked.append(shrink)
        return decode(content, format, shrink)

    monkeypatch.setattr(crops, "decode", note)
    return asked


@pytest.mark.parametrize("size", [24, 48, 96])
@pytest.mark.parametrize("views", [VIEWS, RECIPES["dino"], (View(crop_scale=(0.9, 1.0)),)])
def test_no_view_is_enlarged_for_decoding_less(
    views: tuple[View, ...], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest fraction at which each view still has at least its pixels, and no larger one."""
    asked = shrinks(monkeypatch)
    height, width, count = 400, 560, 60
    files = Files([encode(np.zeros((height, width, 3), np.uint8), "JPEG")] * count)
    Crops(files, views, size)[0, list(range(count)), SEED]
    draws = sample_crops(views, count, torch.Generator().manual_seed(SEED))
    room = torch.stack(
        [
            boxes_of(drawn, height, width)[:, 2:].amin(1) / view.pixels(size)
            for view, drawn in zip(views, draws, strict=True)
        ]
    ).amin(0)  # of each image: pixels of the file for each pixel of the most demanding view
    assert asked == [max(factor for factor in (1, 2, 4, 8) if factor <= max(1, least)) for least in room.tolist()]
    assert max(asked) > 1 or size == 96


def photograph(height: int, width: int) -> np.ndarray:
    """A part of the photograph of an astronaut that comes with scikit-image."""
    return np.asarray(Image.fromarray(data.astronaut()).resize((width, height), Image.Resampling.LANCZOS))


WHOLE = (View(crop_scale=(0.3, 1.0)),)
"""One view that leaves room for decoding less."""


def both(source: Files, asked: list[int], size: int = 32) -> tuple[Tensor, Tensor]:
    """Crops (N, 3, size, size) of each file, from as many pixels as are needed and from all."""
    indices = list(range(len(source)))
    asked.clear()
    made = Crops(source, WHOLE, size)[0, indices, SEED][0]
    assert made and sum(shrink > 1 for shrink in asked) > len(source) // 2
    return made[0].float(), defined(source, indices, WHOLE, size)[0].float()


@pytest.mark.parametrize(("height", "width"), [(512, 512), (375, 500), (301, 450), (601, 901)])
def test_decoding_a_jpeg_smaller_changes_little(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own reduction and the antialiasing of a resize are not the same filter; a shift would change far more."""
    source = Files([encode(photograph(height, width), "JPEG", quality=95)] * 40)
    made, expected = both(source, shrinks(monkeypatch))
    difference = (made - expected).abs().mean()
    shifted = (expected[..., 1:] - expected[..., :-1]).abs().mean()
    assert difference < 3.5 and difference < 0.15 * shifted


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(("height", "width"), [(512, 512), (375, 500), (509, 331), (601, 901)])
def test_crops_lie_where_they_should_after_decoding_smaller(
    height: int, width: int, axis: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a ramp every gray level is a place: at most a seventh of a view's pixel away."""
    ramp = np.linspace(10, 245, (height, width)[axis]).round().astype(np.uint8)
    pixels = np.broadcast_to(ramp[:, None, None] if axis == 0 else ramp[None, :, None], (height, width, 3))
    made, expected = both(Files([encode(pixels, "JPEG", quality=98)] * 30), shrinks(monkeypatch))
    slope = (expected.amax((1, 2, 3)) - expected.amin((1, 2, 3))) / 31  # levels from one pixel to the next
    ends = (expected > 12) & (expected < 243)  # where the ramp goes on beyond the crop
    shift = ((made - expected) * ends).sum((1, 2, 3)) / ends.sum((1, 2, 3)) / slope
    assert shift.abs().max() < 0.15


@pytest.mark.parametrize(("height", "width"), [(65, 65), (75, 70), (90, 67)])
def test_small_pictures_keep_their_scale_when_decoded_smaller(
    height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """65 pixels at an eighth are nine, each of them for eight pixels, and not for seven."""
    pixels = np.broadcast_to(np.linspace(10, 245, width).round().astype(np.uint8)[None, :, None], (height, width, 3))
    made, expected = both(Files([encode(pixels, "JPEG", quality=98)] * 40), shrinks(monkeypatch), 6)
    assert (made - expected)[..., :-1].abs().max() < 12  # of 30 and more from a pixel of the view to the next


def broken(content: bytes) -> bytes:
    """The header is there and half of the pixels are not."""
    return content[: len(content) // 2]


def test_an_unreadable_header_is_replaced_by_the_next_image() -> None:
    """With the draws of its place; all others stay as they were."""
    files = mixed(20)
    before = Crops(Files(files), VIEWS, 16)[0, list(range(20)), SEED][0]
    files[3], files[4], files[19] = b"", b"no image", b""
    source = Files(files)
    made, _, skipped, _ = Crops(source, VIEWS, 16)[0, list(range(20)), SEED]
    assert list(skipped) == ["file 3", "file 4", "file 19"] and all(skipped.values())
    assert same(made, defined(source, [0, 1, 2, 5, 5, *range(5, 19), 0], VIEWS, 16))
    others = [index for index in range(20) if index not in (3, 4, 19)]
    assert same([crop[others] for crop in made or ()], [crop[others] for crop in before or ()])


def test_a_broken_body_is_replaced_by_the_next_image() -> None:
    """Found out only after the boxes were made for another size."""
    files = mixed(20)
    files[3], files[4], files[5], files[19] = broken(files[3]), broken(files[4]), b"", broken(files[19])
    source = Files(files)
    made, _, skipped, _ = Crops(source, VIEWS, 16)[0, list(range(20)), SEED]
    assert sorted(skipped) == ["file 19", "file 3", "file 4", "file 5"] and all(skipped.values())
    assert same(made, defined(source, [0, 1, 2, 6, 6, 6, *range(6, 19), 0], VIEWS, 16))


def test_a_source_of_arrays_is_replaced_likewise() -> None:
    files = Files(mixed(8))
    arrays = Decoded([None if index in (2, 7) else files[index].image for index in range(8)])
    made, _, skipped, _ = Crops(arrays, VIEWS, 16)[0, list(range(8)), SEED]
    assert skipped == {"array 2": "nothing there", "array 7": "nothing there"}
    assert same(made, defined(files, [0, 1, 3, 3, 4, 5, 6, 0], VIEWS, 16))


@pytest.mark.parametrize("spoil", [lambda content: b"", broken])
def test_nothing_readable_is_no_exception(spoil: Callable[[bytes], bytes]) -> None:
    """It would reach the parent as a traceback in text."""
    source = Files([spoil(content) for content in mixed(5)])
    made, number, skipped, _ = Crops(source, VIEWS, 16)[7, [1, 2], SEED]
    assert made is None and number == 7
    assert sorted(skipped) == [f"file {index}" for index in range(5)]


def test_one_readable_image_is_enough() -> None:
    files = mixed(6)
    source = Files([files[0], *map(broken, files[1:])])
    made, _, skipped, _ = Crops(source, VIEWS, 16)[0, [4, 2], SEED]
    assert sorted(skipped) == ["file 2", "file 3", "file 4", "file 5"]
    assert same(made, defined(source, [0, 0], VIEWS, 16))


def test_views_may_be_larger_than_the_images() -> None:
    source = Files([encode(noise(1, 1, 0)), encode(noise(2, 9, 1)), encode(noise(30, 1, 2))])
    views = (replace(VIEWS[0], size=1.0), replace(VIEWS[0], size=0.25))
    made = Crops(source, views, 24)[0, [0, 1, 2], SEED][0]
    assert same(made, defined(source, [0, 1, 2], views, 24))
