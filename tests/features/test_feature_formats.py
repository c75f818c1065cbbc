"""Files of features: every format gives back what it was given, and the libraries that people use read it."""

import csv
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tables import InMemory, whole

from ownlatent.errors import OwnlatentError
from ownlatent.features.formats import endings, format_of, read
from ownlatent.features.table import Chunk, one_line

LABELS = ["cat", "dog", None, "a,b", 'quo"te', "é", "cat", "dog", "cat", "dog"]
NEEDS = {".parquet": "pyarrow", ".h5": "h5py"}


def features(count: int = 10, dimensions: int = 5, dtype: str = "float32") -> np.ndarray:
    values = np.random.default_rng(0).normal(0, 3, (count, dimensions)).astype(dtype)
    values[0, :3] = 0, -1e-7, 1 / 3
    return values


def written(path: Path, table: InMemory) -> Path:
    pytest.importorskip(NEEDS.get(path.suffix, "numpy"))
    format_of(path).write(path, table)
    return path


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("labels", [LABELS, None], ids=["labels", "no labels"])
@pytest.mark.parametrize("ending", endings())
def test_every_format_gives_back_what_it_was_given(tmp_path: Path, ending: str, labels: list | None, dtype: str):
    table = InMemory(features(dtype=dtype), labels)
    kept = read(written(tmp_path / f"features{ending}", table))
    assert len(kept) == 10 and table.about.items() <= dict(kept.about).items()
    for with_features in (True, False):
        given, found = whole(table, with_features), whole(kept, with_features)
        assert found[:3] == given[:3]
        assert found.features.dtype == given.features.dtype and np.array_equal(found.features, given.features)


@pytest.mark.parametrize("ending", endings())
def test_what_is_read_can_be_written_by_every_other_format(tmp_path: Path, ending: str):
    table = InMemory(features(), LABELS)
    first = read(written(tmp_path / "first.npz", table))
    second = read(written(tmp_path / f"features{ending}", first))
    assert whole(second)[:3] == whole(table)[:3] and np.array_equal(whole(second).features, table.features)


class Endless(InMemory):
    """As many features as are asked for, made when they are wanted."""

    def __init__(self, count: int, dimensions: int):
        super().__init__(np.zeros((1, dimensions), np.float32))
        self.count = count

    def __len__(self) -> int:
        return self.count

    def chunks(self, features: bool = True) -> Iterator[Chunk]:
        for first in range(0, self.count, 500):
            rows = range(first, first + 500)
            values = np.full((500, self.about["dimensions"] if features else 0), first, np.float32)
            yield Chunk(rows, [f"{row}.png" for row in rows], [None] * 500, values)


@pytest.mark.parametrize("ending", sorted({*endings()} - {".csv"}))  # whose every number takes its time
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ownlatent.features.table._CHUNK_BYTES", 1 << 18)
    written(tmp_path / f"small{ending}", Endless(500, 256))  # what a library loads once does not count
    tracemalloc.start()
    try:
        table = read(written(tmp_path / f"large{ending}", Endless(8_000, 256)))
        count = sum(len(chunk.features) for chunk in table.chunks())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 8_000 and peak < 8_000 * 256 * 4 / 2


@pytest.mark.parametrize("ending", [".csv", ".npz", ".parquet"])
def test_the_same_features_make_the_same_file(tmp_path: Path, ending: str):
    first, second = (written(tmp_path / f"{name}{ending}", InMemory(features(), LABELS)) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_opens_in_pandas(tmp_path: Path, dtype: str):
    pandas = pytest.importorskip("pandas")
    table = InMemory(features(dtype=dtype), LABELS)
    frame = pandas.read_parquet(written(tmp_path / "features.parquet", table))
    assert list(frame.columns) == ["row", "path", "label", "features"]
    assert frame["path"].tolist() == table.paths and frame["row"].tolist() == table.rows
    assert [None if pandas.isna(label) else label for label in frame["label"]] == LABELS
    assert np.array_equal(np.stack(frame["features"].tolist()), table.features)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_opens_in_polars(tmp_path: Path, dtype: str):
    polars = pytest.importorskip("polars")
    table = InMemory(features(dtype=dtype), LABELS)
    frame = polars.read_parquet(written(tmp_path / "features.parquet", table))
    assert frame["path"].to_list() == table.paths and frame["label"].to_list() == LABELS
    assert np.array_equal(frame["features"].to_numpy(), table.features)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_parquet_opens_in_duckdb(tmp_path: Path, dtype: str):
    duckdb = pytest.importorskip("duckdb")
    table = InMemory(features(dtype=dtype), LABELS)
    path = written(tmp_path / "features.parquet", table)
    found = duckdb.sql(f"select row, path, label, features from '{path}' order by row").fetchall()
    rows, paths, labels, vectors = zip(*found, strict=True)
    assert (list(rows), list(paths), list(labels)) == (table.rows, table.paths, LABELS)
    assert np.array_equal(np.array(vectors, dtype), table.features)
    assert duckdb.sql(f"select count(*) from '{path}' where label = 'cat'").fetchall() == [(3,)]


def test_parquet_says_whose_the_features_are(tmp_path: Path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = written(tmp_path / "features.parquet", InMemory(features()))
    metadata = json.loads(parquet.read_schema(path).metadata[b"ownlatent"])
    assert metadata["encoder"] == "small" and metadata["data"] == "photos" and metadata["layer"] is None
    assert parquet.read_schema(path).field("features").type.list_size == 5
    assert parquet.ParquetFile(path).num_row_groups == 4  # it was written in chunks


def test_npz_opens_in_numpy_without_pickles(tmp_path: Path):
    table = InMemory(features(), LABELS)
    with np.load(written(tmp_path / "features.npz", table), allow_pickle=False) as arrays:
        assert sorted(arrays) == ["features", "label", "metadata", "path", "row"]
        assert np.array_equal(arrays["features"], table.features) and arrays["path"].tolist() == table.paths
        assert arrays["label"].tolist() == [label or "" for label in LABELS]
        assert json.loads(arrays["metadata"].item())["dimensions"] == 5


def test_csv_opens_in_pandas_and_python(tmp_path: Path):
    table = InMemory(features(), LABELS)
    path = written(tmp_path / "features.csv", table)
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [line["path"] for line in lines] == table.paths and lines[2]["label"] == ""
    values = np.array([[line[f"f{d}"] for d in range(5)] for line in lines], np.float32)
    assert np.array_equal(values, table.features)
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(path, keep_default_na=False)
    assert frame["path"].tolist() == table.paths
    assert np.array_equal(frame.filter(regex=r"^f\d").to_numpy(np.float32), table.features)


def test_h5_opens_in_h5py(tmp_path: Path):
    h5py = pytest.importorskip("h5py")
    table = InMemory(features(dtype="float16"), LABELS)
    with h5py.File(written(tmp_path / "features.h5", table)) as file:
        assert np.array_equal(file["features"][:], table.features) and file["features"].dtype == np.float16
        assert list(file["path"].asstr()[:]) == table.paths
        assert json.loads(file["metadata"].asstr()[()])["images"] == 20


@pytest.mark.parametrize("ending", endings())
@pytest.mark.parametrize("damage", ["cut", "other", "empty", "of others"])
def test_damaged_files_and_those_of_others_are_one_sentence(tmp_path: Path, ending: str, damage: str):
    path = written(tmp_path / f"features{ending}", InMemory(features(200, 30), at_once=50))
    content = path.read_bytes()
    if damage == "of others":
        _of_others(path)
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "other": b"no such file" * 100, "empty": b""}[damage])
    with pytest.raises(OwnlatentError, match="holds no features that can be read") as refused:
        whole(read(path))
    assert "\n" not in str(refused.value)


def _of_others(path: Path) -> None:
    """A sound file of the format that `ownlatent embed` did not write."""
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet

        pa.parquet.write_table(pa.table({"features": [1.0]}), path)
    elif path.suffix == ".npz":
        np.savez(path, features=np.zeros((3, 4)))
    elif path.suffix == ".h5":
        import h5py

        with h5py.File(path, "w") as file:
            file["features"] = np.zeros((3, 4))
    else:
        path.with_name(path.name + ".json").unlink()


def test_other_endings_are_refused_with_those_there_are(tmp_path: Path):
    with pytest.raises(OwnlatentError, match=r"end it in \.csv, \.h5, \.npz, \.parquet"):
        format_of(tmp_path / "features.txt")
    with pytest.raises(OwnlatentError, match="there is no file"):
        read(tmp_path / "features.parquet")


def test_a_newer_format_is_refused(tmp_path: Path):
    path = written(tmp_path / "features.csv", InMemory(features(), format=99))
    with pytest.raises(OwnlatentError, match="has format 99"):
        read(path)


@pytest.mark.parametrize("name", ["a\nb", "a\r\u2028b", "\x1b[2J", "caf\udce9", "\ud800", "a\x00b"])
def test_no_name_breaks_a_line_or_cannot_be_stored(name: str):
    line = one_line(name)
    assert len(line.splitlines()) == 1 and "\x1b" not in line and "\x00" not in line
    assert line.encode().decode() == line
