"""Tar shards: every image once, whoever reads it; what is broken is listed and the rest is used."""

import contextlib
import io
import json
import logging
import os
import pickle
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.index import shard_index
from ownlatent.data.loader import Batches
from ownlatent.data.opening import load_labelled, open_source
from ownlatent.data.sources import shards
from ownlatent.data.sources.shards import Shards
from ownlatent.errors import OwnlatentError

Files = dict[str, bytes]
Picture = Callable[..., bytes]
Refuses = Callable[..., str]

pytestmark = pytest.mark.usefixtures("cache")


def write_tar(path: Path, files: Files) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def shard_set(tmp_path: Path, picture: Picture) -> Path:
    """Five shards of 7, 0, 12, 1 and 9 images; level k of image k, class k % 3."""
    level = 0
    for number, count in enumerate((7, 0, 12, 1, 9)):
        files = {}
        for _ in range(count):
            files[f"{level:06d}.png"] = picture(level)
            files[f"{level:06d}.cls"] = str(level % 3).encode()
            level += 1
        write_tar(tmp_path / "set" / f"{number:04d}.tar", files)
    return tmp_path / "set"


def level_of(source: Shards, index: int) -> int:
    return int(source[index].image[0, 0, 0])


def open_set(folder: Path, labelled: bool = False) -> Shards:
    source = open_source(str(folder / "{0000..0004}.tar"), labelled=labelled)
    assert isinstance(source, Shards)
    return source


def test_every_image_is_found_in_the_order_of_the_shards(shard_set: Path) -> None:
    source = open_set(shard_set)
    assert len(source) == 29 and source.format == Format(3, 8) and source.classes is None and source.skipped == []
    assert [level_of(source, index) for index in range(29)] == list(range(29))
    assert source.title(0) == "0000.tar/000000.png" and source.title(28) == source[28].name == "0004.tar/000028.png"
    assert len({source.title(index) for index in range(29)}) == 29
    assert source.title(-1) == source.title(28)
    with pytest.raises(IndexError):
        source.encoded(29)


class Titles(torch.utils.data.Dataset):
    """A batch as what a person can check: which images are in it."""

    def __init__(self, source: Shards):
        self.source = source

    def __getitem__(self, index: int) -> tuple[str, int]:
        sample = self.source[index]
        assert sample.label is None
        return sample.name, int(sample.image[0, 0, 0])


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than cores
@pytest.mark.parametrize(("workers", "context"), [(0, None), (1, "fork"), (3, "fork"), (2, "spawn")])
def test_no_image_is_lost_or_doubled_by_worker_processes(shard_set: Path, workers: int, context: str | None) -> None:
    source = open_set(shard_set)
    batches = Batches(29, 4, seed=3)
    loader = DataLoader(
        Titles(source),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=list,
        multiprocessing_context=context,
    )
    epochs = 2 * batches.per_epoch
    seen = [image for batch in islice(loader, epochs) for image in batch]
    expected = [index for batch in islice(batches, epochs) for index in batch]
    assert Counter(level for _, level in seen) == Counter(expected)
    assert all(name == source.title(level) for name, level in seen)
    for epoch in range(2):  # 28 of 29: the incomplete batch is left out
        assert len(set(seen[28 * epoch : 28 * epoch + 28])) == 28


def test_two_processes_share_all_images(shard_set: Path) -> None:
    source = open_set(shard_set)
    ranks = [[level_of(source, index) for index in range(rank, 29, 2)] for rank in range(2)]
    assert sorted(ranks[0] + ranks[1]) == list(range(29))


def test_threads_read_at_once(shard_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even while tar files are closed under them because too many would be open."""
    source = open_set(shard_set)
    indices = np.random.default_rng(0).permutation(np.repeat(np.arange(29), 30)).tolist()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda index: level_of(source, index), indices)) == indices


def test_more_tar_files_than_may_be_open(tmp_path: Path, picture: Picture) -> None:
    for number in range(shards._OPEN + 20):
        write_tar(tmp_path / f"{number:03d}.tar", {"0.png": picture(number)})
    source = open_source(tmp_path)
    assert isinstance(source, Shards)
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    levels = [level_of(source, index % len(source)) for index in range(2 * len(source))]
    assert levels == 2 * list(range(len(source)))
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + shards._OPEN


def test_pickled_it_reads_the_same_and_carries_no_image(shard_set: Path) -> None:
    source = open_set(shard_set, labelled=True)
    source[3]
    content = pickle.dumps(source)
    again = pickle.loads(content)
    assert len(content) < 8000
    assert [level_of(again, index) for index in range(29)] == list(range(29))
    assert again.classes == source.classes and again[4].label == source[4].label == 1
    assert again.format == source.format and again.title(9) == source.title(9)


def test_labels_are_there_only_when_asked_for(shard_set: Path) -> None:
    source = open_set(shard_set)
    assert source.classes is None and {source[index].label for index in range(29)} == {None}
    labelled = open_set(shard_set, labelled=True)
    assert labelled.classes == ["0", "1", "2"]
    assert [labelled.label(index) for index in range(29)] == [index % 3 for index in range(29)]


def test_names_of_the_classes_lie_beside_the_shards(shard_set: Path, refuses: Refuses) -> None:
    (shard_set / "classes.txt").write_text("cat\ndog\neel\nfox\n")
    assert open_set(shard_set, labelled=True).classes == ["cat", "dog", "eel", "fox"]
    (shard_set / "classes.txt").write_text("cat\ndog\n")
    refuses(lambda: open_set(shard_set, labelled=True), "a label 2, but its list of classes has 2 names")


@pytest.mark.parametrize(
    "labels",
    [
        [{"label": "cat"}, {"label": "dog"}],
        [{"caption": "x", "class": "cat"}, {"class": "dog", "url": ""}],
        [b"cat\n", b"dog"],
        [b"cat", {"label": "dog"}],
    ],
)
def test_labels_are_words_in_either_kind_of_file(tmp_path: Path, labels: list, picture: Picture) -> None:
    files: Files = {}
    for number, label in enumerate(labels):
        files[f"{number}.png"] = picture(number)
        is_json = isinstance(label, dict)
        files[f"{number}.{'json' if is_json else 'cls'}"] = json.dumps(label).encode() if is_json else label
    source = Shards([write_tar(tmp_path / "a.tar", files)], "a", labelled=True)
    assert source.classes == ["cat", "dog"] and [source.label(0), source.label(1)] == [0, 1]


def test_a_class_file_decides_over_a_json_file_wherever_they_lie(tmp_path: Path, picture: Picture) -> None:
    files = {
        "a.cls": b"1",
        "b.png": picture(2),
        "a.json": b'{"label": 7}',
        "a.png": picture(1),
        "sub/a.png": picture(3),
        "sub/a.json": b'{"label": 5}',
        "b.cls": b"0",
    }
    source = Shards([write_tar(tmp_path / "a.tar", files)], "a", labelled=True)
    found = {source.title(index): source.classes[source.label(index)] for index in range(3)}  # type: ignore
    assert found == {"a.tar/b.png": "0", "a.tar/a.png": "1", "a.tar/sub/a.png": "5"}


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ({}, "has no labels: beside each image"),
        ({"0.cls": b"1"}, "2 of the 3 images of a have no label"),
        ({"0.json": b"[1]", "1.json": b"{}"}, "has no labels"),
        ({"0.json": b"{broken"}, "the label of a.tar/0.png cannot be read"),
        ({"0.cls": b"\xff"}, "the label of a.tar/0.png cannot be read"),
        ({"0.cls": b"7", "1.cls": b"7", "2.cls": b"7"}, "all images of a have one label, '7'"),
    ],
)
def test_missing_labels_are_a_sentence(
    tmp_path: Path, extra: Files, words: str, picture: Picture, refuses: Refuses
) -> None:
    files = {**{f"{number}.png": picture(number) for number in range(3)}, **extra}
    path = write_tar(tmp_path / "a.tar", files)
    assert len(Shards([path], "a")) == 3
    refuses(lambda: Shards([path], "a", labelled=True), words)


def test_only_images_count(tmp_path: Path, picture: Picture) -> None:
    files = {"a.PNG": picture(1), "._a.png": b"junk", "b.txt": b"words", "c": b"", "sub/.d.png": b"", "x/e.jpeg": b""}
    files["x/e.jpeg"] = picture(2, kind="JPEG")
    source = Shards([write_tar(tmp_path / "a.tar", files)], "a")
    assert [source.title(index) for index in range(len(source))] == ["a.tar/a.PNG", "a.tar/x/e.jpeg"]


def test_what_goes_with_a_picture_is_no_image_of_its_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, picture: Picture
) -> None:
    array = io.BytesIO()
    np.save(array, np.zeros((4, 4), np.uint8))
    files = {
        "a.jpg": picture(1, kind="JPEG"),
        "a.mask.png": picture(9),
        "a.npy": array.getvalue(),
        "b.left.png": picture(2),
        "b.right.png": picture(3),
        "2024.01.png": picture(4),
        "2024.02.png": picture(5),
    }
    with caplog.at_level(logging.INFO, "ownlatent"):
        source = Shards([write_tar(tmp_path / "a.tar", files)], "a")
    names = [source.title(index).removeprefix("a.tar/") for index in range(len(source))]
    assert names == ["a.jpg", "b.left.png", "b.right.png", "2024.01.png", "2024.02.png"]
    assert "2 images are left out" in caplog.text


def test_names_are_shown_and_never_followed(tmp_path: Path, picture: Picture) -> None:
    files = {"../../outside.png": picture(1), "/absolute/path.png": picture(2), "new\nline.png": picture(3)}
    source = Shards([write_tar(tmp_path / "in" / "a.tar", files)], "a")
    assert [level_of(source, index) for index in range(3)] == [1, 2, 3]
    assert "\n" not in source.title(2)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.tar"]


def test_of_a_cut_shard_what_is_whole_is_used(tmp_path: Path, picture: Picture) -> None:
    path = write_tar(tmp_path / "a.tar", {f"{number}.png": picture(number, side=64) for number in range(6)})
    write_tar(tmp_path / "b.tar", {"0.png": picture(100)})
    whole = Shards([path], "a")
    end = int(whole._offsets[4] + whole._sizes[4])
    for cut, used, reason in ((end - 1, 4, "ends inside it"), (int(whole._offsets[4]) - 100, 4, "cut off from byte")):
        data = path.read_bytes()[:cut]
        (tmp_path / "cut.tar").write_bytes(data)
        source = Shards([tmp_path / "cut.tar", tmp_path / "b.tar"], "both")
        assert [level_of(source, index) for index in range(len(source))] == [*range(used), 100]
        assert (
            len(source.skipped) == 1 and source.skipped[0][0].startswith("cut.tar") and reason in source.skipped[0][1]
        )


def test_links_are_listed_as_not_used(tmp_path: Path, picture: Picture) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(1)})
    with tarfile.open(path, "a") as tar:
        for name, type in (("b.png", tarfile.LNKTYPE), ("c.png", tarfile.SYMTYPE), ("d.png", tarfile.FIFOTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = type, "a.png"
            tar.addfile(entry)
    source = Shards([path], "a")
    assert len(source) == 1
    assert [name for name, _ in source.skipped] == ["a.tar/b.png", "a.tar/c.png", "a.tar/d.png"]
    assert ["link" in reason for _, reason in source.skipped] == [True, True, False]


def test_an_empty_or_foreign_shard_among_others_is_listed(tmp_path: Path, picture: Picture) -> None:
    good = write_tar(tmp_path / "a.tar", {"a.png": picture(1)})
    (tmp_path / "b.tar").write_bytes(b"")
    (tmp_path / "c.tar").write_text("<html>not found</html>")
    source = Shards([good, tmp_path / "b.tar", tmp_path / "c.tar"], "set")
    assert len(source) == 1 and [name for name, _ in source.skipped] == ["b.tar", "c.tar"]


def test_one_broken_image_is_unreadable_and_the_others_are_not(tmp_path: Path, picture: Picture) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": b"", "b.png": picture(7), "c.png": picture(8)[:60]})
    source = Shards([path], "a")
    assert len(source) == 3 and level_of(source, 1) == 7
    for index in (0, 2):
        with pytest.raises(Unreadable):
            source[index]


def test_a_file_too_large_for_an_image_is_unreadable(tmp_path: Path, picture: Picture) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(1)})
    entry = tarfile.TarInfo("b.png")
    entry.size = 3 * 2**30
    with open(path, "r+b") as file:
        file.seek(1024)
        file.write(entry.tobuf())
        file.truncate(1536 + entry.size)  # takes no room on the disk
    source = Shards([path], "a")
    assert len(source) == 2 and level_of(source, 0) == 1
    with pytest.raises(Unreadable, match="larger than 2 GiB"):
        source[1]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no image in the tar file a: give tar files that hold image files"),
        ({"a.txt": b""}, "no image in the tar file a"),
        ({"a.png": b"junk"}, "none of the 1 images of a can be read"),
    ],
)
def test_nothing_to_read_is_a_sentence(tmp_path: Path, files: Files, words: str, refuses: Refuses) -> None:
    path = write_tar(tmp_path / "a.tar", files)
    refuses(lambda: Shards([path], "a"), words)


def test_nothing_but_damage_is_a_sentence(tmp_path: Path, refuses: Refuses) -> None:
    paths = [tmp_path / "a.tar", tmp_path / "b.tar"]
    for path in paths:
        path.write_bytes(b"x" * 2000)
    refuses(lambda: Shards(paths, "both"), "the 2 tar files of both (a.tar: it is damaged")


def test_compressed_shards_are_refused(tmp_path: Path, shard_set: Path, refuses: Refuses) -> None:
    plain = shard_set / "0000.tar"
    with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
        tar.add(plain)
    for name in ("b.tar.gz", "b.tgz", "b.tar"):
        if name != "b.tar.gz":
            shutil.copy(tmp_path / "b.tar.gz", tmp_path / name)
        text = refuses(lambda: open_source(tmp_path / name), "is compressed")  # noqa: B023
        assert "unpack it" in text


def test_a_shard_that_may_not_be_read_is_a_sentence(tmp_path: Path, refuses: Refuses) -> None:
    refuses(lambda: Shards([tmp_path / "a.tar"], "a"), "cannot be read (no such file")


def test_a_shard_that_changes_is_noticed(shard_set: Path, picture: Picture) -> None:
    source = open_set(shard_set)
    write_tar(shard_set / "0003.tar", {"x.png": picture(200, side=30)})
    (shard_set / "0004.tar").unlink()
    with pytest.raises(Unreadable, match="has changed since it was listed"):
        source[19]
    assert level_of(source, 28) == 28, "a file that is open can be read even after it was deleted"
    shards._opened.cache_clear()
    with pytest.raises(Unreadable, match="no such file"):
        source[28]
    assert level_of(source, 18) == 18
    again = open_source([str(shard_set / "0003.tar")])
    assert level_of(again, 0) == 200  # type: ignore[arg-type]


def rested(paths: Sequence[Path]) -> list[str]:
    for path in paths:
        os.utime(path, (1e9, 1e9))
    return [str(path) for path in paths]


def test_the_index_of_a_large_shard_is_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    monkeypatch.setattr(shard_index, "KEPT", 3)
    large = write_tar(tmp_path / "l.tar", {f"{n}.png": picture(n) for n in range(5)} | {"0.cls": b"a", "1.json": b"{}"})
    with tarfile.open(large) as tar:
        cut = tar.getmember("4.png").offset_data + 5
    large.write_bytes(large.read_bytes()[:cut])
    small = write_tar(tmp_path / "s.tar", {"a.png": picture(9)})
    paths = rested([large, small])
    first = shard_index.index_all(paths)
    assert len(first[0].offsets) == 4 and first[0].skipped and len(list((cache / "shards").iterdir())) == 1
    monkeypatch.setattr(shard_index, "_collect", lambda *_: pytest.fail("it was read again"))
    for one, two in zip(first[0], shard_index.index_all(paths[:1])[0], strict=True):
        assert np.array_equal(one, two) if isinstance(one, np.ndarray) else one == two


def test_a_kept_index_is_used_only_for_the_very_file(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    monkeypatch.setattr(shard_index, "KEPT", 1)
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(1)})
    assert len(Shards([path], "a")) == 1
    assert not (cache / "shards").exists(), "a file that was written a moment ago may change without a trace"
    rested([path])
    assert len(Shards([path], "a")) == 1 and len(list((cache / "shards").iterdir())) == 1
    write_tar(path, {"a.png": picture(1), "b.png": picture(2)})
    assert len(Shards([path], "a")) == 2


@pytest.mark.parametrize("damage", ["cut", "junk", "empty"])
def test_a_damaged_kept_index_is_made_anew(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, damage: str, picture: Picture
) -> None:
    monkeypatch.setattr(shard_index, "KEPT", 1)
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(5)})
    rested([path])
    Shards([path], "a")
    (kept,) = (cache / "shards").iterdir()
    content = kept.read_bytes()
    kept.write_bytes({"cut": content[:-50], "junk": b"junk" * 50, "empty": b""}[damage])
    assert level_of(Shards([path], "a"), 0) == 5
    assert kept.read_bytes() == content


def test_without_a_cache_folder_everything_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Picture
) -> None:
    monkeypatch.setattr(shard_index, "KEPT", 1)
    (tmp_path / "file").write_text("")
    path = write_tar(tmp_path / "a.tar", {"a.png": picture(5)})
    rested([path])
    monkeypatch.setenv("OWNLATENT_CACHE", str(tmp_path / "file" / "below"))
    assert level_of(Shards([path], "a"), 0) == 5
    monkeypatch.delenv("OWNLATENT_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert level_of(Shards([path], "a"), 0) == 5


def test_labelled_shards_in_memory(shard_set: Path, refuses: Refuses) -> None:
    data = load_labelled(shard_set, 1, 4)
    assert data.images.shape == (29, 1, 4, 4) and data.labels is not None
    assert data.labels.tolist() == [index % 3 for index in range(29)]
    refuses(lambda: load_labelled(shard_set, 13, 4), "have 3 channels and the encoder takes 13")


def test_whatever_the_damage_only_the_usual_is_raised(tmp_path: Path, picture: Picture) -> None:
    files = {}
    for number in range(6):
        files[f"{'long/' * 30 if number % 2 else ''}ü{number}.png"] = picture(number)
        files[f"{'long/' * 30 if number % 2 else ''}ü{number}.cls"] = str(number % 2).encode()
    whole = write_tar(tmp_path / "a.tar", files).read_bytes()
    rng = np.random.default_rng(0)
    for round in range(300):
        data = bytearray(whole)
        for _ in range(int(rng.integers(1, 4))):
            place = int(rng.integers(len(data)))
            length = int(rng.integers(1, 200))
            data[place : place + length] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        path = tmp_path / f"{round}.tar"
        path.write_bytes(data[: int(rng.integers(1, len(data)))] if round % 3 == 0 else data)
        for labelled in (False, True):
            try:
                source = Shards([path], "a", labelled)
            except OwnlatentError:
                continue
            for index in range(len(source)):
                assert source.title(index).isprintable()
                with contextlib.suppress(Unreadable):
                    assert source[index].image.dtype == torch.uint8
