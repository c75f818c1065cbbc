"""Tables of images: which column, which labels, in memory or mapped, and what is wrong with the others."""

import json
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.index import cache as cache_module
from ownlatent.data.index import tables
from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.sources.parquet import Parquet

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
pq = pytest.importorskip("pyarrow.parquet")

Picture = Callable[..., bytes]
Refuses = Callable[..., str]

DATA = Path(os.environ.get("OWNLATENT_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

pytestmark = pytest.mark.usefixtures("cache")


def write(path: Path, rows: int | None = None, metadata: Any = None, **columns: Any) -> Path:
    """A Parquet file, or for the ending .arrow what `save_to_disk` writes; with so many rows in a group."""
    table = pa.table(columns)
    if metadata is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": metadata}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=rows)
    else:
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=rows)
    return path


def structs(images: list[bytes | None], paths: list[str | None] | None = None) -> Any:
    paths = paths or [None] * len(images)
    return pa.array([{"bytes": i, "path": p} for i, p in zip(images, paths, strict=True)], IMAGE)


def levels(source: Any) -> list[int]:
    return [int(source[index].image[0, 0, 0]) for index in range(len(source))]


@pytest.fixture
def images(picture: Picture) -> list[bytes]:
    return [picture(level) for level in range(10)]


@pytest.mark.parametrize("kind", ["struct", "binary", "large_binary", "no path"])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_every_row_is_an_image(tmp_path: Path, images: list[bytes], kind: str, ending: str) -> None:
    column = {
        "struct": lambda: structs(images),
        "binary": lambda: pa.array(images, pa.binary()),
        "large_binary": lambda: pa.array(images, pa.large_binary()),
        "no path": lambda: pa.array([{"bytes": image} for image in images]),
    }[kind]()
    path = write(tmp_path / f"a.{ending}", 3, id=pa.array(range(10)), image=column)
    source = Parquet([path], "a")
    assert len(source) == 10 and source.format == Format(3, 8) and source.classes is None
    assert levels(source) == list(range(10))
    assert source.encoded(-1) == images[9] and isinstance(source.encoded(3), bytes)
    assert source.title(4) == source[4].name == f"row 4 of a.{ending}" and source[4].label is None
    with pytest.raises(IndexError):
        source.encoded(10)


def test_several_tables_follow_each_other(tmp_path: Path, images: list[bytes]) -> None:
    cuts = [(0, 4), (4, 4), (4, 5), (5, 10)]
    for number, (first, last) in enumerate(cuts):
        paths = [f"dir/{level}\n.png" if level % 2 else None for level in range(first, last)]
        write(tmp_path / "set" / f"{number}.parquet", 2, image=structs(images[first:last], paths))
    for name in (tmp_path / "set", f"{tmp_path}/set/*.parquet", f"{tmp_path}/set/{{0..3}}.parquet"):
        source = open_source(name)
        assert isinstance(source, Parquet) and levels(source) == list(range(10)) and source.name == str(name)
        assert source.title(5) == "dir/5?.png (row 0 of 3.parquet)" and source.title(4) == "row 0 of 2.parquet"
        assert len({source.title(index) for index in range(10)}) == 10


def test_pickled_it_carries_no_image_and_threads_and_processes_read_it(tmp_path: Path, picture: Picture) -> None:
    images = [picture(level, side=100, kind="BMP") for level in range(10)]  # 30 kB each
    source = open_source(write(tmp_path / "a.parquet", 3, image=structs(images), label=[0, 1] * 5), labelled=True)
    content = pickle.dumps(source)
    assert len(content) < 3000
    again = pickle.loads(content)
    assert levels(again) == list(range(10)) and again[3].label == 1 and again.title(9) == source.title(9)
    with ThreadPoolExecutor(8) as pool:
        wanted = list(range(10)) * 20
        assert [int(sample.image[0, 0, 0]) for sample in pool.map(source.__getitem__, wanted)] == wanted
    for context in ("fork", "spawn"):
        loader = DataLoader(source, batch_size=None, num_workers=1, multiprocessing_context=context)  # type: ignore
        assert [int(image[0, 0, 0]) for image, _, _ in loader] == list(range(10))


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([3, 1, 3], ["1", "3"], [1, 0, 1]),
        (["dog", "cat", "dog"], ["cat", "dog"], [1, 0, 1]),
        ([True, False, True], ["0", "1"], [1, 0, 1]),
        (pa.array(["dog", "cat", "dog"]).dictionary_encode(), ["cat", "dog"], [1, 0, 1]),
    ],
)
def test_labels_are_there_only_when_asked_for(
    tmp_path: Path, images: list[bytes], labels: Any, classes: list[str], numbers: list[int]
) -> None:
    path = write(tmp_path / "a.parquet", image=structs(images[:3]), label=labels)
    assert open_source(path).classes is None and open_source(path)[0].label is None
    source = open_source(path, labelled=True)
    assert source.classes == classes and [source[index].label for index in range(3)] == numbers


CLASS_LABEL = {"names": ["cat", "dog", "eel"], "_type": "ClassLabel"}


@pytest.mark.parametrize("names", [["cat", "dog", "eel"], {"0": "cat", "1": "dog", "2": "eel"}])
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_the_table_itself_names_the_classes(tmp_path: Path, images: list[bytes], names: Any, ending: str) -> None:
    features = {"image": {"_type": "Image"}, "breed": {"names": names, "_type": "ClassLabel"}}
    path = write(
        tmp_path / f"a.{ending}",
        metadata=features,
        thumb=structs(images[:3]),
        image=structs(images[:3]),
        breed=[2, 0, 2],
    )
    (tmp_path / "classes.txt").write_text("wrong\nnames\nhere")
    source = Parquet([path], "a", labelled=True)
    assert source.classes == ["cat", "dog", "eel"] and [source.label(index) for index in range(3)] == [2, 0, 2]


def test_a_file_beside_the_table_names_the_classes(tmp_path: Path, images: list[bytes]) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    path = write(tmp_path / "a.parquet", image=structs(images), label=[0, 1] * 5)
    data = load_labelled(path, 3, 8)
    assert data.classes == ["cat", "dog"] and data.labels is not None and data.labels.tolist() == [0, 1] * 5


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"id": [1, 2, 3]}, "a has no labels: its columns are id"),
        ({"fine_label": [1, 2, 3], "coarse_label": [0, 1, 0]}, "several columns of labels, fine_label, coarse_label"),
        ({"label": [1, None, 2]}, "1 of the 3 images of a have no label: fill in its column `label`"),
        ({"label": [-1, -1, -1]}, "a has no labels: fill in its column `label`"),
        ({"label": pa.nulls(3)}, "a has no labels: fill in its column `label`"),
        ({"label": [0.5, 1.5, 2.5]}, "holds double and no classes"),
        ({"label": [[1], [2], [3]]}, "holds list<"),
        ({"label": [1, 1, 1]}, "have one label, '1'"),
    ],
)
def test_labels_that_cannot_be_used(
    tmp_path: Path, images: list[bytes], columns: dict, words: str, refuses: Refuses
) -> None:
    path = write(tmp_path / "a.parquet", image=structs(images[:3]), **columns)
    assert len(Parquet([path], "a")) == 3
    refuses(lambda: Parquet([path], "a", labelled=True), words)


def test_the_column_of_images_is_found_by_type_and_name(tmp_path: Path, images: list[bytes], refuses: Refuses) -> None:
    blobs = pa.array([b"x"] * 10)
    for columns in (
        {"zzz": structs(images), "id": pa.array(range(10))},
        {"mask": blobs, "img": pa.array(images)},
        {"blob": blobs, "image": structs(images), "jpg": blobs},
    ):
        assert levels(Parquet([write(tmp_path / "a.parquet", **columns)], "a")) == list(range(10))
    path = write(tmp_path / "b.parquet", left=structs(images), right=structs(images))
    refuses(lambda: Parquet([path], "b"), "several columns that may hold images, left, right: rename")
    declared = {"right": {"_type": "Image"}, "left": {"_type": "Value"}}
    path = write(tmp_path / "c.parquet", metadata=declared, left=blobs, right=structs(images))
    assert levels(Parquet([path], "c")) == list(range(10))
    path = write(tmp_path / "d.parquet", id=[1, 2], image=[[1, 2], [3, 4]])
    refuses(lambda: Parquet([path], "d"), "d has no column of images but id (int64), image (list<")


@pytest.mark.parametrize(
    "metadata", [b"junk", b"[]", b'{"info": 3}', b'{"info": {"features": {"image": "x", "label": 3}}}']
)
def test_a_broken_description_is_no_description(tmp_path: Path, images: list[bytes], metadata: bytes) -> None:
    table = pa.table({"image": structs(images), "label": [0, 1] * 5}).replace_schema_metadata({"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert Parquet([tmp_path / "a.parquet"], "a", labelled=True).classes == ["0", "1"]


def test_a_row_without_an_image_is_unreadable(tmp_path: Path, images: list[bytes]) -> None:
    column = pa.array(
        [
            {"bytes": images[0], "path": "a"},
            {"bytes": None, "path": "gone.png"},
            {"bytes": None, "path": None},
            None,
            {"bytes": b"", "path": "e"},
            {"bytes": images[5], "path": None},
        ],
        IMAGE,
    )
    source = Parquet([write(tmp_path / "a.parquet", image=column)], "a")
    assert int(source[5].image[0, 0, 0]) == 5
    for index, words in (
        (1, "no image but the path gone.png"),
        (2, "holds no image"),
        (3, "holds no image"),
        (4, "empty"),
    ):
        with pytest.raises(Unreadable, match=words):
            source[index]
        assert source.title(index)


@pytest.mark.parametrize("damage", ["cut", "junk", "empty", "pages"])
def test_damaged_files_are_a_sentence(tmp_path: Path, images: list[bytes], damage: str, refuses: Refuses) -> None:
    path = write(tmp_path / "a.parquet", image=structs(images), label=[0, 1] * 5)
    data = path.read_bytes()
    spoilt = {"cut": data[:-100], "junk": b"junk" * 100, "empty": b"", "pages": data[:4] + b"\xff" * 400 + data[404:]}
    path.write_bytes(spoilt[damage])
    refuses(lambda: open_source(path), "a.parquet cannot be read")
    arrow = write(tmp_path / "b.arrow", image=structs(images))
    arrow.write_bytes(arrow.read_bytes()[:200] if damage == "cut" else spoilt[damage])
    refuses(lambda: Parquet([arrow], "b"), "b.arrow cannot be read")


def test_tables_that_do_not_go_together(tmp_path: Path, images: list[bytes], refuses: Refuses) -> None:
    one = write(tmp_path / "1.parquet", image=structs(images), label=[0, 1] * 5)
    two = write(tmp_path / "2.parquet", picture=structs(images))
    refuses(lambda: Parquet([one, two], "x"), "2.parquet has no such column `image` as")
    three = write(tmp_path / "3.parquet", image=structs(images))
    assert len(Parquet([one, three], "x")) == 20
    refuses(lambda: Parquet([one, three], "x", labelled=True), "3.parquet has no such column `label` as")
    empty = write(tmp_path / "4.parquet", image=structs([]))
    assert len(Parquet([one, empty, three], "x")) == 20
    refuses(lambda: Parquet([empty], "x"), "x has no rows: give tables that hold images")
    refuses(lambda: Parquet([empty], "x", modality="audio"), "give tables that hold sounds")
    broken = write(tmp_path / "5.parquet", image=structs([b"junk"] * 3))
    refuses(lambda: Parquet([broken], "x"), "none of the 3 images of x can be read")


@pytest.mark.parametrize(
    ("method", "memory", "most"),
    [("fork", 64 << 30, 8 << 30), ("spawn", 64 << 30, 256 << 20), ("forkserver", 64 << 20, 1 << 20)],
)
def test_less_is_read_where_every_process_reads_it(
    monkeypatch: pytest.MonkeyPatch, method: str, memory: int, most: int
) -> None:
    monkeypatch.setattr(tables, "memory", lambda: memory)
    monkeypatch.setattr(tables.multiprocessing, "get_start_method", lambda allow_none: method)
    assert tables._most_in_memory() == most
    monkeypatch.setattr(tables.multiprocessing, "get_start_method", lambda allow_none: None)
    monkeypatch.setattr(tables.multiprocessing, "get_all_start_methods", lambda: [method])
    assert tables._most_in_memory() == most


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "memory", lambda: 8)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("kind", ["struct", "binary"])
def test_what_does_not_fit_in_memory_is_copied_once_and_mapped(
    tmp_path: Path, images: list[bytes], cache: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    column = structs(images, [f"{n}.png" for n in range(10)]) if kind == "struct" else pa.array(images)
    paths = [
        write(tmp_path / "1.parquet", 3, image=column.slice(0, 6), label=[0, 1] * 3),
        write(tmp_path / "2.parquet", 3, image=column.slice(6), label=[0, 1] * 2),
    ]
    source = Parquet(paths, "a", labelled=True)
    (copy,) = (cache / "tables").iterdir()
    monkeypatch.setattr(tables, "_write_copy", lambda *_: pytest.fail("it was copied again"))
    for each in (source, Parquet(paths, "a", labelled=True), pickle.loads(pickle.dumps(source))):
        assert levels(each) == list(range(10)) and [each.label(index) for index in range(10)] == [0, 1] * 5
        assert each.title(7) == ("7.png (row 1 of 2.parquet)" if kind == "struct" else "row 1 of 2.parquet")
    assert pa.total_allocated_bytes() < 10**6
    monkeypatch.undo()
    assert copy.exists()


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("damage", [b"", b"junk"])
def test_a_damaged_copy_is_made_anew(tmp_path: Path, images: list[bytes], cache: Path, damage: bytes) -> None:
    path = write(tmp_path / "a.parquet", image=structs(images))
    Parquet([path], "a")
    (copy,) = (cache / "tables").iterdir()
    copy.write_bytes(damage)
    assert levels(Parquet([path], "a")) == list(range(10))
    assert [file.name for file in (cache / "tables").iterdir()] == [copy.name]


@pytest.mark.usefixtures("little_memory")
def test_a_copy_that_cannot_be_made_is_a_sentence(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    path = write(tmp_path / "a.parquet", image=structs(images))
    monkeypatch.setattr(tables.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    refuses(lambda: Parquet([path], "a"), "too little space): set OWNLATENT_CACHE to a folder with")
    monkeypatch.undo()
    monkeypatch.setattr(tables, "memory", lambda: 8)
    monkeypatch.setenv("OWNLATENT_CACHE", str(path / "below"))
    refuses(lambda: Parquet([path], "a"), "cannot be copied to")
    monkeypatch.setattr(tables, "cache_folder", lambda: None)
    refuses(lambda: Parquet([path], "a"), "set OWNLATENT_CACHE to a folder for a copy")


@pytest.mark.usefixtures("little_memory")
def test_arrow_files_are_mapped_as_they_are(tmp_path: Path, images: list[bytes], cache: Path) -> None:
    path = write(tmp_path / "a.arrow", 4, image=structs(images))
    assert levels(Parquet([path], "a")) == list(range(10)) and not (cache / "tables").exists()


def test_a_saved_data_set_is_known_by_its_files(tmp_path: Path, images: list[bytes], refuses: Refuses) -> None:
    features = {"image": {"_type": "Image"}, "label": CLASS_LABEL}
    for part in ("train", "test"):
        folder = tmp_path / "set" / part
        for number in range(2):
            write(folder / f"data-{number}.arrow", metadata=features, image=structs(images[:5]), label=[0, 1, 2, 0, 1])
        files = [{"filename": f"data-{number}.arrow"} for number in range(2)]
        (folder / "state.json").write_text(json.dumps({"_data_files": files}))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["test", "train"]}')
    for folder in (tmp_path / "set", tmp_path / "set" / "test"):
        source = open_source(folder, labelled=True)
        assert isinstance(source, Parquet) and levels(source) == [0, 1, 2, 3, 4] * 2
        assert source.classes == ["cat", "dog", "eel"]
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["test", "val"]}')
    refuses(lambda: open_source(tmp_path / "set"), "has the parts test, val: name one")


def test_without_the_package_there_is_a_hint(
    tmp_path: Path, images: list[bytes], monkeypatch: pytest.MonkeyPatch, refuses: Refuses
) -> None:
    path = write(tmp_path / "a.parquet", image=structs(images))
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    refuses(lambda: open_source(path), "pip install pyarrow")


def test_a_file_that_is_not_written_to_its_end_leaves_nothing(tmp_path: Path) -> None:
    def stop_half_way() -> None:
        with cache_module.replacing(tmp_path / "kept") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    (tmp_path / "kept").write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt):
        stop_half_way()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("kept", b"before")]


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWNLATENT_CACHE", "/a")
    assert cache_module.cache_folder() == Path("/a")
    monkeypatch.delenv("OWNLATENT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/b")
    assert cache_module.cache_folder() == Path("/b/ownlatent")
    for nothing in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", nothing)
        assert cache_module.cache_folder() == Path.home() / ".cache" / "ownlatent"


@pytest.mark.skipif(
    not (DATA / "cifar10").is_dir(), reason="no CIFAR-10: set OWNLATENT_DATA to the folder that holds it"
)
def test_cifar10(refuses: Refuses) -> None:
    refuses(lambda: open_source(DATA / "cifar10"), "several parts (test, train): name one by a pattern, such as")
    test = open_source(DATA / "cifar10" / "test*.parquet", labelled=True)
    assert len(test) == 10_000 and test.classes == (DATA / "cifar10" / "classes.txt").read_text().split()
    assert isinstance(test, Parquet) and test.format == Format(3, 8)
    labels = [test.label(index) for index in range(10_000)]
    assert np.bincount(np.array(labels)).tolist() == [1000] * 10
    for index in range(0, 10_000, 97):
        assert test.classes is not None and test.title(index).startswith(test.classes[labels[index] or 0])
        assert test[index].image.shape == (3, 32, 32) and test[index].image.dtype == torch.uint8
