"""`ownlatent preview` and `ownlatent prepare` as a user runs them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ownlatent import OwnlatentError, prepare, preview
from ownlatent.augment.recipes import RECIPES
from ownlatent.cli import main


@pytest.mark.parametrize("recipe", sorted(RECIPES))
def test_every_recipe_can_be_looked_at(recipe: str, image_folder: Path, tmp_path: Path):
    path = preview(image_folder, views=recipe, out=tmp_path / "views.png", count=3)
    with Image.open(path) as picture:
        assert picture.height > picture.width / 4 * len(RECIPES[recipe])
        assert len(np.unique(np.asarray(picture.convert("L")))) > 50


def test_a_change_to_a_view_is_seen(image_folder: Path, tmp_path: Path):
    for name, changes in (("plain", {}), ("mirrored", {"views.0.flip": "1"})):
        preview(image_folder, out=tmp_path / f"{name}.png", count=3, **changes)
    one, other = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("plain", "mirrored"))
    assert one.shape == other.shape and (one != other).any()


@pytest.mark.parametrize("channels", [1, 2, 4, 13])
def test_any_number_of_channels_can_be_looked_at(channels: int, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="ownlatent")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", rng.integers(0, 1000, (20, 24, 24, channels), dtype=np.uint16))
    preview(tmp_path / "images.npy", out=tmp_path / "views.png")
    said = caplog.text
    assert f"{channels} channels" in said and "saturation and hue left out" in said
    assert ("mean of the channels" in said) == (channels > 1)


def test_a_picture_is_not_overwritten(image_folder: Path, tmp_path: Path):
    (tmp_path / "views.png").write_text("mine")
    with pytest.raises(OwnlatentError, match="--overwrite"):
        preview(image_folder, out=tmp_path / "views.png")
    assert (tmp_path / "views.png").read_text() == "mine"
    preview(image_folder, out=tmp_path / "views.png", overwrite=True)
    assert (tmp_path / "views.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "imagnet"], "the nearest"),
        (["--views", "byo"], "the nearest"),
        (["--count", "0"], "at least 1"),
        (["--count", "many"], "a whole number"),
        (["--out", "views.nothing"], "end --out in .png"),
        (["--views.0.blurr", "1"], "--views.blur"),
        (["--method.tau", "1"], "no option --method.tau"),
        (["--views.0.hue", "2"], "0 to 0.5"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str],
    message: str,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["preview", str(image_folder), *arguments])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("views*"))


def test_prepare_says_what_it_gained(image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="ownlatent")
    report = prepare(image_folder, tmp_path / "small", max_side=16)
    assert report["images"] == report["shrunk"] == 60
    said = caplog.text
    assert "60 images" in said and "x as fast" in said and f"ownlatent pretrain {tmp_path / 'small'}" in said


def test_what_was_prepared_can_be_trained_on(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from ownlatent import pretrain

    monkeypatch.chdir(tmp_path)
    prepare(image_folder, tmp_path / "small", max_side=24)
    run = pretrain(tmp_path / "small", epochs=1, batch_size=16, backbone="resnet10_w16", **{"method.hidden": 32})
    assert run.results["finished"] and run.recipe.data == str(tmp_path / "small")


def test_nothing_is_written_among_the_images(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(image_folder)
    before = sorted(image_folder.iterdir())
    with pytest.raises(OwnlatentError, match="among the images"):
        preview(".")
    with pytest.raises(OwnlatentError, match="among the images"):
        prepare(".", "small")
    assert sorted(image_folder.iterdir()) == before


def test_a_reader_that_has_seen_enough_is_no_error(image_folder: Path, tmp_path: Path):
    """`ownlatent preview DATA | head -1`"""
    command = f"{sys.executable} -m ownlatent preview {image_folder} --out {tmp_path / 'views.png'} | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("data ") and not done.stderr


def test_an_application_is_told_the_news_and_not_the_details(
    tmp_path: Path, image_folder: Path, caplog: pytest.LogCaptureFixture
):
    import shutil

    from ownlatent import pretrain

    caplog.set_level("INFO")
    shutil.copytree(image_folder, tmp_path / "images")
    (tmp_path / "images" / "broken.png").write_bytes(b"")
    pretrain(tmp_path / "images", out=tmp_path / "run", epochs=1, batch_size=16, backbone="resnet10_w16")
    assert "skipped 1 of 61 files" in caplog.text and "broken.png" not in caplog.text
    assert "broken.png" in (tmp_path / "run" / "log.txt").read_text()


def test_names_with_commas_and_long_lists_of_folders(image_folder: Path, tmp_path: Path, class_folder: Path):
    import shutil

    from ownlatent import pretrain

    shutil.copytree(image_folder, tmp_path / "one,two")
    names = [tmp_path / "one,two", *[class_folder] * 60]  # longer than a file's name may be
    run = pretrain(names, out=tmp_path / "run", epochs=0.01, batch_size=16, backbone="resnet10_w16")
    assert run.results["finished"]
    run = pretrain(names[1:], out=tmp_path / "other", epochs=0.01, batch_size=16, backbone="resnet10_w16")
    assert run.recipe.data.count(",") == 59
