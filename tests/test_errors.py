"""Wrong input: exit code 2, one line on stderr with the remedy, no traceback, nothing written or overwritten."""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import pytest

from ownlatent import OwnlatentError, Run, cli, load_encoder, pretrain
from ownlatent.train.recipe import Recipe

# What a run would need least, for input that is found wrong only after the data are open.
TINY = ("--backbone", "resnet10_w16", "--epochs", "1", "--batch-size", "8", "--precision", "32", "--accelerator", "cpu")
HEADS = ("--method.hidden", "16", "--method.projection", "8")

Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory in which no training can start."""

    def trained(*_: object, **__: object) -> NoReturn:
        pytest.fail("the input was accepted and training began")

    monkeypatch.chdir(tmp_path)
    for place in ("api.training", "pretraining"):
        monkeypatch.setattr(f"ownlatent.{place}.train", trained)
    return tmp_path


@pytest.fixture
def refused(here: Path, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Run the command line on wrong input, check how it ends, and return what it says on stderr."""

    def run(*arguments: str | Path) -> str:
        before = _contents(here)
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main([str(argument) for argument in arguments])
        said = capfd.readouterr()
        assert stopped.value.code == 2
        assert said.err.startswith("ownlatent: ")
        assert said.err.endswith("\n") and said.err.count("\n") == 1, said.err
        assert "Traceback" not in said.err + said.out
        assert _contents(here) == before
        return said.err

    return run


DAMAGED = "step-00000005-0123456789abcdef.ckpt"  # a checkpoint whose content has another checksum


@pytest.fixture
def old_run(here: Path, image_folder: Path) -> Path:
    """A run that stopped early, as its folder looks."""
    folder = here / "old"
    (folder / "checkpoints").mkdir(parents=True)
    recipe = Recipe(
        data=str(image_folder), epochs=1, batch_size=8, backbone="resnet10_w16", precision="32", accelerator="cpu"
    )
    recipe.save(folder / "recipe.json")
    (folder / "results.json").write_text('{"finished": false, "evaluations": []}')
    (folder / "metrics.csv").write_text("step,loss\n1,4.0\n")
    (folder / "checkpoints" / DAMAGED).write_bytes(b"weights")
    return folder


# The data


def test_missing_folder(refused: Refused) -> None:
    assert "there is no folder nowhere" in refused("pretrain", "nowhere")


def test_no_folder_named(refused: Refused) -> None:
    assert "name the folder" in refused("pretrain")


def test_file_instead_of_a_folder(refused: Refused, here: Path, write_image: Callable[..., Path]) -> None:
    path = write_image(here / "photo.png")
    assert "photo.png is not a folder" in refused("pretrain", path)


def test_no_image_in_the_folder(refused: Refused, here: Path) -> None:
    (here / "texts" / "deep").mkdir(parents=True)
    (here / "texts" / "deep" / "notes.txt").write_text("no image")
    message = refused("pretrain", "texts")
    assert "no image in texts" in message and ".png" in message


def test_all_files_unreadable(refused: Refused, here: Path) -> None:
    (here / "broken").mkdir()
    for number in range(3):
        (here / "broken" / f"{number}.jpg").write_bytes(b"not an image")
    assert "none of the 3 images of broken can be read" in refused("pretrain", "broken")


def test_all_files_truncated(refused: Refused, here: Path, write_image: Callable[..., Path]) -> None:
    """Their headers are whole, so that only decoding tells."""
    for number in range(3):
        path = write_image(here / "broken" / f"{number}.png")
        path.write_bytes(path.read_bytes()[:200])
    assert "broken can be read" in refused("pretrain", "broken", *TINY)


def test_unknown_part_of_the_built_in_photographs(refused: Refused) -> None:
    assert "train and test, not 'tset'" in refused("pretrain", "photos:tset")


def test_fewer_images_than_a_batch(refused: Refused, image_folder: Path) -> None:
    message = refused("pretrain", image_folder, "--batch-size", "100")
    assert "there are 60 images, fewer than a batch of 100" in message and "--batch-size 32" in message


def test_fewer_readable_images_than_a_batch(refused: Refused, here: Path, image_folder: Path) -> None:
    shutil.copytree(image_folder, here / "half")
    for path in sorted((here / "half").iterdir())[:30]:
        path.write_bytes(b"")
    message = refused("pretrain", "half", *TINY, "--batch-size", "40", "--max-unreadable", "0.5")
    assert "only 30 images can be read, fewer than a batch of 40" in message


@pytest.mark.parametrize("split", [("--batch-size", "1"), ("--batch-size", "8", "--accumulate", "8")])
def test_batch_of_one_with_batchnorm(refused: Refused, image_folder: Path, split: tuple[str, ...]) -> None:
    message = refused("pretrain", image_folder, *TINY, *HEADS, *split)
    assert "needs at least 2 images" in message and "--batch-size" in message and "--accumulate" in message


def test_images_of_different_sizes_in_memory(refused: Refused, here: Path, write_image: Callable[..., Path]) -> None:
    for number in range(8):
        write_image(here / "mixed" / f"{number}.png", height=32 + number)
    assert "--loading streaming" in refused("pretrain", "mixed", *TINY, "--loading", "resident")


def test_val_without_class_folders(refused: Refused, image_folder: Path) -> None:
    message = refused("pretrain", image_folder, *TINY, "--val", image_folder)
    assert "has no class subfolders" in message


def test_val_with_images_beside_its_classes(
    refused: Refused, here: Path, image_folder: Path, class_folder: Path, write_image: Callable[..., Path]
) -> None:
    shutil.copytree(class_folder, here / "val")
    write_image(here / "val" / "loose.png")
    assert "has no class subfolders for all" in refused("pretrain", image_folder, *TINY, "--val", "val")


def test_missing_val(refused: Refused, image_folder: Path) -> None:
    assert "there is no folder nowhere" in refused("pretrain", image_folder, *TINY, "--val", "nowhere")


# The run folder


def test_existing_run_names_the_ways_out(refused: Refused, old_run: Path, image_folder: Path) -> None:
    message = refused("pretrain", image_folder, "--out", old_run)
    assert "--resume" in message and "--overwrite" in message


def test_overwriting_with_wrong_input_keeps_the_old_run(refused: Refused, old_run: Path, image_folder: Path) -> None:
    refused("pretrain", image_folder, "--out", old_run, "--overwrite", "--batch-size", "100")
    refused("pretrain", "nowhere", "--out", old_run, "--overwrite")


def test_a_folder_that_holds_no_run_keeps_its_files(here: Path, image_folder: Path) -> None:
    """Files that only bear the names of a run's files belong to somebody else."""
    own = here / "project"
    (own / "checkpoints").mkdir(parents=True)
    (own / "checkpoints" / "months_of_work.pt").write_bytes(b"weights")
    (own / "results.json").write_text("{}")
    before = _contents(own)
    settings = {"epochs": 1, "batch_size": 8, "backbone": "resnet10_w16", "precision": "32", "method.hidden": 16}
    # Refused, or about to train: both may be, as long as nothing is lost.
    with suppress(OwnlatentError, pytest.fail.Exception):
        pretrain(image_folder, out=own, **settings)
    after = _contents(own)
    assert {path: after.get(path) for path in before} == before


def test_out_is_a_file(refused: Refused, here: Path, image_folder: Path) -> None:
    (here / "taken").write_text("something")
    assert "taken is a file: give another --out" in refused("pretrain", image_folder, "--out", "taken")


def test_out_cannot_be_written(refused: Refused, here: Path, image_folder: Path) -> None:
    (here / "file").write_text("something")
    message = refused("pretrain", image_folder, *TINY, *HEADS, "--out", "file/run")
    assert "cannot write to file/run" in message and "give another --out" in message


def test_resume_without_out(refused: Refused, image_folder: Path) -> None:
    assert "--out RUN --resume" in refused("pretrain", "--resume")
    assert "-byol holds no run" in refused("pretrain", image_folder, "--resume")


def test_resume_without_a_run(refused: Refused, image_folder: Path) -> None:
    assert "nowhere holds no run" in refused("pretrain", image_folder, "--out", "nowhere", "--resume")


def test_resume_of_a_finished_run(refused: Refused, old_run: Path) -> None:
    (old_run / "results.json").write_text('{"finished": true, "evaluations": []}')
    assert "is finished" in refused("pretrain", "--out", old_run, "--resume")


def test_resume_with_another_recipe(refused: Refused, old_run: Path) -> None:
    assert "--batch-size 16 (the run has 8) would change it" in refused(
        "pretrain", "--out", old_run, "--resume", "--batch-size", "16"
    )


@pytest.mark.parametrize("repeated", [("--accelerator", "auto"), ("--precision", "auto"), ("--loading", "auto"), ()])
def test_resume_takes_the_command_that_began_the_run(
    old_run: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch, repeated: tuple[str, ...]
) -> None:
    """What was resolved from auto, or a slash after the folder, is no other recipe."""
    monkeypatch.setattr("ownlatent.pretraining.train", lambda *_, **__: sys.exit("training went on"))
    with pytest.raises(SystemExit) as stopped:
        cli.main(["pretrain", f"{image_folder}/", "--out", str(old_run), "--epochs", "1", *repeated, "--resume"])
    assert stopped.value.code == "training went on"


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "",
        "[]",
        '{"epohcs": 3}',
        '{"epochs": "many"}',
        '{"optim": 3}',
        '{"optim": {"rl": 1}}',
        '{"views": 3}',
        '{"views": [3]}',
        '{"views": [{"blurr": 1}]}',
        '{"method_settings": 3}',
    ],
)
@pytest.mark.parametrize("resume", [True, False])
def test_broken_recipe(refused: Refused, old_run: Path, image_folder: Path, text: str, resume: bool) -> None:
    (old_run / "recipe.json").write_text(text)
    if resume:
        refused("pretrain", "--out", old_run, "--resume")
    else:
        refused("pretrain", image_folder, "--recipe", old_run / "recipe.json", "--out", "new")


def test_recipe_that_is_no_text(refused: Refused, old_run: Path) -> None:
    (old_run / "recipe.json").write_bytes(b"\x89PNG\xff\xfe")
    assert "is not a recipe" in refused("pretrain", "--out", old_run, "--resume")


def test_missing_recipe(refused: Refused) -> None:
    assert "there is no recipe nowhere.json" in refused("pretrain", "--recipe", "nowhere.json")


def test_folder_instead_of_a_recipe(refused: Refused, old_run: Path) -> None:
    assert "recipe.json" in refused("pretrain", "--recipe", old_run)


def test_half_written_results(refused: Refused, old_run: Path) -> None:
    """A kill while results.json was written; the data are gone too, so that going on is impossible."""
    Recipe(data="nowhere").save(old_run / "recipe.json")
    (old_run / "results.json").write_text('{"finished": fal')
    refused("pretrain", "--out", old_run, "--resume")


def test_demo_does_not_replace_another_run(refused: Refused, old_run: Path) -> None:
    message = refused("demo", "--out", old_run)
    assert "already holds a run" in message and "another --out" in message


def test_demo_does_not_replace_a_longer_run_on_its_photographs(refused: Refused, old_run: Path) -> None:
    Recipe(data="photos:train", epochs=500).save(old_run / "recipe.json")
    assert "already holds a run" in refused("demo", "--out", old_run)


def test_demo_names_only_options_that_it_has(refused: Refused, old_run: Path) -> None:
    message = refused("demo", "--out", old_run)
    assert "--overwrite" in message and f"ownlatent pretrain --out {old_run} --resume" in message
    assert cli.parser().parse_args(["demo", "--overwrite"]).overwrite


# Names


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (("--method", "byo"), "byol"),
        (("--backbone", "resnet81"), "resnet18"),
        (("--backbone", "timm:resnet81"), "resnet18"),
        (("--optim.name", "adam"), "adamw"),
        (("--epohcs", "3"), "--epochs"),
        (("--batchsize=8",), "--batch-size"),
        (("--overwirte",), "--overwrite"),
        (("--optim.larning-rate", "1"), "--optim.lr"),
        (("--optim.wieght-decay", "1"), "--optim.weight-decay"),
        (("--optimm.lr", "1"), "--optim.lr"),
        (("--views.blurr", "1"), "--views.blur"),
        (("--views.0.blurr", "1"), "--views.blur"),
        (("--views.2.blur", "1"), "--views.0.blur"),
        (("--method.tua", "1"), "--method.tau"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_unknown_name(refused: Refused, image_folder: Path, arguments: tuple[str, ...], nearest: str) -> None:
    tiny = [] if "--backbone" in arguments else TINY
    message = refused("pretrain", image_folder, *tiny, *arguments)
    assert nearest in message.replace(arguments[0], "", 1)


def test_unknown_setting_of_the_backbone(refused: Refused, image_folder: Path) -> None:
    message = refused("pretrain", image_folder, *TINY, "--backbone.drop-rat", "0.1")
    assert "resnet10_w16 takes no settings" in message
    message = refused("pretrain", image_folder, *TINY, "--backbone", "resnet18", "--backbone.drop-rat", "0.1")
    assert "resnet18 refused its settings" in message and "drop_rat" in message


def test_no_name_is_taken_by_its_beginning(refused: Refused, image_folder: Path) -> None:
    assert "--epochs" in refused("pretrain", image_folder, "--epoch", "3")


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [(("demo", "--minuts", "1"), "--minutes"), (("pretrian", "x"), "pretrain"), (("--versoin",), "--version")],
)
def test_unknown_command_or_option_of_one(refused: Refused, arguments: tuple[str, ...], nearest: str) -> None:
    assert nearest in refused(*arguments)


def test_two_folders(refused: Refused, image_folder: Path) -> None:
    assert "'more' is one argument too many" in refused("pretrain", image_folder, "more")


def test_a_setting_before_the_folder_takes_its_own_value(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done(Exception):
        pass

    def pretrain(data: str, **given: object) -> NoReturn:
        raise Done(data, given)

    monkeypatch.setattr("ownlatent.api.pretrain", pretrain)
    with pytest.raises(Done) as called:
        cli.main(["pretrain", "--method.tau", "0.5", "photos"])
    given = {"out": None, "recipe": None, "resume": False, "extend": None, "overwrite": False, "method.tau": "0.5"}
    assert called.value.args == ("photos", given)


# Values


@pytest.mark.parametrize(
    "arguments",
    [
        ("--epochs", "many"),
        ("--epochs", "-1"),
        ("--epochs", "0"),
        ("--epochs", "nan"),
        ("--epochs", "inf"),
        ("--epochs",),
        ("--epochs", "3", "--minutes", "3"),
        ("--minutes", "0"),
        ("--minutes", "-0.5"),
        ("--image-size", "large"),
        ("--image-size", "4"),
        ("--image-size", "32.5"),
        ("--batch-size", "-8"),
        ("--batch-size", "0"),
        ("--batch-size", "8.5"),
        ("--batch-size", "8", "--accumulate", "3"),
        ("--accumulate", "0"),
        ("--seed", "-1"),
        ("--seed", "one"),
        ("--seed", "99999999999999999999"),
        ("--workers", "-1"),
        ("--accelerator", "gpu"),
        ("--precision", "64"),
        ("--loading", "lazy"),
        ("--optim.lr", "fast"),
        ("--optim.lr", "0"),
        ("--optim.lr", "inf"),
        ("--optim.weight-decay", "-1"),
        ("--optim.momentum", "1"),
        ("--optim.eta", "-1"),
        ("--optim.warmup", "2"),
        ("--views.blur", "2"),
        ("--views.1.flip", "-0.1"),
        ("--views.brightness", "-1"),
        ("--views.crop-scale", "0.5"),
        ("--views.crop-scale", "0.5,0.2"),
        ("--views.crop-scale", "0,1"),
        ("--views.crop-ratio", "2,1"),
        ("--views.blur-sigma", "0,1"),
        ("--method.tau", "1.5"),
        ("--method.tau", "-0.1"),
        ("--method.tau", "slow"),
        ("--method.tau",),
        ("--method.hidden", "0"),
        ("--method.hidden", "wide"),
        ("--method.hidden", "1.5"),
        ("--method.projection", "-1"),
    ],
    ids=" ".join,
)
def test_bad_value(refused: Refused, image_folder: Path, arguments: tuple[str, ...]) -> None:
    length = () if "--epochs" in arguments or "--minutes" in arguments else ("--epochs", "1")
    message = refused(
        "pretrain", image_folder, "--backbone", "resnet10_w16", "--precision", "32", *length, *HEADS, *arguments
    )
    assert arguments[0].split(".")[-1].removeprefix("--") in message, "the message names the option"


@pytest.mark.parametrize(
    "arguments",
    [
        ("--backbone.image-size", "32"),
        ("--backbone.channels", "1"),
        ("--backbone", "resnet18", "--backbone.output-stride", "5"),
        ("--backbone", "resnet18", "--backbone.features-only", "true"),
    ],
    ids=" ".join,
)
def test_bad_setting_of_the_backbone(refused: Refused, image_folder: Path, arguments: tuple[str, ...]) -> None:
    refused("pretrain", image_folder, *TINY, *HEADS, *arguments)


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "long"])
def test_bad_length_of_the_demo(refused: Refused, minutes: str) -> None:
    assert "--minutes" in refused("demo", "--minutes", minutes)


def test_accelerator_that_is_not_there(refused: Refused, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--accelerator auto" in refused("pretrain", image_folder, "--accelerator", "cuda")


# Beside the command line


def test_python_gets_an_exception(here: Path, image_folder: Path) -> None:
    with pytest.raises(OwnlatentError, match=r"--batch-size"):
        pretrain(image_folder, batchsize=8)
    with pytest.raises(OwnlatentError, match=r"there is no folder nowhere"):
        pretrain("nowhere")
    with pytest.raises(OwnlatentError, match=r"nowhere holds no run"):
        Run("nowhere")
    with pytest.raises(OwnlatentError, match=r"nowhere holds no encoder"):
        load_encoder("nowhere")
    assert _contents(here) == {}


# Evaluation


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("evaluate", "nowhere", "--test", "x"), "nowhere holds no run"),
        (("evaluate", "old"), "name labelled images: --train DATA --test DATA"),
        (("evaluate", "old", "--train", "a", "--train", "b", "--test", "c"), "give them in pairs"),
        (("evaluate", "old", "--test", "nowhere"), "old holds no encoder"),
        (("evaluate", "old", "--tset", "x"), "there is no option --tset: the nearest are --test"),
        (("evaluate", "old", "--test", "x", "--protocols", "knm"), "--protocols has no 'knm': the nearest is knn"),
        (("evaluate", "old", "--test", "x", "--draws", "many"), "--draws takes a whole number"),
        (("evaluate", "old", "--test", "x", "--labels", "1%,few"), "'few' is no number of labels"),
        (("compare", "old"), "name two runs or more"),
        (("compare", "old", "old"), "named twice"),
        (("compare", "old", "nowhere"), "nowhere holds no run"),
    ],
)
def test_evaluation_of_what_is_not_there(
    refused: Refused, old_run: Path, arguments: tuple[str, ...], words: str
) -> None:
    assert words in refused(*arguments)


def test_comparing_what_was_not_evaluated(refused: Refused, old_run: Path) -> None:
    shutil.copytree(old_run, "other")
    assert "old has not been evaluated: ownlatent evaluate old" in refused("compare", "old", "other")


def test_unreadable_files_are_skipped_counted_and_listed(
    here: Path, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ownlatent.api.training.train", lambda job, folder: job)
    shutil.copytree(image_folder, here / "photos")
    (here / "photos" / "001.jpg").write_bytes(b"")
    (here / "photos" / "deep").mkdir()
    (here / "photos" / "deep" / "text.jpg").write_text("not an image")
    job = pretrain("photos", backbone="resnet10_w16", precision="32", batch_size=8, epochs=1, **{"method.hidden": 16})
    assert len(job.data) == 59
    log = (here / "runs" / "photos-byol" / "log.txt").read_text()
    assert "skipped    001.jpg: " in log and "skipped    deep/text.jpg: " in log
    assert "skipped 2 of 61 files" in log


def test_logging_is_as_it_was_after_an_error(refused: Refused) -> None:
    log = logging.getLogger("ownlatent")
    before = (log.level, list(log.handlers))
    refused("pretrain", "nowhere")
    assert (log.level, log.handlers) == before


def test_a_late_error_is_one_line_in_a_process_of_its_own(old_run: Path) -> None:
    """Nothing on the way, such as a warning of a library, adds to it; the checkpoint that is refused stays."""
    command = [sys.executable, "-m", "ownlatent", "pretrain", "--out", "old", "--resume"]
    done = subprocess.run(command, cwd=old_run.parent, capture_output=True, text=True, timeout=300)
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"{DAMAGED} is damaged" in done.stderr and "--overwrite" in done.stderr
    assert done.returncode == 2
    assert (old_run / "checkpoints" / DAMAGED).read_bytes() == b"weights"
    assert (old_run / "metrics.csv").read_text() == "step,loss\n1,4.0\n"


def _contents(folder: Path) -> dict[Path, bytes | None]:
    """Everything below a folder: bytes of the files, None for the folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
