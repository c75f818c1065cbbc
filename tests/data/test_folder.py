"""A folder of image files as a source: what is listed, in which order, and what the labels are."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ownlatent.data.folder import Folder
from ownlatent.data.opening import open_source
from ownlatent.data.source import Unreadable
from ownlatent.errors import OwnlatentError

WriteImage = Callable[..., Path]


@pytest.mark.parametrize("made_in", [1, -1], ids=["forwards", "backwards"])
def test_files_are_listed_by_path_whatever_the_order_on_disk(
    tmp_path: Path, write_image: WriteImage, made_in: int
) -> None:
    names = ["10.png", "2.png", "B.png", "a.png", "b/0.png", "b/c/1.png"]
    for name in names[::made_in]:
        write_image(tmp_path / name)
    assert Folder(tmp_path).paths == sorted(names)


def test_only_images_are_listed_and_hidden_files_are_not(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("a.png", "b.JPG", "c.webp", ".hidden.png", ".cache/d.png", "sub/.thumbnails/e.png"):
        write_image(tmp_path / name)
    for name in ("notes.txt", "sub/list.csv", "png", "a.png.part"):
        (tmp_path / name).write_text("no image")
    assert Folder(tmp_path).paths == ["a.png", "b.JPG", "c.webp"]


def test_items_hold_the_pixels_of_their_files(tmp_path: Path) -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "tiny.png")
    image, label, name = Folder(tmp_path)[0]
    assert image.shape == (3, 2, 3) and image.is_contiguous()
    assert (image.numpy().transpose(1, 2, 0) == pixels).all()
    assert (label, name) == (None, "tiny.png")


def test_labels_are_there_only_when_asked_for(class_folder: Path) -> None:
    unlabelled = Folder(class_folder)
    assert unlabelled.classes is None
    assert {unlabelled[index].label for index in (0, 20, 59)} == {None}
    labelled = Folder(class_folder, labelled=True)
    assert labelled.classes == ["blue", "green", "red"]
    assert [labelled[index].label for index in (0, 19, 20, 39, 40, 59)] == [0, 0, 1, 1, 2, 2]
    assert labelled.paths == unlabelled.paths


def test_the_class_is_the_first_folder_below_the_root(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("cat/indoor/0.png", "cat/outdoor/0.png", "dog/0.png"):
        write_image(tmp_path / name)
    source = Folder(tmp_path, labelled=True)
    assert source.classes == ["cat", "dog"]
    assert [source[index].label for index in range(3)] == [0, 0, 1]


@pytest.mark.parametrize("names", [["0.png", "1.png"], ["cat/0.png"], ["cat/0.png", "dog/0.png", "loose.png"]])
def test_labels_need_a_class_for_every_image(tmp_path: Path, write_image: WriteImage, names: list[str]) -> None:
    for name in names:
        write_image(tmp_path / name)
    assert len(Folder(tmp_path)) == len(names)
    with pytest.raises(OwnlatentError, match="no class subfolders"):
        Folder(tmp_path, labelled=True)


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3)])
def test_gray_files_have_one_channel(tmp_path: Path, write_image: WriteImage, mode: str, channels: int) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", mode=mode)
    source = Folder(tmp_path)
    assert source.channels == channels
    assert source[0].image.shape == (channels, 32, 32)


def test_one_colour_file_makes_the_folder_colour(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "0.png", mode="L")
    write_image(tmp_path / "1.png", mode="RGB")
    source = Folder(tmp_path)
    assert [source[index].image.shape[0] for index in range(2)] == [3, 3]


def test_broken_files_do_not_decide_about_colour(tmp_path: Path, write_image: WriteImage) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    write_image(tmp_path / "1.png", mode="L")
    source = Folder(tmp_path)
    assert source.channels == 1 and len(source) == 2
    with pytest.raises(Unreadable):
        source[0]
    assert source[1].image.shape == (1, 32, 32)


def test_one_good_file_among_many_broken_ones_is_found(tmp_path: Path, write_image: WriteImage) -> None:
    """More files than are probed at first, and the good one not among those."""
    for number in range(200):
        (tmp_path / f"{number:03d}.png").write_bytes(b"broken")
    write_image(tmp_path / "100.png", mode="L")
    assert Folder(tmp_path).channels == 1


def test_folders_with_nothing_to_read_are_refused(tmp_path: Path, write_image: WriteImage) -> None:
    with pytest.raises(OwnlatentError, match="there is no folder"):
        Folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OwnlatentError, match="no image in"):
        Folder(tmp_path / "empty")
    with pytest.raises(OwnlatentError, match="is not a folder"):
        Folder(write_image(tmp_path / "file.png"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"broken")
    with pytest.raises(OwnlatentError, match="none of the 1 image files"):
        Folder(tmp_path / "broken")


def test_a_source_by_name(image_folder: Path, class_folder: Path) -> None:
    assert len(open_source(image_folder)) == len(open_source(str(image_folder) + os.sep)) == 60
    assert open_source(class_folder).classes is None
    assert open_source(class_folder, labelled=True).classes == ["blue", "green", "red"]
