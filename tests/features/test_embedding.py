"""`ownlatent embed`: features of a source in a file, whatever stops it in between."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tables import whole
from torch import nn

import ownlatent
from ownlatent import OwnlatentError, Run, cli, load_encoder
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.opening import open_source
from ownlatent.data.reading import batches
from ownlatent.data.resident import Resident
from ownlatent.data.sources.photos import PHOTOGRAPHS
from ownlatent.evaluation.embed import embed, embedded
from ownlatent.evaluation.layer import LayerOf
from ownlatent.features import embedding
from ownlatent.features.formats import endings, read
from ownlatent.features.partial import Partial
from ownlatent.train.recipe import Recipe

NEEDS = {".parquet": "pyarrow", ".h5": "h5py"}
CPU = {"accelerator": "cpu"}


def features_of(path: Path) -> np.ndarray:
    return whole(read(path)).features


def expected(network: nn.Module, data: str | Path, channels: int) -> np.ndarray:
    """What the encoder itself gives of a source."""
    images = [batch.images for batch in batches(open_source(data), channels, 16)]
    return embed(network, torch.cat([image for image in images if image is not None])).numpy()


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """What was said since the last time."""
    caplog.set_level(logging.INFO, "ownlatent")

    def take() -> str:
        text = caplog.text
        caplog.clear()
        return text

    return take


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(argument) for argument in arguments])
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("ending", endings())
def test_a_file_holds_what_the_encoder_gives(tmp_path: Path, gray: Path, photos: Path, ending: str):
    pytest.importorskip(NEEDS.get(ending, "numpy"))
    out = tmp_path / f"features{ending}"
    assert run("embed", gray, photos, "--out", out, "--accelerator", "cpu", "--batch-size", "10") == 0
    table = read(out)
    found, source = whole(table), open_source(photos)
    np.testing.assert_allclose(found.features, expected(load_encoder(gray), photos, 1), atol=1e-5)
    assert found.rows == list(range(140)) and found.paths == [source.title(row) for row in range(140)]
    assert found.labels == [name for name in PHOTOGRAPHS for _ in range(10)]
    about = table.about
    assert (about["encoder"], about["data"], about["images"]) == ("resnet10_w16", str(photos), 140)
    assert (about["layer"], about["normalised"], about["ownlatent"]) == (None, False, ownlatent.__version__)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [out.name, *([f"{out.name}.json"] if ending == ".csv" else [])]
    )


def test_a_folder_of_colours_gives_classes_and_titles(tmp_path: Path, colour: Path, class_folder: Path):
    found = whole(read(ownlatent.embed(colour, class_folder, out=tmp_path / "f.npz", batch_size=7, **CPU)))
    assert found.labels == ["blue"] * 20 + ["green"] * 20 + ["red"] * 20 and found.paths[20] == "green/000.jpg"
    np.testing.assert_allclose(found.features, expected(load_encoder(colour), class_folder, 3), atol=1e-5)


def test_without_classes_there_are_no_labels(tmp_path: Path, colour: Path, image_folder: Path, said: Callable[[], str]):
    out = tmp_path / "f.npz"
    assert run("embed", colour, image_folder, "--out", out, "--accelerator", "cpu") == 0
    assert whole(read(out)).labels == [None] * 60
    assert "labels     none: " in said()


def test_options_change_what_is_stored(tmp_path: Path, gray: Path, photos: Path):
    encoder = load_encoder(gray)
    plain, layer = expected(encoder, photos, 1), expected(LayerOf(encoder, "4"), photos, 1)
    out = tmp_path / "f.npz"
    assert run("embed", gray, photos, "--out", out, "--layer", "4", "--accelerator", "cpu") == 0
    np.testing.assert_allclose(features_of(out), layer, atol=1e-5)
    assert read(out).about["layer"] == "4" and layer.shape[1] != plain.shape[1]
    options = ("--normalise", "--dtype", "float16", "--overwrite", "--accelerator", "cpu")
    assert run("embed", gray, photos, "--out", out, *options) == 0
    found = features_of(out)
    assert found.dtype == np.float16 and read(out).about["normalised"]
    np.testing.assert_allclose(found, plain / np.linalg.norm(plain, axis=1, keepdims=True), atol=1e-3)


def test_arrays_encoders_and_modules_of_ones_own(tmp_path: Path, colour: Path):
    images = np.random.default_rng(0).integers(0, 256, (50, 16, 16, 3), dtype=np.uint8)
    encoder = load_encoder(colour)
    path = ownlatent.embed(encoder, images, out=tmp_path / "f.npz", **CPU)
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    np.testing.assert_allclose(features_of(path), embed(encoder, tensor).numpy(), atol=1e-5)
    assert read(path).about["data"] is None and whole(read(path)).paths[7] == "array[7]"
    own = ownlatent.embed(colour, images, out=tmp_path / "own.npz", network=encoder.backbone.net, **CPU)
    np.testing.assert_allclose(features_of(own), features_of(path), atol=1e-5)


def test_a_run_can_be_given(tmp_path: Path, gray: Path, photos: Path):
    shutil.copytree(gray, tmp_path / "run")
    Recipe().save(tmp_path / "run" / "recipe.json")
    plain = ownlatent.embed(gray, photos, out=tmp_path / "plain.npz", **CPU)
    path = ownlatent.embed(Run(tmp_path / "run"), photos, out=tmp_path / "f.npz", **CPU)
    assert path.read_bytes() == plain.read_bytes()


def test_unreadable_images_are_skipped_counted_and_named(
    tmp_path: Path, colour: Path, class_folder: Path, said: Callable[[], str]
):
    shutil.copytree(class_folder, tmp_path / "images")
    for number in range(12):  # a whole batch, and the beginning and end of others
        (tmp_path / "images" / "green" / f"{number:03d}.{'png' if number % 2 else 'jpg'}").write_bytes(b"no image")
    (tmp_path / "images" / "red" / "zz.png").write_bytes(b"no image")
    out = tmp_path / "f.npz"
    assert run("embed", colour, tmp_path / "images", "--out", out, "--batch-size", "5", "--accelerator", "cpu") == 0
    table = read(out)
    found = whole(table)
    assert found.rows == [*range(20), *range(32, 60)] and len(found.features) == len(table) == 48
    assert found.labels == ["blue"] * 20 + ["green"] * 8 + ["red"] * 20
    np.testing.assert_allclose(found.features, expected(load_encoder(colour), tmp_path / "images", 3), atol=1e-5)
    assert table.about["skipped"] == 13 and len(table.about["unreadable"]) == 13
    text = said()
    assert "skipped    13 of the 61 files" in text and "skipped    green/003.png: " in text and "3 more" in text


def test_nothing_readable_leaves_nothing(tmp_path: Path, colour: Path):
    (tmp_path / "images").mkdir()
    header = b"\x89PNG\r\n\x1a\n"
    for number in range(3):
        (tmp_path / "images" / f"{number}.png").write_bytes(header)
    with pytest.raises(OwnlatentError, match="can be read"):
        ownlatent.embed(colour, tmp_path / "images", out=tmp_path / "f.npz", **CPU)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_hostile_names_come_through(tmp_path: Path, colour: Path, write_image: Callable[..., Path]):
    folder = tmp_path / "images"
    names = [b"plain.png", b"a,b.png", b'"quoted".png', b"new\nline.png", b"caf\xe9.png", "😀é.png".encode()]
    write_image(folder / "x.png")
    content = (folder / "x.png").read_bytes()
    (folder / "x.png").unlink()
    for name in names:
        try:
            with open(os.path.join(os.fsencode(folder), name), "wb") as file:
                file.write(content)
        except OSError:
            pytest.skip("this file system does not take such names")
    for ending in endings():
        pytest.importorskip(NEEDS.get(ending, "numpy"))
        paths = whole(read(ownlatent.embed(colour, folder, out=tmp_path / f"f{ending}", **CPU))).paths
        assert paths == ['"quoted".png', "a,b.png", "caf\\xe9.png", "new\\nline.png", "plain.png", "😀é.png"]


# Stopped and gone on with


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The next embedding ends like one whose Ctrl-C comes after so many batches."""

    def stopped(*arguments: object, **_: object):
        for number, features in enumerate(embedded(*arguments)):  # type: ignore[arg-type]
            if number == count:
                raise KeyboardInterrupt
            yield features

    monkeypatch.setattr(embedding, "embedded", stopped)


@pytest.mark.parametrize("ending", endings())
def test_a_stopped_one_goes_on_to_the_same_file(
    tmp_path: Path, gray: Path, photos: Path, ending: str, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
):
    pytest.importorskip(NEEDS.get(ending, "numpy"))
    command = ("embed", gray, photos, "--batch-size", "10", "--accelerator", "cpu", "--out")
    out, straight = tmp_path / f"f{ending}", tmp_path / f"straight{ending}"
    assert run(*command, straight) == 0
    for count in (3, 4):
        with monkeypatch.context() as patch:
            stop_after(patch, count)
            assert run(*command, out) == 130
            assert not out.exists()
    assert "stopped    after 70 of the 140 images" in said()
    assert run(*command, out) == 0
    assert "goes on    after 70 of the 140 images" in said()
    assert not out.with_name(out.name + ".partial").exists()
    if ending == ".h5":
        assert np.array_equal(features_of(out), features_of(straight))
    else:
        assert out.read_bytes() == straight.read_bytes()


def test_a_killed_one_goes_on_to_the_same_file(tmp_path: Path, gray: Path, photos: Path):
    """By a signal that nothing can catch, in real processes, at three moments."""
    np.save(tmp_path / "images.npy", np.tile(np.load(photos)["images"], (6, 1, 1)))
    script = Path(__file__).with_name("killed.py")
    done = subprocess.run(
        [sys.executable, str(script), str(gray), str(tmp_path / "images.npy"), str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    stops = json.loads(done.stdout.splitlines()[-1])
    assert len(stops) == 3 and sorted(set(stops)) == stops and stops[0] > 0 and stops[-1] < 840
    assert (tmp_path / "killed.npz").read_bytes() == (tmp_path / "straight.npz").read_bytes()
    assert whole(read(tmp_path / "killed.npz")).rows == list(range(840))


def test_whatever_a_kill_leaves_is_whole_batches(tmp_path: Path):
    """Either file may end anywhere: what counts of both is a beginning, of which every row is its own."""
    header = {"dimensions": 3, "dtype": "float32", "classes": ["a", "b"], "images": 40}
    whole_folder = tmp_path / "whole"
    whole_folder.mkdir()
    partial = Partial(whole_folder, header)
    source = Resident(torch.zeros(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40) % 2, ("a", "b"))
    for batch in batches(source, 1, 8, 8):
        partial.add(batch, np.array([[place, place, place] for place in batch.places], np.float32))
    partial.close()
    features, lines = ((whole_folder / name).read_bytes() for name in ("features.bin", "batches.jsonl"))
    folder = tmp_path / "torn"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for _ in range(60):
        (folder / "features.bin").write_bytes(features[: int(rng.integers(len(features) + 1))])
        (folder / "batches.jsonl").write_bytes(lines[: int(rng.integers(len(lines) + 1))])
        torn = Partial(folder, header)
        assert torn.stop == len(torn) and torn.stop % 8 == 0
        for batch in batches(source, 1, 8, 8, torn.stop):
            torn.add(batch, np.array([[place, place, place] for place in batch.places], np.float32))
        torn.close()
        assert (folder / "features.bin").read_bytes() == features
        assert (folder / "batches.jsonl").read_bytes() == lines


def test_a_kill_while_the_file_is_made_changes_nothing(
    tmp_path: Path, gray: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, said: Callable[[], str]
):
    out = tmp_path / "f.csv"
    with monkeypatch.context() as patch:
        patch.setattr(Partial, "finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ownlatent.embed(gray, photos, out=out, **CPU)
    partial = tmp_path / "f.csv.partial"
    (partial / "whole.csv").write_text("row,path\n0,to")  # torn
    monkeypatch.setattr(Encoder, "forward", _blank_only(Encoder.forward))
    ownlatent.embed(gray, photos, out=out, **CPU)
    assert "goes on    after 140 of the 140 images" in said()
    assert whole(read(out)).rows == list(range(140)) and not partial.exists()


def _blank_only(forward: Callable) -> Callable:
    def guarded(self: Encoder, images: torch.Tensor) -> torch.Tensor:
        assert not images.any(), "features were computed again"
        return forward(self, images)

    return guarded


def test_another_command_does_not_go_on_with_it(
    tmp_path: Path, gray: Path, photos: Path, make_encoder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "f.npz"
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            ownlatent.embed(gray, photos, out=out, batch_size=10, **CPU)
    kept = (tmp_path / "f.npz.partial" / "features.bin").read_bytes()
    assert len(kept) == 20 * 128 * 4
    for words, encoder, options in (
        ("encoder", make_encoder(1, seed=1), {}),
        ("--layer, dimensions", gray, {"layer": "3"}),
        ("--normalise", gray, {"normalise": True}),
        ("--dtype", gray, {"dtype": "float16"}),
    ):
        with pytest.raises(OwnlatentError, match=f"was begun with another {words}: finish it"):
            ownlatent.embed(encoder, photos, out=out, **options, **CPU)
    assert (tmp_path / "f.npz.partial" / "features.bin").read_bytes() == kept
    ownlatent.embed(gray, photos, out=out, layer="3", overwrite=True, **CPU)
    assert read(out).about["layer"] == "3" and len(read(out)) == 140


def test_two_at_once_do_not_mix(tmp_path: Path, gray: Path, photos: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "f.npz"

    def meanwhile(*arguments: object, **_: object):
        with pytest.raises(OwnlatentError, match="another process is writing"):
            ownlatent.embed(gray, photos, out=out, **CPU)
        yield from embedded(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(embedding, "embedded", meanwhile)
    ownlatent.embed(gray, photos, out=out, **CPU)
    assert len(read(out)) == 140


# What is refused


def test_a_file_that_is_there_is_not_lost(tmp_path: Path, gray: Path, photos: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "f.npz"
    out.write_text("mine")
    assert run("embed", gray, photos, "--out", out) == 2
    assert out.read_text() == "mine" and "--overwrite" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["f.npz"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere", "photos:test", "--out", "f.npz"), "holds no encoder"),
        (("GRAY", "nowhere", "--out", "f.npz"), "there is no folder nowhere"),
        (("GRAY", "photos:test", "--out", "f.txt"), "end it in .csv"),
        (("GRAY", "photos:test"), "--out"),
        (("GRAY", "photos:test", "--out", "f.npz", "--layer", "layer9"), "layer9"),
        (("GRAY", "photos:test", "--out", "f.npz", "--dtype", "int8"), "float32 or float16"),
        (("GRAY", "photos:test", "--out", "f.npz", "--batch-size", "0"), "at least 1"),
        (("GRAY", "photos:test", "--out", "f.npz", "--batch-size", "many"), "--batch-size"),
        (("GRAY", "photos:test", "--out", "f.npz", "--accelerator", "tpu"), "--accelerator is one of"),
        (("GRAY", "photos:test", "--out", "f.npz", "--normalize"), "--normalise"),
        (("GRAY", "photos:test", "--out", "file/f.npz"), "cannot write"),
    ],
)
def test_wrong_input_is_one_sentence(
    tmp_path: Path,
    gray: Path,
    photos: Path,
    arguments: tuple[str, ...],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("a file")
    assert run("embed", *(str(gray) if argument == "GRAY" else argument for argument in arguments)) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_among_the_images_is_refused(tmp_path: Path, colour: Path, write_image: Callable[..., Path]):
    write_image(tmp_path / "images" / "0.png")
    with pytest.raises(OwnlatentError, match="would lie among the images"):
        ownlatent.embed(colour, tmp_path / "images", out=tmp_path / "images" / "f.npz")


def test_features_that_are_no_numbers_are_refused(tmp_path: Path, gray: Path, photos: Path):
    encoder = load_encoder(gray)
    with torch.no_grad():
        encoder.backbone.net.get_parameter(next(n for n, _ in encoder.backbone.net.named_parameters())).mul_(torch.nan)
    with pytest.raises(OwnlatentError, match="no numbers"):
        ownlatent.embed(encoder, photos, out=tmp_path / "f.npz", **CPU)
    assert not list(tmp_path.iterdir())


def test_features_too_large_for_float16_are_refused(tmp_path: Path, gray: Path, photos: Path):
    encoder = load_encoder(gray)
    encoder.std.mul_(1e-7)
    with pytest.raises(OwnlatentError, match="more than float16 holds"):
        ownlatent.embed(encoder, photos, out=tmp_path / "f.npz", dtype="float16", **CPU)


def test_an_encoder_is_left_as_it_was(tmp_path: Path, gray: Path, photos: Path):
    encoder = load_encoder(gray).train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    ownlatent.embed(encoder, photos, out=tmp_path / "f.npz", **CPU)
    assert encoder.training and all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_what_is_said_about_the_features_is_plain_json(tmp_path: Path, gray: Path, photos: Path):
    about = read(ownlatent.embed(gray, photos, out=tmp_path / "f.npz", **CPU)).about
    assert json.loads(json.dumps(about)) == about and "classes" not in about
