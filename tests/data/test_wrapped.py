"""A data set of the user's own, and several sources as one."""

import pickle
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.source import EncodedSource
from ownlatent.data.sources.wrapped import Joined, JoinedFiles, Wrapped
from ownlatent.types import Sample

Picture = Callable[..., bytes]
Refuses = Callable[..., str]
WriteImage = Callable[..., Path]

ARRAYS = np.random.default_rng(0).integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)


class Own(Dataset):
    """Twelve images; make turns (array, number) into whatever an item is."""

    def __init__(self, make: Callable, length: int = 12):
        self.make, self.length = make, length
        self.classes: object = None

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> object:
        return self.make(ARRAYS[index % 12], index)


def picture_and_label(array: np.ndarray, index: int) -> tuple:
    return Image.fromarray(array), index % 3


@pytest.mark.parametrize(
    "make",
    [
        lambda array, index: array,
        lambda array, index: Image.fromarray(array),
        lambda array, index: torch.from_numpy(array).permute(2, 0, 1),
        lambda array, index: torch.from_numpy(array).permute(2, 0, 1) / 255,
        picture_and_label,
        lambda array, index: [array],
        lambda array, index: (array, {"boxes": []}, "more"),
        lambda array, index: {"image": array, "label": index},
        lambda array, index: {"pixel_values": array},
        lambda array, index: Sample(torch.from_numpy(array).permute(2, 0, 1), index, "name"),
    ],
)
def test_items_of_any_kind(make: Callable) -> None:
    source = open_source(Own(make))
    assert isinstance(source, Wrapped) and len(source) == 12 and source.format == Format(3, 8)
    assert source.name == "Own" and source.title(-1) == "Own[11]"
    for index in (0, 5, -1):
        image, label, name = source[index]
        assert np.array_equal(image.numpy(), ARRAYS[index].transpose(2, 0, 1))
        assert label is None and name == f"Own[{index % 12}]"
    with pytest.raises(IndexError):
        source[12]


def test_a_list_of_nothing_but_a_plain_class_will_do() -> None:
    class Plain:
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> np.ndarray:
            return ARRAYS[index]

    assert len(open_source(Plain())) == 3


@pytest.mark.parametrize(
    "make",
    [
        picture_and_label,
        lambda array, index: (array, torch.tensor(index % 3)),
        lambda array, index: (array, np.int64(index % 3)),
        lambda array, index: {"image": array, "target": f"{index % 3}"},
    ],
)
def test_labels_are_there_only_when_asked_for(make: Callable) -> None:
    data = Own(make)
    assert open_source(data).classes is None and open_source(data)[4].label is None
    labelled = open_source(data, labelled=True)
    assert labelled.classes == ["0", "1", "2"] and [labelled[index].label for index in range(5)] == [0, 1, 2, 0, 1]


def test_numbers_are_named_by_the_data_sets_own_list() -> None:
    data = Own(picture_and_label)
    for classes, expected in (
        (["cat", "dog", "eel", "fox"], ["cat", "dog", "eel", "fox"]),
        ([("cat", "felis"), ("dog",), ("eel",)], ["cat", "dog", "eel"]),
        (np.array(["cat", "dog", "eel"]), ["cat", "dog", "eel"]),
        ({"cat": 0, "dog": 1, "eel": 2}, ["cat", "dog", "eel"]),
        ([7, 8, 9], ["7", "8", "9"]),
        (3, ["0", "1", "2"]),
        (["too", "few"], ["0", "1", "2"]),
        (None, ["0", "1", "2"]),
    ):
        data.classes = classes
        assert open_source(data, labelled=True).classes == expected


def test_a_data_set_may_have_a_title() -> None:
    data = Own(picture_and_label)
    data.title = "Twelve images"
    assert open_source(data)[3].name == "Own[3]"


@pytest.mark.parametrize(
    "make",
    [
        lambda array: array,
        lambda array: array[..., 0],
        Image.fromarray,
        lambda array: torch.from_numpy(array).permute(2, 0, 1),
    ],
)
def test_a_list_of_images_is_a_data_set(make: Callable, refuses: Refuses) -> None:
    source = open_source([make(array) for array in ARRAYS])
    assert isinstance(source, Wrapped) and len(source) == 12 and source.title(3) == "list[3]"
    assert source[3].image.shape[1:] == (6, 8) and int(source[3].image[0, 2, 4]) == ARRAYS[3, 2, 4, 0]
    refuses(lambda: open_source([make(array) for array in ARRAYS], labelled=True), "list has no labels")


def test_floats_have_a_full_scale() -> None:
    values = np.random.default_rng(1).random((12, 6, 8, 3)).astype(np.float32)
    deep = (values * 4095).astype(np.uint16)
    floats = (values, torch.from_numpy(values), [Image.fromarray(value[..., 0]) for value in values], list(values))
    for data in floats:
        assert getattr(open_source(data), "full_scale") == 65535  # noqa: B009
    for data in (deep, list(deep), ARRAYS, list(ARRAYS), list(ARRAYS / 255)):
        assert getattr(open_source(data), "full_scale") is None  # noqa: B009
    for parts, scale in (
        ([values, values], 65535),
        ([values, ARRAYS], 65535),
        ([values, deep], None),
        ([deep, ARRAYS], None),
        ([ARRAYS, ARRAYS], None),
    ):
        joined = open_source(parts)
        assert isinstance(joined, Joined) and joined.full_scale == scale


def test_torchvisions_data_sets_tell_labels_without_reading_images(class_folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    def load(path: str) -> Image.Image:
        reads.append(path)
        return Image.open(path).convert("RGB")

    reads: list[str] = []
    source = open_source(ImageFolder(str(class_folder), loader=load), labelled=True)
    assert source.classes == ["blue", "green", "red"] and [source[index].label for index in (0, 20, 59)] == [0, 1, 2]
    assert 0 < len(set(reads)) <= 64
    reversing = ImageFolder(str(class_folder), loader=load, target_transform=lambda label: 2 - label)
    assert open_source(reversing, labelled=True)[0].label == 2

    class Own(ImageFolder):
        def __getitem__(self, index: int) -> tuple:
            return super().__getitem__(index)[0], "odd" if index % 2 else "even"

    assert open_source(Own(str(class_folder), loader=load), labelled=True).classes == ["even", "odd"]


def test_tensors_with_labels() -> None:
    data = TensorDataset(torch.from_numpy(ARRAYS), torch.arange(12) % 2)
    loaded = load_labelled(data, 3, 6)
    assert loaded.images.shape == (12, 3, 6, 6) and loaded.labels is not None
    assert loaded.labels.tolist() == [0, 1] * 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda array, index: array, "Own has no labels: its items must be tuples (image, label)"),
        (lambda array, index: {"image": array}, "Own has no labels"),
        (lambda array, index: (array, None if index == 3 else index), "1 of the 12 images of Own have no label"),
        (
            lambda array, index: (array, torch.zeros(40)),
            "the label of Own[0] cannot be read: it is an array of several",
        ),
        (lambda array, index: (array, Image.new("L", (4, 4))), "it is a Image and neither a whole number nor a word"),
        (lambda array, index: (array, 0.5), "it is a float and neither"),
        (lambda array, index: (array, 1 / (5 - index)), "cannot be read"),
    ],
)
def test_labels_that_cannot_be_used(make: Callable, words: str, refuses: Refuses) -> None:
    refuses(lambda: open_source(Own(make), labelled=True), words)


def test_gray_and_colour_and_eight_and_sixteen_bits_mix() -> None:
    def make(array: np.ndarray, index: int) -> np.ndarray:
        gray = array[..., 0]
        return (array, gray, gray.astype(np.uint16) * 250)[index % 3]

    source = open_source(Own(make))
    assert source.format == Format(3, 16)  # type: ignore[attr-defined]
    assert {(source[index].image.shape, source[index].image.dtype) for index in range(6)} == {((3, 6, 8), torch.uint16)}


def test_an_item_that_fails_is_unreadable_and_the_others_are_not() -> None:
    def make(array: np.ndarray, index: int) -> object:
        if index == 4:
            raise KeyError("lost\nin a file")
        return "text" if index == 5 else array

    source = open_source(Own(make))
    with pytest.raises(Unreadable, match="KeyError"):
        source[4]
    with pytest.raises(Unreadable, match="a str is no image"):
        source[5]
    assert source[6].image.shape == (3, 6, 8)


def test_one_readable_image_among_many_is_found() -> None:
    source = open_source(Own(lambda array, index: array if index == 777 else None, length=1000))
    assert source.format == Format(3, 8) and source[777].image.shape == (3, 6, 8)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (Own(lambda array, index: None, 0), "Own is empty"),
        (Own(lambda array, index: "x"), "none of the 12 images of Own can be used: a str is no image"),
        (Own(lambda array, index: {"picture": array}), "an item has picture and no `image`"),
        (Own(lambda array, index: 1 / 0), "ZeroDivisionError: division by zero"),
        (Own(lambda array, index: array.astype(np.int32)), "it holds int32"),
        (Own(lambda array, index: array / 128.0 - 1), "leave out any normalisation"),
        (Own(lambda array, index: array[..., : 1 + index % 3]), "the images of Own have 1 or 2 or 3 channels"),
        ({"images": ARRAYS}, "none of the 1 images of dict can be used: KeyError"),
    ],
)
def test_data_sets_that_cannot_be_used(data: object, words: str, refuses: Refuses) -> None:
    refuses(lambda: open_source(data), words)


def test_what_is_no_data_set(refuses: Refuses) -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> object:
            return iter(ARRAYS)

    refuses(lambda: open_source(Stream()), "a Stream is no source of images: give a path, an array")
    refuses(lambda: open_source(None), "a NoneType is no source of images")
    refuses(
        lambda: open_source(DataLoader(Own(picture_and_label))), "a DataLoader is no source of images: give its data"
    )


def test_items_are_read_one_at_a_time() -> None:
    inside = threading.Semaphore(1)

    def make(array: np.ndarray, index: int) -> np.ndarray:
        assert inside.acquire(blocking=False), "two threads at once"
        time.sleep(0.001)
        inside.release()
        return array

    source = open_source(Own(make))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda index: source[index % 12], range(100)))


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes_read_the_same(context: str) -> None:
    source = open_source(Own(picture_and_label), labelled=True)
    again = pickle.loads(pickle.dumps(source))
    assert torch.equal(again[3].image, source[3].image) and again[4].label == 1
    assert isinstance(source, Wrapped)
    with source._lock:  # as if a thread were reading while the processes start
        loader = DataLoader(source, batch_size=None, num_workers=1, multiprocessing_context=context)
        images = [image for image, _, _ in loader]
    assert np.array_equal(torch.stack(images).numpy(), ARRAYS.transpose(0, 3, 1, 2))


@pytest.fixture
def folders(tmp_path: Path, write_image: WriteImage) -> list[Path]:
    for number, name in enumerate(("a/cat/0.png", "a/dog/1.png", "b/cat/0.png", "b/dog/1.png", "b/dog/2.png")):
        write_image(tmp_path / name, seed=number, mode="RGB" if name[0] == "a" else "L")
    return [tmp_path / "a", tmp_path / "b"]


def test_several_folders_as_one(folders: list[Path]) -> None:
    first, second = map(open_source, folders)
    for both in (
        open_source(folders),
        open_source(f"{folders[0]},{folders[1]}"),
        open_source([first, str(folders[1])]),
    ):
        assert isinstance(both, JoinedFiles) and isinstance(both, EncodedSource)
        assert len(both) == 5 and both.classes is None and both.format == Format(3, 8)
        assert torch.equal(both[1].image, first[1].image)
        assert torch.equal(both[4].image, second[2].image.expand(3, -1, -1)), "gray among colour becomes colour"
        assert both.encoded(3) == second.encoded(1)  # type: ignore[attr-defined]
        assert both.title(4) == both[4].name == f"{folders[1]}: dog/2.png" and both[4].label is None
        assert len({both.title(index) for index in range(5)}) == 5
        assert both.name == f"{folders[0]}, {folders[1]}" and both.skipped == []


def test_joined_labels_need_the_same_classes(folders: list[Path], write_image: WriteImage, refuses: Refuses) -> None:
    both = open_source(folders, labelled=True)
    assert both.classes == ["cat", "dog"]
    assert [both[index].label for index in range(5)] == [0, 1, 0, 1, 1]
    assert isinstance(both, JoinedFiles) and both.label(2) == 0
    write_image(folders[1] / "eel" / "0.png", mode="L")
    refuses(lambda: open_source(folders, labelled=True), "do not have the same classes")
    assert len(open_source(folders)) == 6


def test_sources_of_different_kinds_join(folders: list[Path]) -> None:
    both = open_source([str(folders[0]), ARRAYS, Own(picture_and_label)])
    assert type(both) is Joined and len(both) == 2 + 12 + 12 and both.format == Format(3, 8)
    assert np.array_equal(both[2].image.numpy(), ARRAYS[0].transpose(2, 0, 1))
    assert both.title(14) == "Own: Own[0]" and both[-1].name == "Own: Own[11]"
    again = pickle.loads(pickle.dumps(both))
    assert all(torch.equal(again[index].image, both[index].image) for index in (0, 5, 20))


def test_joined_arrays_keep_labels_and_depth() -> None:
    eight = Own(lambda array, index: (array[..., 0], index % 2))
    sixteen = Own(lambda array, index: (array[..., 0].astype(np.uint16) * 250, index % 2))
    both = open_source([eight, sixteen], labelled=True)
    assert [both[index].label for index in (0, 1, 12, 13)] == [0, 1, 0, 1]
    assert both[0].image.dtype == both[12].image.dtype == torch.uint16


def test_what_does_not_join(folders: list[Path], refuses: Refuses) -> None:
    deep = np.zeros((3, 13, 32, 32), np.uint8)
    refuses(lambda: open_source([folders[0], deep]), "have 3 or 13 channels")
    refuses(lambda: open_source([]), "the list of sources is empty")
    refuses(lambda: open_source([folders[0], folders[0] / "none"]), "there is no folder")


def test_one_source_in_a_list_is_itself() -> None:
    source = open_source(ARRAYS)
    assert open_source([source]) is source and open_source(source) is source
