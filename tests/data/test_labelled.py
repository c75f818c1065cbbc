"""Labelled images as an evaluator reads them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ownlatent.data.labelled import Labelled, in_classes_of, part_of
from ownlatent.data.opening import open_source
from ownlatent.data.resident import Resident
from ownlatent.data.source import EncodedSource
from ownlatent.errors import OwnlatentError


def resident(n: int = 10, seed: int = 0) -> Resident:
    images = torch.randint(0, 256, (n, 3, 8, 8), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    return Resident(images, torch.arange(n) % 2, ("a", "b"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(9):
        path = tmp_path / "images" / "xyz"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12 + number, 20, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def opened(folder: Path) -> Labelled:
    return Labelled(open_source(folder, labelled=True))


def test_images_of_any_size_come_in_order_with_labels_and_places(folder: Path):
    ((images, labels, places),) = opened(folder).batches(3, 16)
    assert images.shape == (9, 3, 16, 16) and images.dtype == torch.uint8
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2] and places.tolist() == list(range(9))


def test_classes_of_one_name_stay_two():
    """ImageNet has two cranes: matched by name, the images of one would all be taken for the other."""
    images = resident(6)
    cranes = Labelled(Resident(images.images, torch.arange(6) % 3, ("crane", "maillot", "crane")))
    assert cranes.classes == ["crane", "maillot", "crane (2)"]
    assert in_classes_of(cranes.classes, torch.arange(3), cranes.classes).tolist() == [0, 1, 2]


def test_unreadable_images_are_left_out_by_place(folder: Path):
    (folder / "y" / "4.png").write_bytes(b"no picture")
    data = opened(folder)
    ((images, labels, places),) = data.batches(1, 16)
    assert images.shape == (8, 1, 16, 16)
    assert labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 2] and 4 not in places.tolist()
    assert list(data.skipped) == ["y/4.png"]


def test_nothing_readable_is_an_error(folder: Path):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(OwnlatentError, match="can be read"):
        list(opened(folder).batches(3, 16))


def test_batches_are_cut_from_one_order():
    data = Labelled(resident(1200))
    parts = list(data.batches(3, 8))
    assert [len(images) for images, _, _ in parts] == [512, 512, 176]
    assert torch.equal(torch.cat([images for images, _, _ in parts]), resident(1200).images)


def test_fingerprint_is_of_images_labels_classes_and_order():
    plain = Labelled(resident()).fingerprint
    assert plain == Labelled(resident()).fingerprint
    changed = [resident() for _ in range(4)]
    changed[0].images[3, 0, 0, 0] ^= 1
    changed[1].labels[2] = 1
    changed[2].classes = ("a", "c")
    changed[3].images = changed[3].images.flip(0)
    assert plain not in {Labelled(data).fingerprint for data in changed}
    assert Labelled(part_of(resident(), range(9))).fingerprint != plain


def test_fingerprint_of_files_is_of_their_bytes(folder: Path):
    plain = opened(folder).fingerprint
    assert plain == opened(folder).fingerprint
    image = Image.open(folder / "x" / "0.png")
    image.save(folder / "x" / "0.png", compress_level=0)
    assert opened(folder).fingerprint != plain


def test_no_labels_are_refused():
    data = resident()
    data.classes = None
    with pytest.raises(OwnlatentError, match="has no labels"):
        Labelled(data)


def test_other_channels_are_refused():
    data = Resident(torch.zeros((4, 5, 8, 8), dtype=torch.uint8), torch.zeros(4, dtype=torch.long), ("a",))
    with pytest.raises(OwnlatentError, match="5 channels and the encoder takes 3"):
        list(Labelled(data).batches(3, 8))


def test_a_part_is_a_source_of_its_own():
    whole = resident()
    part = part_of(whole, [7, 2])
    assert len(part) == 2 and part.classes == ("a", "b")
    assert torch.equal(part[0].image, whole[7].image) and part.title(1) == whole.title(2)


def test_a_part_of_files_reads_no_more_than_they_hold(folder: Path):
    whole = open_source(folder, labelled=True)
    part = part_of(whole, [8, 0])
    assert isinstance(part, EncodedSource) and part.encoded(0) == whole.encoded(8)
    assert [part[number].label for number in range(2)] == [2, 0] and torch.equal(part[1].image, whole[0].image)


def test_labels_are_matched_by_the_names_of_classes():
    labels = torch.tensor([0, 1, 2, 0])
    assert in_classes_of(("b", "new", "a"), labels, ("a", "b")).tolist() == [1, -1, 0, 1]
