"""`ownlatent search`: the nearest images, by looking at all of them or by FAISS, as tables and as a sheet."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tables import InMemory, whole

import ownlatent
from ownlatent import OwnlatentError, cli, load_encoder
from ownlatent.features import approximate
from ownlatent.features.formats import endings, format_of, read
from ownlatent.features.search import Neighbour, as_lines, nearest, unit
from ownlatent.reporting.neighbours import as_picture, draw_neighbours

NEEDS = {".parquet": "pyarrow", ".h5": "h5py"}
CPU = {"accelerator": "cpu"}


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory, gray: Path, photos: Path) -> Path:
    return ownlatent.embed(gray, photos, out=tmp_path_factory.mktemp("index") / "features.npz", **CPU)


@pytest.fixture
def query(tmp_path: Path, photos: Path) -> Path:
    """Image 33 of the photographs, as a file: a cat."""
    path = tmp_path / "query.png"
    Image.fromarray(np.load(photos)["images"][33]).save(path)
    return path


def brute_force(features: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    features, queries = (x.astype(np.float64) for x in (features, queries))
    cosines = queries @ (features / np.linalg.norm(features, axis=1, keepdims=True)).T
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


# Looking at all of them


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("at_once", [1, 7, 1000])
def test_exact_is_brute_force(at_once: int, dtype: str):
    rng = np.random.default_rng(0)
    features = rng.normal(0, 5, (500, 16)).astype(dtype)
    table = InMemory(features, at_once=at_once)
    queries = unit(rng.normal(size=(4, 16)))
    found = nearest(table, queries, 20)
    places = brute_force(features, queries, 20)
    assert [[each.row for each in some] for some in found] == (2 * places).tolist()
    for query, some in zip(queries, found, strict=True):
        similarities = [each.similarity for each in some]
        assert similarities == sorted(similarities, reverse=True)
        best = features[some[0].row // 2].astype(float)
        assert some[0].similarity == pytest.approx(query @ best / np.linalg.norm(best), abs=1e-5)
        assert some[0].path == table.paths[some[0].row // 2]


def test_equally_near_ones_come_in_their_order_and_fewer_than_asked_are_all():
    features = np.tile(np.eye(3, dtype=np.float32), (4, 1))
    found = nearest(InMemory(features), np.eye(3, dtype=np.float32)[:1], 5)
    assert [each.row for each in found[0][:4]] == [0, 6, 12, 18]
    assert len(nearest(InMemory(features), np.eye(3, dtype=np.float32), 99)[2]) == 12


def test_a_feature_of_length_zero_is_far_from_everything():
    features = np.array([[0, 0], [-1, 0], [1, 1]], np.float32)
    assert [each.row for each in nearest(InMemory(features), np.array([[1, 0]], np.float32), 3)[0]] == [4, 0, 2]


@pytest.mark.parametrize("ending", endings())
def test_an_image_finds_itself_in_an_index_of_any_format(
    tmp_path: Path, gray: Path, index: Path, query: Path, ending: str
):
    pytest.importorskip(NEEDS.get(ending, "numpy"))
    path = tmp_path / f"features{ending}"
    format_of(path).write(path, read(index))
    ((first, *others),) = ownlatent.search(gray, query, index=path, count=3, **CPU)
    assert first.row == 33 and first.similarity == pytest.approx(1, abs=1e-5)
    assert first.label == "cat" and first.path.endswith("photos.npz[33]") and len(others) == 2


def test_search_follows_the_layer_and_the_type(tmp_path: Path, gray: Path, photos: Path, query: Path):
    options = {"layer": "3", "dtype": "float16", "normalise": True}
    path = ownlatent.embed(gray, photos, out=tmp_path / "f.npz", **options, **CPU)
    ((first, *_),) = ownlatent.search(load_encoder(gray), [Image.open(query)], index=path, **CPU)
    assert first.row == 33 and first.similarity == pytest.approx(1, abs=1e-3)


def test_the_command_prints_a_table_for_each_image(
    gray: Path, index: Path, query: Path, capsys: pytest.CaptureFixture[str]
):
    assert run("search", gray, "--index", index, query, query, "--count", "4", "--accelerator", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * 6 and lines[0] == f"query      {query}"
    assert lines[1].split() == ["rank", "similarity", "label", "path"]
    assert (
        lines[2].split()[:3] == ["1", "1.0000", "cat"]
        and lines[2].endswith("photos.npz[33]")
        and lines[5].split()[0] == "4"
    )


def test_no_name_breaks_the_table():
    found = [Neighbour(0.5, row, "cat", path) for row, path in enumerate(InMemory(np.zeros((8, 2), np.float32)).paths)]
    lines = as_lines("query.png", found)
    assert len("\n".join(lines).splitlines()) == 10
    assert [line.split("cat    ", 1)[1] for line in lines[2:]] == [path for *_, path in found]
    assert "label" not in as_lines("query.png", [Neighbour(0.5, 1, None, "path")])[1]


# The sheet


def test_the_sheet_shows_the_images(tmp_path: Path, gray: Path, photos: Path, index: Path, query: Path):
    out = tmp_path / "sheets" / "neighbours.png"
    assert run("search", gray, "--index", index, query, "--count", "5", "--out", out, "--accelerator", "cpu") == 0
    with Image.open(out) as picture:
        assert (picture.width, picture.height) == (6 * 170 + 20, 206 + 10)
        shades = np.asarray(picture.convert("L"))
    image = np.load(photos)["images"][33]
    for left in (10, 190):  # the query and the first found, enlarged ten times
        assert np.abs(shades[15:170:10, left + 5 : left + 160 : 10].astype(int) - image).max() <= 1


def test_many_queries_and_names_that_no_font_has(tmp_path: Path):
    rng = np.random.default_rng(0)
    captions = ("$\\frac{1}", "😀.png"), ("a_very_long_name_of_a_file_that_ends_in.png", "日本語\n")
    rows = [[(rng.random((20, 40, 3)), *captions[x]) for x in range(2)] for _ in range(60)]
    draw_neighbours(rows, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.height == 50 * 206 + 10 and picture.width == 2 * 170 + 20


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 6)), (2, (4, 6)), (3, (4, 6, 3)), (13, (4, 6, 3))])
def test_images_of_any_channels_can_be_drawn(channels: int, shape: tuple[int, ...]):
    image = np.full((channels, 4, 6), 4095, np.uint16)
    assert as_picture(image, 4095.0).shape == shape and as_picture(image, 8190.0).max() == 0.5


def test_images_that_are_gone_leave_the_table(
    tmp_path: Path, colour: Path, write_image: Callable[..., Path], caplog: pytest.LogCaptureFixture
):
    for number in range(6):
        write_image(tmp_path / "images" / f"{number}.png", seed=number)
    path = ownlatent.embed(colour, tmp_path / "images", out=tmp_path / "f.npz", **CPU)
    arguments = ("search", colour, tmp_path / "images" / "3.png", "--index", path, "--accelerator", "cpu")
    picture = tmp_path / "sheet.png"
    os.rename(tmp_path / "images", tmp_path / "elsewhere")
    moved = [str(a).replace("/images/", "/elsewhere/") for a in arguments]
    assert run(*moved, "--out", picture) == 0
    assert "no picture because the images cannot be found again: there is no folder" in caplog.text
    assert not picture.exists()
    assert run(*moved, "--out", picture, "--data", tmp_path / "elsewhere") == 0 and picture.exists()
    picture.unlink()
    (tmp_path / "elsewhere" / "3.png").rename(tmp_path / "elsewhere" / "9.png")
    moved[2] = moved[2].replace("3.png", "9.png")
    assert run(*moved, "--out", picture, "--data", tmp_path / "elsewhere") == 0
    assert "in the place of" in caplog.text and not picture.exists()


# FAISS


def clustered(count: int, dimensions: int = 32) -> np.ndarray:
    """Features as encoders give them: in groups, in a part of the directions."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(200, dimensions))
    spread = rng.normal(size=(count, dimensions)) * np.linspace(1, 0.1, dimensions)
    return (centres[rng.integers(200, size=count)] + 0.7 * spread).astype(np.float32)


def test_faiss_finds_what_exact_finds(tmp_path: Path):
    pytest.importorskip("faiss")
    features = clustered(20_000)
    path = tmp_path / "features.npz"
    format_of(path).write(path, InMemory(features, at_once=3000))
    table, queries = read(path), unit(clustered(20_100)[-100:])
    exact = nearest(table, queries, 10)
    found = approximate.nearest(path, table, queries, 10)
    shared = [len({each.row for each in a} & {each.row for each in b}) for a, b in zip(exact, found, strict=True)]
    assert sum(shared) / 1000 > 0.95, "recall"
    first = {each.row: each for each in exact[0]}
    for each in found[0]:
        if each.row in first:
            assert each.path == first[each.row].path
            assert each.similarity == pytest.approx(first[each.row].similarity, abs=2e-3)


def test_the_faiss_index_is_kept_until_the_features_change(
    tmp_path: Path,
    gray: Path,
    photos: Path,
    query: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
):
    pytest.importorskip("faiss")
    caplog.set_level(logging.INFO, "ownlatent")
    path = ownlatent.embed(gray, photos, out=tmp_path / "f.npz", **CPU)
    command = ("search", gray, "--index", path, query, "--engine", "faiss", "--accelerator", "cpu")
    assert run(*command) == 0
    first = capsys.readouterr().out
    (kept,) = tmp_path.glob("*.faiss")
    assert "made once" in caplog.text and "photos.npz[33]" in first
    with monkeypatch.context() as patch:
        patch.setattr(approximate, "_made", lambda *_: pytest.fail("the index was made again"))
        assert run(*command) == 0
    assert capsys.readouterr().out == first
    ownlatent.embed(gray, photos, out=path, overwrite=True, layer="3", **CPU)
    assert run(*command) == 0
    (other,) = tmp_path.glob("*.faiss")
    assert other != kept
    other.write_bytes(b"damaged")
    assert run(*command) == 0
    assert "is damaged and is made again" in caplog.text and other.stat().st_size > 1000


# What is refused


def test_an_index_of_another_encoder_is_refused(
    index: Path, query: Path, make_encoder: Callable[..., Path], capsys: pytest.CaptureFixture[str]
):
    assert run("search", make_encoder(1, seed=1), "--index", index, query) == 2
    assert "was made by another encoder (resnet10_w16; this is resnet10_w16, and its weights differ)" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere.png", "--index", "INDEX"), "nowhere.png cannot be searched for (no such file"),
        (("text.png", "--index", "INDEX"), "text.png cannot be searched for"),
        (("text.png", "--index", "nowhere.parquet"), "there is no file nowhere.parquet"),
        (("text.png",), "--index"),
        (("--index", "INDEX"), "IMAGE"),
        (("text.png", "--index", "INDEX", "--count", "0"), "at least 1"),
        (("text.png", "--index", "INDEX", "--engine", "fais"), "faiss"),
        (("text.png", "--index", "INDEX", "--out", "text.png"), "already there"),
        (("QUERY", "--index", "INDEX", "--out", "sheet.xyz"), "is no picture"),
    ],
)
def test_wrong_input_is_one_sentence(
    tmp_path: Path,
    gray: Path,
    index: Path,
    query: Path,
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image")
    named = {"INDEX": str(index), "QUERY": str(query)}
    assert run("search", gray, *(named.get(argument, argument) for argument in arguments)) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_queries_of_other_channels_are_refused(gray: Path, index: Path):
    with pytest.raises(OwnlatentError, match="5 channels and the encoder takes 1"):
        ownlatent.search(gray, [torch.zeros(5, 16, 16, dtype=torch.uint8)], index=index, **CPU)


def test_arrays_have_no_pictures_to_go_back_to(tmp_path: Path, colour: Path, caplog: pytest.LogCaptureFixture):
    images = np.random.default_rng(0).integers(0, 256, (9, 16, 16, 3), dtype=np.uint8)
    path = ownlatent.embed(colour, images, out=tmp_path / "f.npz", **CPU)
    for data in (None, images):
        ((first, *_),) = ownlatent.search(
            colour, [images[4]], index=path, data=data, out=tmp_path / "sheet.png", overwrite=True, **CPU
        )
        assert first.row == 4 and (tmp_path / "sheet.png").exists() == (data is not None)
    assert "was given by a program" in caplog.text
    assert whole(read(path)).labels == [None] * 9
