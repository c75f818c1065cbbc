"""Whole evaluations of a real run folder, as a user makes them."""

import csv
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ownlatent import OwnlatentError, Run, compare, evaluate, pretrain
from ownlatent.evaluation import cache
from ownlatent.export.encoder import save_encoder
from ownlatent.proof.bench import Bench
from ownlatent.train.classify import train_classifier

TINY = {"backbone": "resnet10_w16", "image_size": 16, "batch_size": 16, "precision": "32", "accelerator": "cpu"}
FAST = {"supervised_minutes": 0.01, "finetune_minutes": 0.01, "draws": 2, "sgd_epochs": 5, "sgd_copies": 2}
COLOURS = {"blue": (40, 60, 200), "green": (30, 180, 60), "red": (200, 50, 40)}


def write(folder: Path, per_class: int, seed: int, classes: tuple[str, ...] = ("blue", "green", "red")) -> Path:
    """Noisy colours of various sizes in class subfolders."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            height, width = rng.integers(16, 40, 2)
            noise = rng.normal(0, 60, (height, width, 3))
            pixels = (np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.png")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("data")
    return write(root / "train", 20, 0), write(root / "test", 10, 1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    return pretrain(image_folder, out=tmp_path_factory.mktemp("runs") / "run", epochs=2, **TINY).folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of a finished run that was not evaluated."""
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def test_everything_at_once(run: Path, data: tuple[Path, Path], caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "ownlatent")
    protocols = "knn,linear,low-shot,sgd,finetune"
    options = {**FAST, "labels": "10%,2", "finetune_labels": "100%,2", "against": "random:resnet10_w32"}
    entries = evaluate(run, train=data[0], test=data[1], protocols=protocols, **options)
    stored = json.loads((run / "results.json").read_text())
    assert stored["evaluations"] == entries and stored["finished"]

    featured = ["trained", "random", "pixels", "random:resnet10_w32", "supervised"]
    trained = ["trained", "random:resnet10_w32", "supervised"]
    assert [e["subject"] for e in entries] == 4 * featured + featured + 2 * featured + featured + 2 * trained
    for entry in entries:
        assert (entry["num_test"], entry["epoch"], entry["chosen_on_test"]) == (30, "last", "nothing")
        assert entry["data"]["split"] == "train-test" and entry["data"]["num_classes"] == 3
        assert entry["interval"][0] <= entry["top1"] <= entry["interval"][1] and entry["seconds"] >= 0
        assert np.mean(list(entry["per_class"].values())) == pytest.approx(entry["top1"], abs=1e-4)
        assert ("trained_is" in entry) == (entry["subject"] != "trained")
    by_labels = {e["settings"]["labels"]: e["num_train"] for e in entries if e["protocol"] == "low-shot"}
    assert by_labels == {"10%": 6, "2": 6}
    (verdict,) = stored["verdicts"]
    assert [point["num"] for point in verdict["label_curve"]["points"]] == [3, 3, 3, 6, 12, 30, 60]
    assert any("Pre-training" in line or "cannot be told" in line for line in verdict["words"])

    with np.load(run / "predictions.npz") as kept:
        for entry in entries:
            truth = kept[entry["truth"]]
            assert (kept[entry["predictions"]] == truth).mean() == pytest.approx(entry["top1"])
    with (run / "evaluation.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(entries)
    assert (run / "evaluation.md").read_text().count("\n") == len(entries) + 2
    assert (run / "classes.csv").exists() and Image.open(run / "confusion.png").width > 400
    assert "fine-tuning, 2 of every class, 2 draws, linear head" in caplog.text


def test_nothing_is_measured_twice(run: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    first = evaluate(run, train=data[0], test=data[1], protocols="linear", **FAST)
    monkeypatch.setattr(Bench, "_embed", lambda *_: pytest.fail("features were computed again"))
    monkeypatch.setattr("ownlatent.proof.judge.linear_predict", lambda *_: pytest.fail("fitted again"))
    monkeypatch.setattr("ownlatent.proof.with_labels.train_classifier", lambda *_: pytest.fail("trained again"))
    assert evaluate(run, train=data[0], test=data[1], protocols="linear", **FAST) == first
    more = evaluate(run, train=data[0], test=data[1], protocols="knn", without="supervised", k="5")
    assert Run(run).results["evaluations"] == first + more


def test_what_pretraining_measured_by_itself_is_known(
    tmp_path: Path, image_folder: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    run = pretrain(image_folder, out=tmp_path / "run", epochs=1, val=str(data[1]), **TINY)
    before = run.results["evaluations"]
    monkeypatch.setattr(Bench, "_embed", lambda *_: pytest.fail("features were computed again"))
    assert evaluate(run, test=data[1], k="20", without="supervised") == before


def test_other_images_are_measured_anew(run: Path, data: tuple[Path, Path], tmp_path: Path):
    other = write(tmp_path / "other", 5, 2)
    evaluate(run, train=data[0], test=data[1], protocols="knn", k="5", without="supervised")
    evaluate(run, train=data[0], test=other, protocols="knn", k="5", without="supervised")
    entries = Run(run).results["evaluations"]
    assert [e["num_test"] for e in entries] == [30] * 3 + [15] * 3


def test_several_pairs_in_one_call(run: Path, data: tuple[Path, Path]):
    pairs = {"train": [data[0], data[1]], "test": [data[1], data[0]]}
    entries = evaluate(run, protocols="knn", k="5", without="supervised,pixels", **pairs)
    assert [(e["subject"], e["num_test"]) for e in entries] == [
        ("trained", 30),
        ("random", 30),
        ("trained", 60),
        ("random", 60),
    ]
    assert len(Run(run).results["verdicts"]) == 2


def test_one_set_of_images_is_judged_by_itself(run: Path, data: tuple[Path, Path]):
    entries = evaluate(run, test=data[1])
    assert {(e["protocol"], e["data"]["split"], e["num_train"]) for e in entries} == {("knn", "leave-one-out", 29)}
    with pytest.raises(OwnlatentError, match="only k-NN works with one set"):
        evaluate(run, test=data[1], protocols="linear")


def test_classes_are_matched_by_name(run: Path, data: tuple[Path, Path], tmp_path: Path, caplog: Any):
    """Without "blue" the other classes have other numbers: that must not matter."""
    fewer = write(tmp_path / "fewer", 10, 1, ("green", "red"))
    whole = evaluate(run, train=data[0], test=data[1], protocols="linear", without="random,supervised")
    part = evaluate(run, train=data[0], test=fewer, protocols="linear", without="random,supervised")
    assert part[0]["per_class"]["blue"] is None
    assert part[1]["top1"] > 0.6  # pixels: chance is a third
    turned = evaluate(run, train=fewer, test=data[1], protocols="linear", without="random,supervised")
    assert "blue not in" in caplog.text
    assert turned[1]["top1"] <= 2 / 3 and turned[1]["num_test"] == whole[1]["num_test"] == 30


def test_no_class_in_common_is_refused(run: Path, data: tuple[Path, Path], tmp_path: Path):
    other = write(tmp_path / "a", 4, 0, ("red", "green"))
    (other / "red").rename(other / "rouge")
    (other / "green").rename(other / "vert")
    with pytest.raises(OwnlatentError, match="have no class in common"):
        evaluate(run, train=data[0], test=other, protocols="knn")


def test_testing_on_the_training_images_is_refused(run: Path, data: tuple[Path, Path], tmp_path: Path):
    shutil.copytree(data[0], tmp_path / "copy")
    with pytest.raises(OwnlatentError, match="hold the same images"):
        evaluate(run, train=data[0], test=tmp_path / "copy", protocols="knn")


def test_unreadable_images_are_left_out_everywhere(run: Path, data: tuple[Path, Path], tmp_path: Path, caplog: Any):
    dirty = shutil.copytree(data[0], tmp_path / "dirty")
    for number in range(3):
        (dirty / "green" / f"{number:03d}.png").write_bytes(b"no picture")
    entries = evaluate(run, train=dirty, test=data[1], protocols="knn,linear,sgd,finetune", **FAST)
    assert {e["num_train"] for e in entries} == {57}
    assert caplog.text.count("skipped 3 of the 60 files") == 1


def test_one_channel_of_large_images(tmp_path: Path, image_folder: Path, data: tuple[Path, Path]):
    """Above 64 px the evaluator cuts a margin away: once, and alike at the end of a run and later."""
    gray = tmp_path / "gray"
    for part in data:
        for path in part.rglob("*.png"):
            target = gray / part.name / path.parent.name / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("L").resize((120, 100)).save(target)
    tiny = {**TINY, "image_size": 72}
    made = pretrain(gray / "train", val=gray / "test", out=tmp_path / "gray-run", epochs=0.3, **tiny)
    after = made.results["evaluations"]
    entries = evaluate(made.folder, test=gray / "test", protocols="knn", k="20", without="supervised")
    assert [e["top1"] for e in entries] == [e["top1"] for e in after]
    whole = evaluate(made.folder, train=gray / "train", test=gray / "test", protocols="linear,sgd,finetune", **FAST)
    assert {e["num_test"] for e in whole} == {30}


def test_another_length_is_another_measurement(run: Path, data: tuple[Path, Path]):
    for minutes in (0.01, 0.02):
        given = {**FAST, "finetune_minutes": minutes, "without": "supervised"}
        entries = evaluate(run, train=data[0], test=data[1], protocols="finetune", **given)
        assert entries[0]["settings"]["minutes"] == minutes
    for minutes in (0.01, 0.02):
        given = {**FAST, "supervised_minutes": minutes, "without": "random,pixels", "k": "5"}
        entries = evaluate(run, train=data[0], test=data[1], protocols="knn", **given)
        assert entries[-1]["training"]["minutes"] == minutes
    kept = [e for e in Run(run).results["evaluations"] if e["subject"] == "supervised"]
    assert len(kept) == 1 and "0.02 minutes" in kept[0]["variant"]


def test_each_pair_and_layer_has_its_own_words(run: Path, data: tuple[Path, Path]):
    for train, test, layer in ((*data, None), (data[1], data[0], None), (*data, "0"), (*data, None)):
        given = {"k": "5", "without": "pixels,supervised", **({"layer": layer} if layer else {})}
        evaluate(run, train=train, test=test, protocols="knn", **given)
    verdicts = Run(run).results["verdicts"]
    assert [(v["data"]["train"], v["layer"]) for v in verdicts] == [
        (str(data[0]), None),
        (str(data[1]), None),
        (str(data[0]), "0"),
    ]


def test_other_weights_are_another_run(run: Path, data: tuple[Path, Path]):
    """A weight file that was put in the place of the run's own: nothing that was measured before holds for it."""
    given = {"protocols": "knn", "without": "pixels,supervised,random"}
    evaluate(run, train=data[0], test=data[1], k="5,7", **given)
    encoder = Run(run).encoder
    next(encoder.parameters()).data.mul_(-1)
    save_encoder(encoder, run)
    entries = evaluate(run, train=data[0], test=data[1], k="5", **given)
    assert Run(run).results["evaluations"] == entries


def test_a_network_trained_with_labels_is_trained_once(
    run: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    given = {**FAST, "without": "random,pixels"}
    first = evaluate(run, train=data[0], test=data[1], protocols="linear", **given)
    monkeypatch.setattr("ownlatent.proof.with_labels.train_classifier", lambda *_: pytest.fail("trained again"))
    again = evaluate(run, train=data[0], test=data[1], protocols="knn", k="5", **given)
    assert again[-1]["top1"] == first[-1]["top1"] and again[-1]["training"] == first[-1]["training"]


def test_a_training_that_diverges_is_made_again_more_slowly(
    run: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    tried: list[float] = []

    def diverging_once(*arguments: Any) -> Any:
        tried.append(arguments[7].base_lr)
        if len(tried) == 1:
            raise OwnlatentError("the loss is nan")
        return train_classifier(*arguments)

    monkeypatch.setattr("ownlatent.proof.with_labels.train_classifier", diverging_once)
    given = {**FAST, "without": "random,pixels"}
    entry = evaluate(run, train=data[0], test=data[1], protocols="linear", **given)[-1]
    assert tried[1] == tried[0] / 3 == entry["chosen"]["base_lr"]


def test_a_run_of_another_device_needs_a_length(run: Path, data: tuple[Path, Path]):
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, "accelerator": "cuda"}))
    with pytest.raises(OwnlatentError, match="trained on cuda and this is cpu"):
        evaluate(run, train=data[0], test=data[1], protocols="knn", accelerator="cpu")


def test_the_same_images_under_another_name(run: Path, data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    evaluate(run, train=data[0], test=data[1], protocols="knn", k="5", without="supervised")
    monkeypatch.chdir(data[0].parent)
    entries = evaluate(run, train="train", test="test", protocols="knn", k="5", without="supervised", against=str(run))
    assert len(Run(run).results["evaluations"]) == 4 and entries[0]["data"]["train"] == "train"


@pytest.mark.parametrize("per_class", [1, 2])
def test_very_few_images_work(run: Path, data: tuple[Path, Path], tmp_path: Path, per_class: int):
    few = write(tmp_path / "few", per_class, 3)
    entries = evaluate(run, train=few, test=data[1], protocols="knn,linear,low-shot,sgd,finetune", **FAST)
    assert {e["num_train"] for e in entries} <= {3, 3 * per_class}


def test_two_images_only(run: Path, tmp_path: Path):
    two = write(tmp_path / "two", 1, 0, ("blue", "red")), write(tmp_path / "other", 1, 1, ("blue", "red"))
    entries = evaluate(run, train=two[0], test=two[1], protocols="knn,linear", **FAST)
    assert all(e["num_test"] == 2 for e in entries)
    assert "It cannot be told" in Run(run).results["verdicts"][0]["words"][0]


def test_features_of_a_layer(run: Path, data: tuple[Path, Path]):
    entries = evaluate(run, train=data[0], test=data[1], protocols="knn", k="5", without="supervised", layer="0")
    assert all(entry["settings"]["layer"] == "0" for entry in entries)
    with pytest.raises(OwnlatentError, match="no layer 'stage9'"):
        evaluate(run, train=data[0], test=data[1], layer="stage9")


def test_a_module_of_ones_own(tmp_path: Path, image_folder: Path, data: tuple[Path, Path]):
    def network() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.BatchNorm2d(8), torch.nn.ReLU())

    own = pretrain(image_folder, out=tmp_path / "own", epochs=1, **{**TINY, "backbone": network()})
    with pytest.raises(OwnlatentError, match="trained on a network of your own: give it as --network"):
        evaluate(own.folder, train=data[0], test=data[1], protocols="knn")
    entries = evaluate(
        own.folder, train=data[0], test=data[1], protocols="knn", without="supervised", network=network()
    )
    assert entries[0]["subject"] == "trained"


def test_damaged_predictions_are_made_again(run: Path, data: tuple[Path, Path]):
    first = evaluate(run, train=data[0], test=data[1], protocols="knn", k="5", without="supervised")
    (run / "predictions.npz").write_bytes(b"torn")
    again = evaluate(run, train=data[0], test=data[1], protocols="knn", k="5", without="supervised")
    assert [e["top1"] for e in again] == [e["top1"] for e in first] and len(Run(run).results["evaluations"]) == 3


def test_features_are_checked_before_they_are_used_again(run: Path, data: tuple[Path, Path], caplog: Any):
    cached = cache.cache_folder()
    assert cached is not None
    evaluate(run, train=data[0], test=data[1], protocols="knn", k="5", without="random,pixels,supervised")
    for path in (cached / "features").iterdir():
        path.write_bytes(path.read_bytes()[:-9] + b"123456789")
    evaluate(run, train=data[0], test=data[1], protocols="knn", k="7", without="random,pixels,supervised")
    assert "damaged" in caplog.text


def test_runs_are_compared(run: Path, data: tuple[Path, Path], tmp_path: Path):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    for folder, k in ((run, "5,7"), (other, "5")):
        evaluate(folder, train=data[0], test=data[1], protocols="knn", k=k, without="supervised,pixels")
    lines = compare(run, other, out=tmp_path / "table.md")
    assert "+0.00 (-" in lines[1] and "k is 5 and not 7" in lines[-1]
    assert (tmp_path / "table.md").read_text().count("\n") == 3
    with pytest.raises(OwnlatentError, match="already there"):
        compare(run, other, out=tmp_path / "table.md")
    assert compare(run, other, out=tmp_path / "table.md", overwrite=True) == lines
