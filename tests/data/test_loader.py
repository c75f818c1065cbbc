"""Batches are a function of (seed, number); how they are loaded changes nothing."""

import io
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, islice
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ownlatent.augment.recipes import RECIPES, View
from ownlatent.augment.views import MultiView, pick
from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.loader import VIEWS as FOR_VIEWS
from ownlatent.data.loader import Batches, ResidentLoader, StreamingLoader, generator, order
from ownlatent.data.loader import _next as next_batch
from ownlatent.data.resident import Resident
from ownlatent.data.source import EncodedSource, Source
from ownlatent.data.sources.folder import Folder
from ownlatent.errors import OwnlatentError
from ownlatent.types import Sample

VIEWS = (View(), View(crop_scale=(0.5, 1.0)))
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more processes than processors


def take(batches: Batches, count: int) -> list[list[int]]:
    return list(islice(batches, count))


def test_a_generator_depends_on_its_numbers_alone() -> None:
    def draw(*numbers: int) -> float:
        return torch.rand(1, generator=generator(*numbers)).item()

    torch.manual_seed(3)
    first = draw(1, 2)
    torch.manual_seed(4)
    assert draw(1, 2) == first
    assert len({draw(1, 2), draw(2, 1), draw(1), draw(1, 3), draw(1, 2, 1), draw(1, 2, 0), draw(1, 2, 0, 0)}) == 7
    assert draw(2**32 + 5, 1) != draw(5, 1, 1)  # numpy splits large numbers into words


def test_an_order_is_a_permutation_of_its_own() -> None:
    orders = [order(100, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(o) == list(range(100)) for o in orders)
    assert len({tuple(o) for o in orders}) == 4
    assert order(100, 1, 1).tolist() == orders[3]


def test_batches_depend_on_the_seed_alone() -> None:
    torch.manual_seed(0)
    first = take(Batches(50, 8, seed=7), 20)
    torch.rand(100)
    assert take(Batches(50, 8, seed=7), 20) == first
    assert take(Batches(50, 8, seed=8), 20) != first


@pytest.mark.parametrize("start", [0, 1, 5, 6, 7, 12, 31])
def test_starting_at_a_batch_is_skipping_those_before(start: int) -> None:
    """Six batches an epoch: inside an epoch, at its end and in a later one."""
    assert take(Batches(50, 8, seed=7, start=start), 15) == take(Batches(50, 8, seed=7), start + 15)[start:]


def test_an_epoch_visits_each_image_at_most_once() -> None:
    per_epoch = Batches(50, 8, seed=0).per_epoch
    assert per_epoch == 6
    batches = take(Batches(50, 8, seed=0), 4 * per_epoch)
    assert {len(batch) for batch in batches} == {8}
    epochs = [list(chain(*batches[first : first + per_epoch])) for first in range(0, len(batches), per_epoch)]
    assert [len(set(epoch)) for epoch in epochs] == [48] * 4
    assert len(set(map(tuple, epochs))) == 4


def test_no_image_is_left_out_for_ever() -> None:
    counts = Counter(chain(*take(Batches(50, 8, seed=0), 6 * 50)))
    assert sorted(counts) == list(range(50))
    assert min(counts.values()) > 40


def test_resident_batches_hold_the_images_of_their_indices() -> None:
    """All images and the rows of the batch: nothing is copied."""
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    loader = ResidentLoader(Resident(images), Batches(20, 4, seed=3, start=2), torch.device("cpu"))
    for batch, indices, number in zip(
        islice(loader, 8), take(Batches(20, 4, seed=3), 10)[2:], range(2, 10), strict=True
    ):
        assert batch["rows"].tolist() == indices
        assert batch["images"].data_ptr() == images.data_ptr() and batch["images"].shape == images.shape
        assert batch["number"] == number
    assert loader.waited > 0


class Files(EncodedSource):
    """Image files in memory, or what a file must look like that cannot be read; they may be taken away."""

    name = "files"

    def __init__(self, files: list[bytes], gone: Path | None = None):
        self.files, self.format, self.gone = files, Format(3, 8), gone

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> bytes:
        if self.gone and self.gone.exists():
            raise Unreadable("it is no longer there")
        return self.files[index]

    def title(self, index: int) -> str:
        return f"file {index}"


def png(height: int, width: int, seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def mixed() -> list[bytes]:
    """24 pictures of as many sizes; not to be changed by a test."""
    return [png(20 + number, 40 - number, number) for number in range(24)]


def stream(
    source: Source,
    start: int = 0,
    workers: int = 0,
    seed: int = 0,
    views: tuple[View, ...] = VIEWS,
    size: int = 16,
    max_unreadable: float = 1.0,
) -> StreamingLoader:
    return StreamingLoader(source, views, size, Batches(len(source), 8, seed, start), workers, max_unreadable)


def same(batches: list[dict], others: list[dict]) -> bool:
    return all(
        first["number"] == second["number"]
        and all(torch.equal(a, b) for a, b in zip(first["crops"], second["crops"], strict=True))
        for first, second in zip(batches, others, strict=True)
    )


def test_crops_do_not_depend_on_the_number_of_workers(mixed: list[bytes]) -> None:
    alone, one, three = (list(islice(stream(Files(mixed), workers=workers), 7)) for workers in (0, 1, 3))
    for batch in alone:
        assert [crop.shape for crop in batch["crops"]] == [(8, 3, 16, 16)] * 2
        assert all(crop.dtype == torch.uint8 for crop in batch["crops"])
    assert same(alone, one) and same(alone, three)


def test_views_of_two_sizes_from_workers(mixed: list[bytes]) -> None:
    """DINO's: two large, eight small."""
    alone, two = (
        list(islice(stream(Files(mixed), workers=workers, views=RECIPES["dino"], size=28), 4)) for workers in (0, 2)
    )
    assert [crop.shape for crop in alone[0]["crops"]] == [(8, 3, 28, 28)] * 2 + [(8, 3, 12, 12)] * 8
    assert same(alone, two)


@pytest.mark.parametrize("workers", [0, 3])
def test_sixteen_bits_pass_through_workers(workers: int) -> None:
    images = torch.randint(0, 4096, (24, 5, 30, 40), generator=generator(0), dtype=torch.uint16)
    batches = list(islice(stream(Resident(images), workers=workers), 3))
    assert same(batches, list(islice(stream(Resident(images)), 3)))
    for batch in batches:
        assert [crop.dtype for crop in batch["crops"]] == [torch.uint16] * 2
        assert all(1000 < crop.int().max() < 4096 for crop in batch["crops"])


@pytest.mark.parametrize("recipe", ["byol", "dino"])
def test_streamed_views_are_the_resident_ones(recipe: str) -> None:
    """Images of one size may be loaded either way: the views are the same to the last bit."""
    files = Files([png(40, 50, seed) for seed in range(24)])
    images = torch.stack([files[index].image.contiguous() for index in range(24)])
    make = MultiView(RECIPES[recipe], 32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    resident = ResidentLoader(Resident(images), Batches(24, 8, seed=5, start=2), torch.device("cpu"))
    loaders = (
        islice(resident, 4),
        islice(stream(files, 2, 0, 5, make.views, 32), 4),
        islice(stream(files, 2, 3, 5, make.views, 32), 4),
        islice(stream(Resident(images), 2, 0, 5, make.views, 32), 4),
    )
    for batch, *streamed in zip(*loaders, strict=True):
        number = batch["number"]
        views = make.of_images(batch["images"], generator(5, FOR_VIEWS, number), batch["rows"])
        for other in streamed:
            assert other["number"] == number
            others = make.of_crops(other["crops"], generator(5, FOR_VIEWS, number))
            assert all(torch.equal(a, b) for a, b in zip(views, others, strict=True))


def test_streamed_views_of_sixteen_bits_are_nearly_the_resident_ones() -> None:
    """Their crops are made by two interpolations of torch, which round at most one of 65,535 levels apart."""
    images = torch.randint(0, 65536, (24, 2, 30, 40), generator=generator(0), dtype=torch.uint16)
    plain = View(jitter=0, grayscale=0)  # so that a difference is not enlarged
    make = MultiView((plain, plain), 16, (0.0,) * 2, (1.0,) * 2, peak=65535)
    resident = ResidentLoader(Resident(images), Batches(24, 8, seed=5), torch.device("cpu"))
    for batch, other in zip(islice(resident, 3), islice(stream(Resident(images), 0, 2, 5, make.views), 3), strict=True):
        draws = (generator(5, FOR_VIEWS, batch["number"]) for _ in range(2))
        views = make.of_images(batch["images"], next(draws), batch["rows"])
        others = make.of_crops(other["crops"], next(draws))
        for a, b in zip(views, others, strict=True):
            assert (a - b).abs().max() <= 1.01 / 65535


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_can_start_at_any_batch(mixed: list[bytes], workers: int) -> None:
    """Inside the first pass, at its end and later."""
    whole = list(islice(stream(Files(mixed)), 8))
    for start in (1, 3, 5):
        later = list(islice(stream(Files(mixed), start=start, workers=workers), 3))
        assert [batch["number"] for batch in later] == [start, start + 1, start + 2]
        assert same(whole[start : start + 3], later)


def test_crops_are_drawn_anew_for_every_view_batch_and_seed() -> None:
    files = Files([png(64, 64, 0)] * 8)  # the same picture eight times: only the draws differ
    first, second = (batch["crops"] for batch in islice(stream(files), 2))
    other = next(iter(stream(files, seed=1)))["crops"]
    crops = torch.cat([*first, *second, *other])
    assert len(crops.unique(dim=0)) == 48


def test_unreadable_files_are_replaced_and_listed(mixed: list[bytes]) -> None:
    before = next(iter(stream(Files(mixed))))["crops"]
    broken = take(Batches(24, 8, seed=0), 1)[0][3]
    loader = stream(Files([b"broken" if index == broken else file for index, file in enumerate(mixed)]))
    after = next(iter(loader))["crops"]
    assert list(loader.skipped) == [f"file {broken}"] and loader.skipped[f"file {broken}"]
    others = [place for place in range(8) if place != 3]
    for old, new in zip(before, after, strict=True):
        assert torch.equal(new[others], old[others]), "the others' crops stay as they were"
        assert not torch.equal(new[3], old[3])


def spoilt(files: list[bytes], *numbers: int) -> Files:
    """Every second of them by its header, the others by their pixels."""
    spoil = {number: b"broken" if place % 2 else files[number][:-200] for place, number in enumerate(numbers)}
    return Files([spoil.get(index, file) for index, file in enumerate(files)])


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_report_what_they_skipped(mixed: list[bytes], workers: int) -> None:
    loader = stream(spoilt(mixed, 5, 6, 17), workers=workers)
    batches = list(islice(loader, 3))
    assert sorted(loader.skipped) == ["file 17", "file 5", "file 6"] and all(loader.skipped.values())
    assert same(batches, list(islice(stream(spoilt(mixed, 5, 6, 17)), 3)))


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_images_are_an_error_of_one_line(mixed: list[bytes], workers: int) -> None:
    """A share of all images, however often the few are met."""
    loader = stream(spoilt(mixed, 1, 2, 3), workers=workers, max_unreadable=3 / 24)
    assert len(list(islice(loader, 9))) == 9 and len(loader.skipped) == 3
    loader = stream(spoilt(mixed, 1, 2, 3, 4), workers=workers, max_unreadable=3 / 24)
    with pytest.raises(
        OwnlatentError, match=r"^4 of the 24 images of files cannot be read.*--max-unreadable"
    ) as caught:
        list(islice(loader, 9))
    assert "\n" not in str(caught.value)


def test_no_unreadable_image_may_be_allowed(mixed: list[bytes]) -> None:
    assert len(list(islice(stream(Files(mixed), max_unreadable=0.0), 4))) == 4
    with pytest.raises(OwnlatentError, match="1 of the 24 images"):
        list(islice(stream(spoilt(mixed, 7), max_unreadable=0.0), 4))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_that_vanishes_is_an_error_of_one_line(mixed: list[bytes], workers: int, tmp_path: Path) -> None:
    """Before the first batch, and in the middle of training."""
    for before in (0, 2):
        loader = stream(Files(mixed, gone=tmp_path / f"gone{before}"), workers=workers)
        batches = iter(loader)
        for _ in range(before):
            next(batches)
        (tmp_path / f"gone{before}").touch()
        with pytest.raises(OwnlatentError, match="no image of files can be read any more") as caught:
            list(islice(batches, 20))
        assert "\n" not in str(caught.value) and not active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_vanishes_is_an_error_of_one_line(
    tmp_path: Path, write_image: Callable[..., Path], workers: int
) -> None:
    folder = tmp_path / "images"
    for number in range(8):
        write_image(folder / f"{number}.png", seed=number)
    loader = stream(Folder(folder), workers=workers)
    shutil.rmtree(folder)
    with pytest.raises(OwnlatentError, match="can be read any more") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value)


class Threads:
    """Images whose value is the number of torch's threads in the process that reads them."""

    name, classes = "threads", None

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Sample:
        return Sample(torch.full((1, 4, 4), torch.get_num_threads(), dtype=torch.uint8), None, self.title(index))

    def title(self, index: int) -> str:
        return f"{index}"


def test_a_worker_is_one_thread() -> None:
    """There are as many of them as processors."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        assert next(iter(stream(Threads(), workers=1)))["crops"][0].unique().tolist() == [1]
        assert next(iter(stream(Threads(), workers=0)))["crops"][0].unique().tolist() == [3]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_crops_for_a_gpu_wait_in_pinned_memory(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (24, 3, 30, 40), generator=generator(0)).to(dtype)
    for workers in (0, 2):
        (batch,) = islice(stream(Resident(images), workers=workers), 1)
        assert all(crop.is_pinned() and crop.dtype == dtype for crop in batch["crops"])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16])
def test_rows_can_be_picked_in_either_depth(dtype: torch.dtype) -> None:
    images = torch.arange(20).to(dtype).view(20, 1, 1, 1) * 3
    assert pick(images, torch.tensor([4, 0, 19, 4])).flatten().tolist() == [12, 0, 57, 12]
    assert pick(images, torch.tensor([1])).dtype == dtype


def test_a_killed_worker_is_an_error_of_one_line() -> None:
    """As the system kills what takes too much memory. Not with a real one: torch hears of its end by a signal and
    raises wherever the test then is, be it in pytest."""

    def batches() -> Iterator[None]:
        raise RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed.")
        yield

    with pytest.raises(OwnlatentError, match="--workers") as caught:
        next_batch(batches())
    assert "\n" not in str(caught.value)
