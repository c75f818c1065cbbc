"""torchvision's data sets by name: found where they lie, downloaded only when asked for."""

import gzip
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torchvision import datasets

from ownlatent.data.decode import Format
from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.sources.named import _usable

Refuses = Callable[..., str]

USABLE = [name for name in datasets.__all__ if _usable(getattr(datasets, name), name)]


@pytest.fixture(autouse=True)
def connections(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every attempt to reach the network; none succeeds."""
    attempts: list[object] = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(arguments)
        raise OSError("there is no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return attempts


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    """Files as torchvision keeps MNIST: 20 training and 10 test images, image k filled with k, of class k % 10."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count, first in (("train", 20, 0), ("t10k", 10, 100)):
        images = np.repeat(np.arange(first, first + count, dtype=np.uint8), 28 * 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 0x803, count, 28, 28) + images.tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, count) + labels.tobytes())
    return tmp_path


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [("torchvision:MNIST", 20, 0), ("torchvision:MNIST:train", 20, 0), ("torchvision:MNIST:test", 10, 100)],
)
def test_a_data_set_that_is_there(mnist: Path, name: str, count: int, first: int, connections: list) -> None:
    source = open_source(name, root=mnist)
    assert len(source) == count and source.name == name and source.classes is None
    assert source.format == Format(1, 8)  # type: ignore[attr-defined]
    image, label, title = source[3]
    assert image.shape == (1, 28, 28) and set(image.flatten().tolist()) == {first + 3}
    assert label is None and title == f"{name}[3]"
    assert not connections


def test_labels_with_the_names_that_torchvision_knows(mnist: Path) -> None:
    source = open_source("torchvision:MNIST", labelled=True, root=str(mnist))
    assert source.classes is not None and source.classes[2] == "2 - two" and len(source.classes) == 10
    assert [source[index].label for index in range(20)] == [*range(10), *range(10)]
    data = load_labelled("torchvision:MNIST:test", 3, 32, root=mnist)
    assert data.images.shape == (10, 3, 32, 32) and data.labels is not None and data.labels.tolist() == list(range(10))


def test_labels_that_are_known_only_with_the_image(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And names that do not fit them are not used."""
    monkeypatch.setattr(datasets.MNIST, "classes", ["one name"])
    original = datasets.MNIST.__init__

    def without_targets(self: datasets.MNIST, *arguments: object, **settings: object) -> None:
        original(self, *arguments, **settings)  # type: ignore[arg-type]
        self.labels_elsewhere, self.targets = self.targets, None
        self.data = self.data.clone()

    monkeypatch.setattr(datasets.MNIST, "__init__", without_targets)
    monkeypatch.setattr(
        datasets.MNIST, "__getitem__", lambda self, index: (self.data[index], int(self.labels_elsewhere[index]))
    )
    source = open_source("torchvision:MNIST", labelled=True, root=mnist)
    assert source.classes == [str(number) for number in range(10)] and source[13].label == 3


def test_the_folder_is_data_by_default(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mnist)
    (mnist / "data").mkdir()
    (mnist / "MNIST").rename(mnist / "data" / "MNIST")
    assert len(open_source("torchvision:MNIST")) == 20


def test_a_data_set_of_folders(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for number, name in enumerate(("Forest", "Forest", "River")):
        write_image(tmp_path / "eurosat" / "2750" / name / f"{number}.jpg", 64, 64, seed=number)
    source = open_source("torchvision:EuroSAT", labelled=True, root=tmp_path)
    assert source.classes == ["Forest", "River"] and [source[index].label for index in range(3)] == [0, 0, 1]
    assert source[0].image.shape == (3, 64, 64)


@pytest.mark.parametrize("name", USABLE)
def test_what_is_not_there_is_a_sentence_and_nothing_is_downloaded(
    tmp_path: Path, name: str, connections: list, refuses: Refuses
) -> None:
    full = f"torchvision:{name}" + (":letters" if name == "EMNIST" else "")
    text = refuses(lambda: open_source(full, root=tmp_path / "here"), f"torchvision:{name} ")
    assert str(tmp_path / "here") in text or "needs one more package" in text
    assert not connections


def test_the_usual_ones_are_known() -> None:
    usual = {"CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "EMNIST", "QMNIST", "SVHN", "STL10", "Food101", "ImageNet"}
    assert usual | {"Flowers102", "OxfordIIITPet", "DTD", "EuroSAT", "GTSRB", "PCAM", "Imagenette"} <= set(USABLE)
    assert not {"ImageFolder", "CocoDetection", "UCF101", "FakeData", "wrap_dataset_for_transforms_v2"} & set(USABLE)


def test_downloading_when_asked_for(tmp_path: Path, connections: list, refuses: Refuses) -> None:
    text = refuses(lambda: open_source("torchvision:CIFAR10", download=True, root=tmp_path), "cannot be downloaded to")
    assert "check the network" in text and connections
    connections.clear()
    refuses(lambda: open_source("torchvision:CIFAR10", root=tmp_path), "give --download")
    refuses(lambda: open_source("torchvision:ImageNet", root=tmp_path), "and must be put there by hand")
    assert not connections


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision:CIFAR11", "no data set of images called 'CIFAR11': the nearest are CIFAR10, CIFAR100"),
        ("torchvision:", "no data set of images called ''"),
        ("torchvision:ImageFolder", "no data set of images called 'ImageFolder'"),
        ("torchvision:CIFAR10:val", "torchvision:CIFAR10 has the parts train and test, not 'val'"),
        ("torchvision:CIFAR10:train:test", "torchvision:CIFAR10 has the parts train and test, not 'test'"),
        ("torchvision:SVHN:tset", "torchvision:SVHN has no part 'tset': Unknown value 'tset'"),
        ("torchvision:SVHN:train:extra", "torchvision:SVHN has one part at a time, not 'extra'"),
        ("torchvision:EuroSAT:train", "torchvision:EuroSAT has no parts: leave out :train"),
        ("torchvision:EMNIST", "torchvision:EMNIST has several parts: name one, as in torchvision:EMNIST:PART"),
        ("torchvision:EMNIST:greek", "torchvision:EMNIST has no part 'greek'"),
    ],
)
def test_names_that_are_wrong(tmp_path: Path, name: str, words: str, refuses: Refuses) -> None:
    refuses(lambda: open_source(name, root=tmp_path), words)


def test_a_package_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    def missing(self: object, *_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'h5py'")

    monkeypatch.setattr(datasets.MNIST, "_check_exists", missing)
    refuses(lambda: open_source("torchvision:MNIST", root=tmp_path), "needs one more package: No module named 'h5py'")


def test_a_damaged_file_is_not_there(mnist: Path, refuses: Refuses) -> None:
    (mnist / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(gzip.compress(b"junk"))
    refuses(lambda: open_source("torchvision:MNIST", root=mnist), "torchvision:MNIST is not in the folder")


def test_a_part_may_have_a_switch_as_well(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "test"):
        header = struct.pack(">4i", 0x803, 4, 28, 28) + bytes([len(part)]) * 4 * 28 * 28
        (raw / f"emnist-mnist-{part}-images-idx3-ubyte").write_bytes(header)
        (raw / f"emnist-mnist-{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 0x801, 4) + bytes([0, 1, 2, 3]))
    for name, level in (("mnist", 5), ("mnist:train", 5), ("mnist:test", 4)):
        source = open_source(f"torchvision:EMNIST:{name}", root=tmp_path)
        assert torch.equal(source[0].image, torch.full((1, 28, 28), level, dtype=torch.uint8)), torchvision.__version__
