"""Data sets of Hugging Face's own package, from files that this test writes: the hub is never asked."""

import pickle
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.sources.huggingface import HuggingFace
from ownlatent.data.sources.parquet import Parquet

hf = pytest.importorskip("datasets", reason="the package datasets is not installed")

Picture = Callable[..., bytes]
Refuses = Callable[..., str]

pytestmark = pytest.mark.usefixtures("cache")

CLASSES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("hf"))
    hf.disable_progress_bars()


def make(picture: Picture, count: int = 9, **columns: Any) -> Any:
    features = {"image": hf.Image(), "label": hf.ClassLabel(names=CLASSES), **columns}
    content = {
        "image": [{"bytes": picture(n), "path": None} for n in range(count)],
        "label": [n % 3 for n in range(count)],
    }
    content |= {name: [0] * count for name in columns}
    return hf.Dataset.from_dict(content, features=hf.Features(features))


def levels(source: Any) -> list[int]:
    return [int(source[index].image[0, 0, 0]) for index in range(len(source))]


def test_an_object_of_the_package(picture: Picture) -> None:
    source = open_source(make(picture))
    assert isinstance(source, HuggingFace) and levels(source) == list(range(9)) and source.format == Format(3, 8)
    assert source.classes is None and source[3].label is None
    assert source.encoded(4) == picture(4) and source.title(-1) == source[8].name == "datasets.Dataset[8]"
    labelled = open_source(make(picture), labelled=True)
    assert labelled.classes == CLASSES and [labelled[index].label for index in range(4)] == [0, 1, 2, 0]
    assert load_labelled(make(picture), 1, 4).images.shape == (9, 1, 4, 4)


def test_the_users_own_order_and_choice_hold_and_their_transforms_do_not(picture: Picture) -> None:
    data = make(picture).shuffle(seed=1).select([5, 3, 1, 7])
    expected = [item["image"].getpixel((0, 0))[0] for item in data]
    for each in (data, data.with_format("torch"), data.with_transform(lambda rows: {"image": [None]})):
        source = open_source(each, labelled=True)
        assert levels(source) == expected and [source[index].label for index in range(4)] == [n % 3 for n in expected]


def test_images_of_many_kinds(tmp_path: Path, write_image: Callable[..., Path], picture: Picture) -> None:
    path = write_image(tmp_path / "0.png", seed=3)
    data = hf.Dataset.from_dict({"image": [str(path)]}).cast_column("image", hf.Image())
    source = open_source(data)
    assert np.array_equal(source[0].image.numpy().transpose(1, 2, 0), np.asarray(Image.open(path)))
    path.unlink()
    with pytest.raises(Unreadable, match="no such file"):
        source[0]
    assert levels(open_source(hf.Dataset.from_dict({"jpg": [picture(4), picture(5)]}))) == [4, 5]
    arrays = hf.Dataset.from_dict(
        {"image": [np.full((8, 8), 7, np.uint8)]}, features=hf.Features({"image": hf.Image()})
    )
    assert levels(open_source(arrays)) == [7]


def test_a_row_without_an_image_is_unreadable(picture: Picture) -> None:
    features = hf.Features({"image": hf.Image()})
    data = hf.Dataset.from_dict({"image": [{"bytes": picture(1), "path": None}, None]}, features=features)
    source = open_source(data)
    with pytest.raises(Unreadable, match="its row holds no image"):
        source[1]
    assert levels([source[0]]) if False else int(source[0].image[0, 0, 0]) == 1


def test_threads_and_pickles(picture: Picture) -> None:
    source = open_source(make(picture), labelled=True)
    again = pickle.loads(pickle.dumps(source))
    assert levels(again) == list(range(9)) and again[4].label == 1
    with ThreadPoolExecutor(8) as pool:
        wanted = list(range(9)) * 20
        assert [int(sample.image[0, 0, 0]) for sample in pool.map(source.__getitem__, wanted)] == wanted


def test_a_saved_data_set_is_read_without_the_package(
    tmp_path: Path, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = hf.DatasetDict({"train": make(picture), "test": make(picture, 3)})
    data.save_to_disk(tmp_path / "set")
    data["train"].to_parquet(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "datasets", None)
    for path, count in ((tmp_path / "set", 9), (tmp_path / "set" / "test", 3), (tmp_path / "a.parquet", 9)):
        source = open_source(path, labelled=True)
        assert isinstance(source, Parquet) and levels(source) == list(range(count)) and source.classes == CLASSES
        assert [source[index].label for index in range(3)] == [0, 1, 2]


def test_from_the_hub_by_name(picture: Picture, monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    asked = []

    def load(name: str, split: str) -> Any:
        asked.append((name, split))
        if split == "val":
            raise ValueError('Unknown split "val". Should be one of ["train", "test"].\nMore.')
        return make(picture)

    monkeypatch.setattr(hf, "load_dataset", load)
    source = open_source("hf:owner/name")
    assert source.name == "hf:owner/name" and source.title(2) == "hf:owner/name[2]" and levels(source) == list(range(9))
    assert open_source("hf:owner/name:train[:50%]", labelled=True).classes == CLASSES
    assert asked == [("owner/name", "train"), ("owner/name", "train[:50%]")]
    refuses(lambda: open_source("hf:owner/name:val"), 'hf:owner/name:val cannot be loaded (Unknown split "val"; Should')


def test_what_cannot_be_used(picture: Picture, refuses: Refuses) -> None:
    both = hf.DatasetDict({"train": make(picture), "test": make(picture, 3)})
    assert len(open_source(both)) == 9
    refuses(
        lambda: open_source(hf.DatasetDict({"test": both["test"]})), "has the parts test: give one, as in data['test']"
    )
    refuses(lambda: open_source(make(picture).to_iterable_dataset()), "load it without streaming=True")
    refuses(lambda: open_source(hf.Dataset.from_dict({"a": [1], "b": ["x"]})), "no column of images but a, b")
    two = make(picture).add_column("x", [b""] * 9).rename_column("image", "left").cast_column("x", hf.Image())
    refuses(lambda: open_source(two), "several columns of images (left, x)")
    refuses(lambda: open_source(make(picture, 0)), "datasets.Dataset has no rows")
    bare = make(picture).remove_columns("label")
    refuses(lambda: open_source(bare, labelled=True), "datasets.Dataset has no labels: its columns are")
    floats = bare.add_column("label", [0.5] * 9)
    refuses(lambda: open_source(floats, labelled=True), "the column `label` of datasets.Dataset holds no classes")
    unknown = make(picture).map(lambda row: {"label": -1}, load_from_cache_file=False)
    refuses(lambda: open_source(unknown, labelled=True), "has no labels: fill in its column `label`")
    fine = make(picture).rename_column("label", "fine_label").add_column("coarse_label", [0, 1, 1] * 3)
    refuses(lambda: open_source(fine, labelled=True), "several columns of labels, fine_label, coarse_label")


def test_without_the_package_there_is_a_hint(monkeypatch: pytest.MonkeyPatch, refuses: Refuses) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refuses(lambda: open_source("hf:owner/name"), "need one more package: pip install datasets")


def test_a_users_own_package_of_that_name_is_not_taken_for_it() -> None:
    class Own:
        __module__ = "datasets.mine"

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.zeros(3, 8, 8, dtype=torch.uint8)

    assert type(open_source(Own())).__name__ == "Wrapped"
