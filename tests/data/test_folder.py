"""A folder of image files as a source: what is listed, in which order, and what the labels are."""

import errno
import os
import pickle
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ownlatent.data.decode import Unreadable
from ownlatent.data.index import listing
from ownlatent.data.opening import open_source
from ownlatent.data.sources.folder import Folder, printable
from ownlatent.errors import OwnlatentError

WriteImage = Callable[..., Path]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNLATENT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def spoilt(tmp_path: Path, write_image: WriteImage) -> Folder:
    """0.png can be read; what becomes of 1.png is up to the test."""
    write_image(tmp_path / "images" / "0.png")
    write_image(tmp_path / "images" / "1.png")
    return Folder(tmp_path / "images")


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
    assert image.shape == (3, 2, 3)
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
    assert source.format.channels == channels
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
    assert source.format.channels == 1 and len(source) == 2
    with pytest.raises(Unreadable):
        source[0]
    assert source[1].image.shape == (1, 32, 32)


def test_one_good_file_among_many_broken_ones_is_found(tmp_path: Path, write_image: WriteImage) -> None:
    """More files than are probed at first, and the good one not among those."""
    for number in range(200):
        (tmp_path / f"{number:03d}.png").write_bytes(b"broken")
    write_image(tmp_path / "101.png", mode="L")
    assert Folder(tmp_path).format.channels == 1


def test_folders_with_nothing_to_read_are_answer(tmp_path: Path, write_image: WriteImage) -> None:
    with pytest.raises(OwnlatentError, match="there is no folder"):
        Folder(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(OwnlatentError, match="no image in"):
        Folder(tmp_path / "empty")
    with pytest.raises(OwnlatentError, match="is not a folder"):
        Folder(write_image(tmp_path / "file.png"))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "0.png").write_bytes(b"broken")
    with pytest.raises(OwnlatentError, match="none of the 1 images"):
        Folder(tmp_path / "broken")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(OwnlatentError, match=r"cannot be read .*symbolic links"):
        Folder(tmp_path / "circle")


def test_a_source_by_name(image_folder: Path, class_folder: Path) -> None:
    assert len(open_source(image_folder)) == len(open_source(str(image_folder) + os.sep)) == 60
    assert open_source(class_folder).classes is None
    assert open_source(class_folder, labelled=True).classes == ["blue", "green", "red"]


def test_a_refusal_names_a_folder_that_could_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "data").symlink_to("nowhere")
    with pytest.raises(OwnlatentError, match=r"no image in .* \(data cannot be read: a link to nothing\): give"):
        Folder(tmp_path)


def test_folders_that_cannot_be_read_are_listed(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "a" / "0.png")
    (tmp_path / "b").symlink_to("nowhere")
    assert Folder(tmp_path).skipped == [("b", "a link to nothing")]
    assert Folder(tmp_path / "a").skipped == []


def answer(source: Folder, index: int) -> bytes | str:
    """The content of an image, or the reason why it is unreadable; fails if either takes longer than a few seconds."""
    answers: list[bytes | str] = []

    def ask() -> None:
        try:
            answers.append(source.encoded(index))
        except Unreadable as error:
            answers.append(str(error))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(timeout=10)
    assert not asking.is_alive(), "it hangs"
    return answers[0]


def test_what_is_no_file_is_unreadable_and_does_not_hang(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "0.png")
    os.mkfifo(tmp_path / "1.png")
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("2.png")
    (tmp_path / "3.png").symlink_to("/dev/zero")
    (tmp_path / "4.png").symlink_to("4.png")
    (tmp_path / "5.png").symlink_to("nowhere.png")
    (tmp_path / "6.png").mkdir()
    source = Folder(tmp_path)
    assert source.paths == [f"{number}.png" for number in range(6)], "a folder is none, whatever its name"
    assert [answer(source, index) for index in (1, 2, 3)] == ["not a regular file"] * 3
    assert answer(source, 4) == "too many levels of symbolic links"
    assert answer(source, 5) == "a link to nothing"


def test_what_changed_since_is_unreadable(spoilt: Folder, write_image: WriteImage) -> None:
    path = spoilt.root / spoilt.paths[1]
    path.unlink()
    assert answer(spoilt, 1) == "no longer there"
    path.mkdir()
    assert answer(spoilt, 1) == "not a regular file"
    path.rmdir()
    path.write_bytes(b"")
    os.truncate(path, (2 << 30) + 1)
    assert answer(spoilt, 1) == "larger than 2 GiB"
    assert spoilt[0].image.shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), "permission denied"),
        (OSError(errno.EIO, "Input/output error"), "input/output error"),
        (MemoryError(), "too large for the memory"),
    ],
    ids=repr,
)
def test_what_the_system_refuses_is_unreadable(
    spoilt: Folder, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def refuse(path: bytes, flags: int) -> int:
        raise error

    monkeypatch.setattr(os, "open", refuse)
    assert answer(spoilt, 1) == reason


def test_a_pipe_in_the_place_of_a_file_that_was_just_there_does_not_hang(
    spoilt: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spoilt.root / spoilt.paths[1]
    status = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda path: status)
        assert answer(spoilt, 1) == b""
        writer = os.open(path, os.O_RDWR)
        assert answer(spoilt, 1) == b""
    os.close(writer)


def test_only_a_sample_is_read_to_begin_with(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "0000.png")
    for number in range(1, 1_000):
        os.link(tmp_path / "0000.png", tmp_path / f"{number:04d}.png")
    opened: list[int] = []
    encoded = Folder.encoded

    def counted(self: Folder, index: int) -> bytes:
        opened.append(index)
        return encoded(self, index)

    monkeypatch.setattr(Folder, "encoded", counted)
    Folder(tmp_path)
    assert 32 < len(opened) <= 64 and max(opened) > 900


def test_a_relative_root_stays_where_it_was(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "images" / "0.png")
    monkeypatch.chdir(tmp_path)
    source = Folder(Path("images"))
    monkeypatch.chdir("/")
    assert source.name == "images" and source[0].image.shape == (3, 32, 32)


def test_it_is_a_sequence(class_folder: Path) -> None:
    source = Folder(class_folder, labelled=True)
    assert len(list(source)) == 60  # type: ignore[call-overload]
    assert source.title(-1) == source.paths[-1] and source.label(-1) == 2 and source[-1].name == source.title(59)
    with pytest.raises(IndexError):
        source[60]


@pytest.mark.parametrize("small", [0, 2_000], ids=["kept", "not kept"])
def test_a_pickled_folder_is_the_same(class_folder: Path, monkeypatch: pytest.MonkeyPatch, small: int) -> None:
    monkeypatch.setattr(listing, "SMALL", small)
    monkeypatch.setattr(listing, "SETTLED", 0)
    source = Folder(class_folder, labelled=True)
    copy = pickle.loads(pickle.dumps(source))
    assert (source.listing.memory is None) == (copy.listing.memory is None) == (small > 0)
    assert copy.paths == source.paths and copy.classes == source.classes and copy.format == source.format
    assert [copy.label(index) for index in range(60)] == [0] * 20 + [1] * 20 + [2] * 20
    assert (copy[7].image == source[7].image).all()


def test_names_that_are_no_text_are_read_and_shown(tmp_path: Path, write_image: WriteImage) -> None:
    image = write_image(tmp_path / "0.png")
    (tmp_path / "images").mkdir()
    try:
        for name in (b"a\xff/caf\xe9.png", b"b/two\nlines.png"):
            path = Path(os.fsdecode(os.fsencode(tmp_path / "images") + b"/" + name))
            path.parent.mkdir()
            os.link(image, path)
    except OSError:
        pytest.skip("this file system knows only UTF-8")
    source = Folder(tmp_path / "images", labelled=True)
    assert source.classes == ["a\\xff", "b"]
    assert source.paths == ["a\udcff/caf\udce9.png", "b/two\nlines.png"]
    assert [source.title(index) for index in range(2)] == ["a\\xff/caf\\xe9.png", "b/two\\nlines.png"]
    assert [source[index].label for index in range(2)] == [0, 1]


@pytest.mark.parametrize("name", ["Bildschirmfoto um 10.00.png", "写真\u3000一.png", "ナ\u202fö.png", "👩\u200d🔬.png"])
def test_what_can_be_shown_is_shown_as_it_is(name: str) -> None:
    assert printable(name.encode()) == name


@pytest.mark.parametrize("name", [b"\x1b[2J.png", b"\r.png", b"\xff\xfe", "\u2028".encode(), b"\xed\xb2\x80"])
def test_what_cannot_be_shown_is_an_escape(name: bytes) -> None:
    assert printable(name).isascii() and printable(name).isprintable()
