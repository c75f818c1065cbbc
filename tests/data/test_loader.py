"""Batches are a function of (seed, number); how they are loaded changes nothing."""

import shutil
from collections import Counter
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path

import pytest
import torch

from ownlatent.augment.recipes import View
from ownlatent.data.folder import Folder
from ownlatent.data.loader import Batches, ResidentLoader, StreamingLoader, generator, order
from ownlatent.data.resident import Resident
from ownlatent.errors import OwnlatentError

VIEWS = (View(), View(crop_scale=(0.5, 1.0)))


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
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1)
    loader = ResidentLoader(Resident(images), Batches(20, 4, seed=3, start=2), torch.device("cpu"))
    for batch, indices, number in zip(
        islice(loader, 8), take(Batches(20, 4, seed=3), 10)[2:], range(2, 10), strict=True
    ):
        assert batch["images"].flatten().tolist() == indices
        assert batch["number"] == number
    assert loader.waited > 0


def stream(folder: Path, start: int = 0, workers: int = 0, seed: int = 0) -> StreamingLoader:
    source = Folder(folder)
    return StreamingLoader(source, VIEWS, 16, Batches(len(source), 8, seed, start), workers)


@pytest.fixture
def mixed_folder(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    for number in range(24):
        write_image(tmp_path / f"{number:02d}.png", height=20 + number, width=40 - number, seed=number)
    return tmp_path


def test_crops_do_not_depend_on_the_number_of_workers(mixed_folder: Path) -> None:
    alone, helped = (list(islice(stream(mixed_folder, workers=workers), 7)) for workers in (0, 2))
    for first, second in zip(alone, helped, strict=True):
        assert first["crops"].shape == (8, 2, 3, 16, 16) and first["crops"].dtype == torch.uint8
        assert first["number"] == second["number"]
        assert torch.equal(first["crops"], second["crops"])


def test_streaming_can_start_at_any_batch(mixed_folder: Path) -> None:
    whole, later = list(islice(stream(mixed_folder), 7)), list(islice(stream(mixed_folder, start=4), 3))
    assert [batch["number"] for batch in later] == [4, 5, 6]
    assert all(torch.equal(a["crops"], b["crops"]) for a, b in zip(whole[4:], later, strict=True))


def test_crops_are_drawn_anew_for_every_view_batch_and_seed(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for number in range(8):  # the same picture eight times: only the draws differ
        write_image(tmp_path / f"{number}.png", height=64, width=64)
    first, second = (batch["crops"] for batch in islice(stream(tmp_path), 2))
    other = next(iter(stream(tmp_path, seed=1)))["crops"]
    crops = torch.cat([batch.flatten(0, 1) for batch in (first, second, other)])
    assert len(crops.unique(dim=0)) == 48


def test_unreadable_files_are_replaced_and_listed(mixed_folder: Path) -> None:
    before = next(iter(stream(mixed_folder)))["crops"]
    order_of_first = take(Batches(24, 8, seed=0), 1)[0]
    broken = order_of_first[3]
    (mixed_folder / f"{broken:02d}.png").write_bytes(b"broken")
    loader = stream(mixed_folder)
    after = next(iter(loader))["crops"]
    assert list(loader.skipped) == [f"{broken:02d}.png"] and loader.skipped[f"{broken:02d}.png"]
    others = [place for place in range(8) if place != 3]
    assert torch.equal(after[others], before[others]), "the others' crops stay as they were"
    assert not torch.equal(after[3], before[3])


def test_workers_report_what_they_skipped(mixed_folder: Path) -> None:
    for number in (5, 6):
        (mixed_folder / f"{number:02d}.png").write_bytes(b"broken")
    loader = stream(mixed_folder, workers=2)
    list(islice(loader, 3))
    assert sorted(loader.skipped) == ["05.png", "06.png"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_folder_that_vanishes_is_an_error_of_one_line(mixed_folder: Path, workers: int) -> None:
    loader = stream(mixed_folder, workers=workers)
    shutil.rmtree(mixed_folder)
    with pytest.raises(OwnlatentError, match="can be read any more") as caught:
        next(iter(loader))
    assert "\n" not in str(caught.value)
