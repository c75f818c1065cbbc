"""A small data set in memory: order, labels, what is skipped, and when it does not fit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ownlatent.data.decode import fit_square
from ownlatent.data.folder import Folder
from ownlatent.data.resident import MixedSizes, Resident, fits_memory, load_resident
from ownlatent.errors import OwnlatentError


@pytest.fixture
def spoilt_folder(tmp_path: Path, class_folder: Path) -> Path:
    """The class folder with a truncated, an empty and a text file in it."""
    root = tmp_path / "spoilt"
    shutil.copytree(class_folder, root)
    truncated = root / "blue" / "001.png"
    truncated.write_bytes(truncated.read_bytes()[:300])
    (root / "green" / "000.jpg").write_bytes(b"")
    (root / "red" / "zzz.jpg").write_text("not an image")
    return root


def test_images_and_labels_are_in_the_sources_order(class_folder: Path) -> None:
    source = Folder(class_folder, labelled=True)
    resident = load_resident(source)
    assert resident.images.shape == (60, 3, 32, 32) and resident.images.dtype == torch.uint8
    assert resident.labels is not None and resident.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    for index in (0, 1, 31, 59):
        assert torch.equal(resident[index].image, source[index].image)
        assert resident[index].label == source[index].label
    assert resident.classes == ["blue", "green", "red"] and resident.skipped == []


def test_without_labels_there_are_none(class_folder: Path) -> None:
    resident = load_resident(Folder(class_folder))
    assert resident.labels is None and resident.classes is None and resident[0].label is None


def test_unreadable_files_are_skipped_and_listed_and_labels_stay_right(spoilt_folder: Path) -> None:
    resident = load_resident(Folder(spoilt_folder, labelled=True))
    assert [name for name, _ in resident.skipped] == ["blue/001.png", "green/000.jpg", "red/zzz.jpg"]
    assert all(reason for _, reason in resident.skipped)
    assert resident.labels is not None and resident.labels.tolist() == [0] * 19 + [1] * 19 + [2] * 20
    brightest = resident.images.float().mean((2, 3)).argmax(1)  # blue, green and red, in the order of the classes
    assert torch.equal(brightest, 2 - resident.labels)


def test_nothing_readable_is_an_error(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    path = write_image(tmp_path / "0.png")
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(OwnlatentError, match="none of the 1 images"):
        load_resident(Folder(tmp_path))


def test_different_sizes_do_not_stack_unless_they_are_made_to_fit(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    for number in range(4):
        write_image(tmp_path / f"{number}.png", height=20 + number)
    source = Folder(tmp_path)
    with pytest.raises(MixedSizes):
        load_resident(source)
    assert load_resident(source, lambda image: fit_square(image, 16)).images.shape == (4, 3, 16, 16)


def test_progress_runs_to_the_end(image_folder: Path) -> None:
    shares: list[float] = []
    load_resident(Folder(image_folder), progress=shares.append)
    assert shares == sorted(shares) and len(shares) == 60 and shares[-1] == 1


def test_what_fits_memory(tmp_path: Path, image_folder: Path, write_image: Callable[..., Path]) -> None:
    source = Folder(image_folder)
    size = 60 * 3 * 32 * 32
    assert fits_memory(source, size) and not fits_memory(source, size - 1)
    write_image(tmp_path / "0.png", height=20)
    write_image(tmp_path / "1.png", height=21)
    assert not fits_memory(Folder(tmp_path), 10**9), "images of different sizes do not fit one tensor"


def test_a_tensor_of_ones_own() -> None:
    resident = Resident(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5), list("abcde"))
    assert len(resident) == 5 and resident[3].label == 3 and resident[3].image.shape == (1, 8, 8)
    assert resident[3].name == "tensor[3]"
