"""A small data set in memory: order, labels, what is skipped, and when it does not fit."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from decoded import Decoded

from ownlatent.data.decode import fit_square
from ownlatent.data.resident import MixedSizes, Resident, check_unreadable, load_resident
from ownlatent.data.sources.folder import Folder
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
    assert resident.images.is_contiguous()  # the compiled loops would otherwise copy all of it for every batch


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


def test_a_tensor_of_ones_own() -> None:
    resident = Resident(torch.zeros(5, 1, 8, 8, dtype=torch.uint8), torch.arange(5), list("abcde"))
    assert len(resident) == 5 and resident[3].label == 3 and resident[3].image.shape == (1, 8, 8)
    assert resident[3].name == resident.title(3) == "tensor[3]"


@pytest.mark.parametrize("channels", [1, 4, 13])
def test_sixteen_bits_and_any_channels_stay_what_they_are(channels: int) -> None:
    images = torch.randint(0, 65536, (6, channels, 9, 7), dtype=torch.uint16)
    apart = [image.permute(1, 2, 0).contiguous().permute(2, 0, 1) for image in images]  # as decoders make them
    resident = load_resident(Decoded([*apart[:2], None, *apart[2:]], list("abcdefg")))
    assert resident.images.dtype == torch.uint16 and resident.images.is_contiguous()
    assert torch.equal(resident.images, images)
    assert resident.skipped == [("array 2", "nothing there")]
    assert resident.labels is not None and resident.labels.tolist() == [0, 1, 3, 4, 5, 6]


def test_the_reason_is_in_the_error_if_nothing_can_be_read() -> None:
    with pytest.raises(OwnlatentError, match="none of the 3 images of arrays can be read: nothing there"):
        load_resident(Decoded([None] * 3))


def test_loading_a_resident_again_changes_nothing() -> None:
    """It is a source itself."""
    first = Resident(torch.arange(60, dtype=torch.uint8).view(5, 3, 2, 2), torch.arange(5), list("abcde"))
    again = load_resident(first)
    assert torch.equal(again.images, first.images) and again.classes == first.classes
    assert again.labels is not None and again.labels.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("skipped", "most"), [(0, 0.0), (1, 0.01), (5, 0.05), (100, 1.0)])
def test_as_many_unreadable_images_as_are_allowed(skipped: int, most: float) -> None:
    check_unreadable({f"{number}.png": "broken" for number in range(skipped)}, 100, "a folder", most)


@pytest.mark.parametrize(("skipped", "most"), [(1, 0.0), (2, 0.01), (6, 0.05), (100, 0.99)])
def test_more_unreadable_images_than_are_allowed(skipped: int, most: float) -> None:
    with pytest.raises(OwnlatentError) as caught:
        check_unreadable({f"{number}.png": "broken" for number in range(skipped)}, 100, "a folder", most)
    message = str(caught.value)
    assert message.startswith(
        f"{skipped} of the 100 images of a folder cannot be read, the first of them 0.png (broken)"
    )
    assert f"{100 * most:g}%" in message and "--max-unreadable" in message and "\n" not in message


def test_a_small_share_is_not_called_none() -> None:
    with pytest.raises(OwnlatentError, match=r"more than 0\.1%"):
        check_unreadable({"a": "broken", "b": "broken"}, 1000, "a folder", 0.001)


def test_images_of_another_size_are_noticed_at_once(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    """And not after everything was decoded."""
    for number in range(200):
        write_image(tmp_path / f"{number:03d}.png", height=20 + (number == 1), width=20)
    shares: list[float] = []
    with pytest.raises(MixedSizes):
        load_resident(Folder(tmp_path), progress=shares.append)
    assert len(shares) < 5
