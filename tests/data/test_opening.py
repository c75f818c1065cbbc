"""Which source a name means, and what is said about names that mean none."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.sources.arrays import Arrays
from ownlatent.data.sources.folder import Folder
from ownlatent.data.sources.parquet import Parquet
from ownlatent.data.sources.photos import Photos
from ownlatent.data.sources.shards import Shards
from ownlatent.data.sources.wrapped import Joined, JoinedFiles

Picture = Callable[..., bytes]
Refuses = Callable[..., str]
WriteImage = Callable[..., Path]

pytestmark = pytest.mark.usefixtures("cache")


def tar(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as opened:
        entry = tarfile.TarInfo("0.png")
        entry.size = len(content)
        opened.addfile(entry, io.BytesIO(content))
    return path


def table(path: Path, content: bytes) -> Path:
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"image": [content]}), path)
    return path


@pytest.fixture
def place(tmp_path: Path, picture: Picture, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One image in a source of every kind."""
    write_image(tmp_path / "images" / "cat" / "0.png", 8, 8)
    write_image(tmp_path / "more, images" / "0.png", 8, 8)
    write_image(tmp_path / "{odd} [name]" / "0.png", 8, 8)
    for number in range(3):
        tar(tmp_path / "shards" / f"{number:02d}.tar", picture(number))
        table(tmp_path / "tables" / f"{number:02d}.parquet", picture(number))
    (tmp_path / "shards" / "README.md").write_text("words")
    (tmp_path / "tables" / ".hidden.png").write_text("")
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 8, 8), np.uint8))
    np.savez(tmp_path / "a.NPZ", images=np.zeros((2, 3, 8, 8), np.uint8))
    (tmp_path / "a.NPZ.npz").rename(tmp_path / "a.NPZ")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("images", Folder, 1),
        ("images/", Folder, 1),
        ("~/images", Folder, 1),
        ("more, images", Folder, 1),
        ("{odd} [name]", Folder, 1),
        ("shards", Shards, 3),
        ("shards/00.tar", Shards, 1),
        ("shards/*.tar", Shards, 3),
        ("~/shards/*.tar", Shards, 3),
        ("shards/{00..02}.tar", Shards, 3),
        ("shards/{00,02}.tar", Shards, 2),
        ("tables", Parquet, 3),
        ("tables/01.parquet", Parquet, 1),
        ("tables/0[12].parquet", Parquet, 2),
        ("a.npy", Arrays, 2),
        ("a.NPZ", Arrays, 2),
        ("photos:test", Photos, 1400),
        ("images,shards", JoinedFiles, 4),
        ("images, shards/{00..01}.tar, tables", JoinedFiles, 6),
        ("images,a.npy", Joined, 3),
        ("{images,more, images}", JoinedFiles, 2),
        ("{shards,tables}/", JoinedFiles, 6),
        ("a.[nN]*", Joined, 4),
    ],
)
def test_what_a_name_means(place: Path, name: str, kind: type, count: int) -> None:
    if name == "{images,more, images}":  # a space is part of a choice in braces
        (place / " images").mkdir()
        (place / "more").symlink_to(place / "images")
        (place / " images" / "0.png").write_bytes((place / "images" / "cat" / "0.png").read_bytes())
        count = 3
    source = open_source(name)
    assert type(source) is kind and len(source) == count
    assert source[0].image.dtype == torch.uint8 and source[count - 1].name == source.title(count - 1)
    assert type(open_source(Path(name))) is kind or name.endswith("/")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "there is no folder nowhere"),
        ("nowhere.tar", "there is no file nowhere.tar: give the path of one, or of a folder of images"),
        ("nowhere.parquet", "there is no file nowhere.parquet"),
        ("nowhere.tar.gz", "there is no file nowhere.tar.gz"),
        ("images/cat/0.png", "is not a folder"),
        ("images/cat/*.png", "names images one by one: give the folder that holds them, images/cat"),
        ("shards/*.zip", "nothing matches shards/*.zip"),
        (
            "shards/{00..05}.tar",
            "3 of the 6 files that shards/{00..05}.tar names are missing, the first is shards/03.tar",
        ),
        ("{shards/00.tar,tables/00.parquet}", "names files of several kinds"),
        ("shards/*", "names files of several kinds"),
        ("mixed", "mixed names files of several kinds"),
        ("split", "holds several parts (test, train): name one by a pattern, such as split/test*.tar"),
        ("half", "holds several parts (others, train): name one by a pattern, such as half/train*.tar"),
        ("photos:all", "the built-in photographs have the parts train and test, not 'all'"),
        ("foto:train", "foto:train names no source: before a colon, the nearest is photos"),
        (
            "https://example.org/images.tar",
            "before a colon, valid are hf, photos, sounds, torchvision",
        ),
        ("images,nowhere", "there is no folder nowhere"),
        (",", "there is no folder ,"),
        ("", "the name of the data is empty: give a folder"),
        ("  ", "the name of the data is empty: give a folder"),
        ("a" * 300, "cannot be read (File name too long)"),
        ("a" * 300 + ".tar", "there is no file aaa"),
        (",".join(f"{number:050}" for number in range(100)), f"there is no folder {0:050}"),
    ],
)
def test_what_no_name_means(place: Path, picture: Picture, name: str, words: str, refuses: Refuses) -> None:
    tar(place / "mixed" / "a.tar", picture(0))
    table(place / "mixed" / "a.parquet", picture(0))
    for path in ("split/train-0.tar", "split/train-1.tar", "split/test.tar", "half/train.tar", "half/photos.tar"):
        tar(place / path, picture(0))
    refuses(lambda: open_source(name), words)


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ["test.parquet"],
        ["training_0.parquet", "train1.parquet"],
        ["trains.parquet", "tested.parquet"],
        ["000.parquet", "001.parquet"],
    ],
)
def test_files_of_one_part_are_one_source(tmp_path: Path, picture: Picture, names: list[str]) -> None:
    for name in names:
        table(tmp_path / name, picture(0))
    assert len(open_source(tmp_path)) == len(names)


def test_a_folder_with_images_or_folders_is_one_of_images(
    place: Path, write_image: WriteImage, picture: Picture
) -> None:
    write_image(place / "shards" / "0.png", 8, 8)
    assert type(open_source("shards")) is Folder
    tar(place / "images" / "0.tar", picture(0))
    assert type(open_source("images")) is Folder


def test_a_link_to_itself_is_passed_over(place: Path, refuses: Refuses) -> None:
    (place / "loop").mkdir()
    (place / "loop" / "self").symlink_to("self")
    refuses(lambda: open_source("loop"), "no image in loop")
    (place / "shards" / "self").symlink_to("self")
    assert type(open_source("shards")) is Shards


def test_a_folder_that_may_not_be_read(place: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    def scandir(path: object) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("os.scandir", scandir)
    refuses(lambda: open_source("images"), "images cannot be read (Permission denied)")


def test_labels_are_wanted_of_every_kind(place: Path, refuses: Refuses) -> None:
    for name, words in (
        ("images", "images has no class subfolders"),
        ("shards", "shards has no labels: beside each image KEY.jpg there must be"),
        ("tables", "tables has no labels: its columns are"),
        ("a.npy", "a.npy has no labels: store them together"),
        ("images,shards", "images has no class subfolders"),
    ):
        refuses(lambda name=name: load_labelled(name, 3, 8), words)
    own = open_source("images")
    refuses(lambda: load_labelled(own, 3, 8), "images has no labels: give one that has")


def test_images_in_the_shape_that_an_evaluator_wants(class_folder: Path, refuses: Refuses) -> None:
    for channels in (1, 3):
        data = load_labelled(class_folder, channels, 16)
        assert data.images.shape == (60, channels, 16, 16) and data.images.dtype == torch.uint8
        assert data.labels is not None and data.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    refuses(lambda: load_labelled(class_folder, 2, 16), "have 3 channels and the encoder takes 2")


def test_what_is_a_source_already_stays_it() -> None:
    source = open_source(np.zeros((2, 3, 8, 8), np.uint8))
    assert open_source(source) is source
