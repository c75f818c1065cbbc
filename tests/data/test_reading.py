"""Images in order for an encoder, decoded ahead of it."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from ownlatent.data.decode import Unreadable
from ownlatent.data.opening import open_source
from ownlatent.data.reading import batches
from ownlatent.data.resident import Resident
from ownlatent.data.source import Stacked
from ownlatent.data.sources.arrays import Arrays
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores
from ownlatent.types import Sample


class Counted:
    """Images whose value is their number, of which some cannot be read; tells which were asked for."""

    name, classes = "counted", None

    def __init__(self, count: int, broken: frozenset[int] = frozenset()):
        self.count, self.broken = count, broken
        self.asked: set[int] = set()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        self.asked.add(index)
        if index in self.broken:
            raise Unreadable("broken")
        return Sample(torch.full((1, 4, 4), index % 256, dtype=torch.uint8), None, self.title(index))

    def title(self, index: int) -> str:
        return f"image {index}"


@pytest.mark.parametrize("batch_size", [1, 3, 8, 20, 64, 1000])
@pytest.mark.parametrize("start", [0, 5, 99, 100])
def test_every_image_comes_once_in_order(batch_size: int, start: int):
    source = Counted(100, frozenset({0, 5, 6, 50, 99}))
    found = list(batches(source, 1, 4, batch_size, start))
    edges = [start, *(batch.stop for batch in found)]
    assert [batch.first for batch in found] == edges[:-1] and (not found or edges[-1] == 100)
    assert all(batch.stop - batch.first == batch_size for batch in found[:-1])
    places = [place for batch in found for place in batch.places]
    skipped = [place for batch in found for place, _, _ in batch.skipped]
    assert places == [n for n in range(start, 100) if n not in source.broken]
    assert skipped == sorted(n for n in source.broken if n >= start)
    for batch in found:
        assert batch.names == [f"image {place}" for place in batch.places]
        if batch.images is None:
            assert not batch.places
        else:
            assert batch.images[:, 0, 0, 0].tolist() == list(batch.places)


def test_a_reading_that_goes_on_has_the_same_batches():
    source = Counted(100, frozenset({3}))
    whole = list(batches(source, 1, 4, 24))
    for number, batch in enumerate(whole):
        again = list(batches(source, 1, 4, 24, batch.first))
        assert [b.places for b in again] == [b.places for b in whole[number:]]


def test_the_next_batch_is_decoded_while_one_is_used():
    source = Counted(10_000)
    first = next(reading := batches(source, 1, 4, 64))
    until = threading.Event()
    for _ in range(1000):
        if set(range(first.stop, first.stop + 64)) <= source.asked:
            break
        until.wait(0.01)
    assert set(range(64, 128)) <= source.asked
    assert max(source.asked) < 64 + 64 + 8 * 4 * cores() + 8, "and not everything is held in memory"
    reading.close()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(30 * 48, dtype=np.uint8).reshape(30, 4, 4, 3),
        np.arange(30 * 48, dtype=np.uint8).reshape(30, 3, 4, 4),
        np.arange(30 * 16, dtype=np.uint8).reshape(30, 4, 4),
        np.arange(30 * 16, dtype=np.uint16).reshape(30, 4, 4),
        np.linspace(0, 1, 30 * 16, dtype=np.float32).reshape(30, 4, 4),
    ],
    ids=["last", "first", "gray", "16 bits", "floats"],
)
def test_arrays_come_as_they_would_one_by_one(array: np.ndarray):
    source = Arrays(array)
    for first, stop in ((0, 30), (7, 9)):
        stacked = source.stack(first, stop)
        assert (stacked is None) == (array.dtype == np.float32)
        if stacked is not None:
            assert torch.equal(stacked[0], torch.stack([source[n].image for n in range(first, stop)]))
    (batch,) = batches(source, source.format.channels, 4)
    assert torch.equal(batch.images, torch.stack([source[n].image for n in range(30)]))
    assert batch.names == [source.title(n) for n in range(30)] and batch.labels == [None] * 30


def test_labels_of_what_is_stacked():
    resident = Resident(torch.zeros(10, 1, 4, 4, dtype=torch.uint8), torch.arange(10) % 3, ("a", "b", "c"))
    photos = open_source("photos:test")
    labelled = Arrays(np.zeros((10, 4, 4), np.uint8), labels=list(range(10)))
    for source in (resident, photos, labelled):
        assert isinstance(source, Stacked)
        images, labels = source.stack(2, 9)
        assert labels == [source[n].label for n in range(2, 9)]
        assert torch.equal(images, torch.stack([source[n].image for n in range(2, 9)]))


def test_a_mapped_file_is_not_written_to(tmp_path: Path):
    np.save(tmp_path / "images.npy", np.ones((5, 8, 8), np.uint8))
    (batch,) = batches(open_source(tmp_path / "images.npy"), 1, 8)
    batch.images.zero_()
    assert np.load(tmp_path / "images.npy").all()


def test_other_sizes_and_channels_are_brought_to_what_is_wanted():
    source = Resident(torch.randint(0, 256, (10, 1, 20, 20)).to(torch.uint8))
    (batch,) = batches(source, 3, 16)
    assert batch.images.shape == (10, 3, 16, 16)
    with pytest.raises(OwnlatentError, match="5 channels and the encoder takes 3"):
        list(batches(Resident(torch.zeros(4, 5, 16, 16, dtype=torch.uint8)), 3, 16))
