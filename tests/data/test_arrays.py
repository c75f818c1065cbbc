"""Arrays as sources: their layout by their shape, mapped files, labels beside them, and what is no image."""

import pickle
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.sources import arrays
from ownlatent.data.sources.arrays import Arrays

Refuses = Callable[..., str]

IMAGES = np.random.default_rng(0).integers(0, 256, (20, 6, 8, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "array",
    [IMAGES, IMAGES.transpose(0, 3, 1, 2), torch.from_numpy(IMAGES), torch.from_numpy(IMAGES).permute(0, 3, 1, 2)],
    ids=["NHWC", "NCHW", "tensor NHWC", "tensor NCHW"],
)
def test_colour_in_either_layout(array: object) -> None:
    source = open_source(array)
    assert isinstance(source, Arrays) and len(source) == 20 and source.format == Format(3, 8) and source.classes is None
    for index in (0, 7, -1):
        image, label, name = source[index]
        assert image.is_contiguous() and np.array_equal(image.numpy(), IMAGES[index].transpose(2, 0, 1))
        assert label is None and name == source.title(index) == f"array[{index % 20}]"
    with pytest.raises(IndexError):
        source[20]


def test_gray_has_no_axis_for_channels() -> None:
    source = Arrays(IMAGES[..., 0])
    assert source.format == Format(1, 8) and np.array_equal(source[3].image.numpy(), IMAGES[3, None, :, :, 0])


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_channels(channels: int) -> None:
    array = np.zeros((4, channels, 20, 20), np.uint16) + np.arange(channels, dtype=np.uint16)[:, None, None]
    source = Arrays(array + np.uint16(300))
    assert source.format == Format(channels, 16)
    assert source[1].image[:, 0, 0].tolist() == list(range(300, 300 + channels))


def test_floats_become_sixteen_bits_one_image_at_a_time() -> None:
    values = np.random.default_rng(1).random((5, 8, 8))
    source = Arrays(values)
    assert source.format == Format(1, 16) and source[2].image.dtype == torch.uint16
    assert np.abs(source[2].image.numpy()[0] / 65535 - values[2]).max() < 1e-5
    assert source.full_scale == 65535 and Arrays(torch.from_numpy(values)).full_scale == 65535
    assert Arrays((values * 4095).astype(np.uint16)).full_scale is None


def test_eight_bits_divided_by_255_are_eight_bits_again() -> None:
    source = Arrays((IMAGES / 255).astype(np.float32))
    assert source.format == Format(3, 8) and source.full_scale is None
    assert np.array_equal(source[4].image.numpy(), IMAGES[4].transpose(2, 0, 1))


def test_a_file_is_mapped_and_pickled_as_its_path(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    source = open_source(tmp_path / "a.npy")
    assert isinstance(source, Arrays) and isinstance(source._array, np.memmap)
    assert source.name == str(tmp_path / "a.npy") and source.title(2) == f"{source.name}[2]"
    content = pickle.dumps(source)
    assert len(content) < 2000
    again = pickle.loads(content)
    assert isinstance(again._array, np.memmap)
    assert torch.equal(again[5].image, source[5].image)


def test_in_memory_it_is_pickled_once() -> None:
    content = pickle.dumps(Arrays(IMAGES))
    assert IMAGES.nbytes < len(content) < IMAGES.nbytes + 2000
    assert torch.equal(pickle.loads(content)[3].image, Arrays(IMAGES)[3].image)


def test_threads_read_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    source = open_source(tmp_path / "a.npy")
    indices = list(range(20)) * 20
    with ThreadPoolExecutor(8) as pool:
        for index, image in zip(indices, pool.map(lambda index: source[index].image, indices), strict=True):
            assert np.array_equal(image.numpy(), IMAGES[index].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("names", "images", "labels"),
    [
        (("images", "labels"), "images", "labels"),
        (("x", "y"), "x", "y"),
        (("other", "images", "y"), "images", "y"),
        (("train_images", "train_labels", "test_images", "test_labels"), "train_images", "train_labels"),
        (("x_test", "x_train", "y_train", "y_test"), "x_test", "y_test"),
        (("pictures", "labels"), "pictures", "labels"),
    ],
)
def test_an_archive_names_its_arrays(tmp_path: Path, names: tuple[str, ...], images: str, labels: str) -> None:
    content = {}
    for number, name in enumerate(names):
        is_images = "image" in name or "x" in name or name == "pictures"
        content[name] = IMAGES + np.uint8(number) if is_images else (np.arange(20) + number) % 4
    content["other"] = np.zeros((2, 2))
    np.savez(tmp_path / "a.npz", **content)
    source = open_source(tmp_path / "a.npz")
    assert source.classes is None and source[3].label is None
    assert np.array_equal(source[3].image.numpy(), content[images][3].transpose(2, 0, 1))
    labelled = open_source(tmp_path / "a.npz", labelled=True)
    assert labelled.classes == list("0123")
    assert [labelled[index].label for index in range(20)] == content[labels].tolist()


@pytest.mark.parametrize(
    "labels", [np.array(["a", "b"] * 10), np.array([b"a", b"b"] * 10), np.arange(20).reshape(20, 1) % 2 == 1]
)
def test_labels_of_any_plain_kind(tmp_path: Path, labels: np.ndarray) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=IMAGES, labels=labels)
    source = open_source(tmp_path / "a.npz", labelled=True)
    assert [source[index].label for index in range(4)] == [0, 1, 0, 1]


def test_names_of_the_classes_lie_beside_the_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=np.arange(20) % 2)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    data = load_labelled(tmp_path / "a.npz", 1, 4)
    assert data.classes == ["cat", "dog"] and data.images.shape == (20, 1, 4, 4)


def test_deep_labelled_images_stay_deep(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES[..., 0].astype(np.uint16) * 100, labels=np.arange(20) % 2)
    data = load_labelled(tmp_path / "a.npz", 3, 6)
    assert data.images.dtype == torch.uint16 and data.images.shape == (20, 3, 6, 6)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"images": IMAGES}, "has no labels (it holds images)"),
        ({"images": IMAGES, "labels": np.arange(5)}, "has 20 images and labels of shape (5,)"),
        ({"images": IMAGES, "labels": np.eye(20)}, "has 20 images and labels of shape (20, 20)"),
        ({"images": IMAGES, "labels": np.zeros(20)}, "are float64: give whole numbers or words"),
        ({"images": IMAGES, "labels": np.zeros(20, int)}, "have one label, '0'"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, content: dict, words: str, refuses: Refuses) -> None:
    np.savez(tmp_path / "a.npz", **content)
    assert len(open_source(tmp_path / "a.npz")) == 20
    refuses(lambda: open_source(tmp_path / "a.npz", labelled=True), words)


def test_an_array_alone_has_no_labels(tmp_path: Path, refuses: Refuses) -> None:
    np.save(tmp_path / "a.npy", IMAGES)
    refuses(lambda: open_source(tmp_path / "a.npy", labelled=True), "a.npy has no labels: store them together")
    refuses(lambda: open_source(IMAGES, labelled=True), "an array by itself has no labels")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((60, 784), np.uint8), "has the shape (60, 784), which are no images"),
        (np.zeros((0, 8, 8), np.uint8), "has the shape (0, 8, 8)"),
        (np.zeros((480, 640, 3), np.uint8), "has the shape (480, 640, 3) of one image"),
        (np.zeros((3, 480, 640), np.uint8), "has the shape (3, 480, 640) of one image"),
        (np.zeros((5, 8, 3, 8), np.uint8), "does not tell which axis holds the channels"),
        (np.zeros((5, 8, 8, 8), np.uint8), "does not tell which axis holds the channels"),
        (np.zeros((5, 8, 8), np.int64), "can be used: it holds int64: convert it to uint8"),
        (np.zeros((5, 8, 8), "U3"), "it holds <U3"),
        (np.full((5, 8, 8), 255.0), "image 0 of array cannot be used because it has values from 255 to 255"),
        (np.random.default_rng(0).normal(size=(5, 8, 8)), "leave out any normalisation"),
        (np.full((5, 8, 8), np.nan), "none of the 5 images of array can be used: it has values that are no numbers"),
    ],
)
def test_what_is_no_array_of_images(array: np.ndarray, words: str, refuses: Refuses) -> None:
    refuses(lambda: open_source(array), words)


def test_one_broken_image_is_unreadable_and_the_others_are_not() -> None:
    values = np.random.default_rng(1).random((5, 8, 8))
    values[3, 2, 2] = np.nan
    source = Arrays(values)
    with pytest.raises(Unreadable, match="no numbers"):
        source[3]
    assert source[4].image.shape == (1, 8, 8)


def test_files_that_cannot_be_read(tmp_path: Path, refuses: Refuses) -> None:
    refuses(lambda: open_source(tmp_path / "none.npy"), "there is no file")
    (tmp_path / "junk.npy").write_bytes(b"junk")
    refuses(lambda: open_source(tmp_path / "junk.npy"), "cannot be read as NumPy arrays")
    np.save(tmp_path / "objects.npy", np.array([{}, None], object))
    refuses(lambda: open_source(tmp_path / "objects.npy"), "cannot be read as NumPy arrays")
    np.save(tmp_path / "cut.npy", IMAGES)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-100])
    refuses(lambda: open_source(tmp_path / "cut.npy"), "cannot be read as NumPy arrays")
    np.savez(tmp_path / "a.npz", images=IMAGES)
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[:-100])
    refuses(lambda: open_source(tmp_path / "cut.npz"), "cannot be read as NumPy arrays")
    (tmp_path / "spoilt.npz").write_bytes(data[:2000] + bytes(100) + data[2100:])
    refuses(lambda: open_source(tmp_path / "spoilt.npz"), "images.npy in ")


def test_damage_far_behind_the_header_is_found_when_it_is_read(tmp_path: Path, refuses: Refuses) -> None:
    large = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=large, words=np.array(["a"]))
    data = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(data[:400_000] + bytes(100) + data[400_100:])
    refuses(lambda: open_source(tmp_path / "a.npz"), "images in ")


def test_archives_without_images(tmp_path: Path, refuses: Refuses) -> None:
    np.savez(tmp_path / "a.npz", numbers=np.zeros((3, 3)), words=np.array(["a"]))
    refuses(lambda: open_source(tmp_path / "a.npz"), "holds no images (but numbers (3, 3), words (1,))")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("notes.txt", "no array")
    refuses(lambda: open_source(tmp_path / "b.npz"), "holds no images (but nothing)")


def test_an_archive_that_does_not_fit_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    np.savez(tmp_path / "a.npz", images=IMAGES)
    monkeypatch.setattr(arrays, "memory", lambda: 2 * IMAGES.nbytes - 2)
    refuses(lambda: open_source(tmp_path / "a.npz"), "larger than half of the memory: save it as a .npy file")
    monkeypatch.setattr(arrays, "memory", lambda: 2 * IMAGES.nbytes)
    assert len(open_source(tmp_path / "a.npz")) == 20
