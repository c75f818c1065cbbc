"""Whole runs, in this process and in real ones that are stopped and killed."""

import csv
import json
import math
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from ownlatent import OwnlatentError, load_encoder, pretrain
from ownlatent.methods.byol import BYOL

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = {
    "backbone": "resnet10_w16",
    "image_size": 16,
    "batch_size": 16,
    "precision": "32",
    "accelerator": "cpu",
    "method.hidden": 16,
    "method.projection": 8,
}


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty-four images of as many sizes, and one that is cut short."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    for number in range(24):
        height, width = 20 + number, 44 - number
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number:02d}.png")
    (folder / "broken.png").write_bytes((folder / "03.png").read_bytes()[:60])
    return folder


def test_a_run_folder_says_everything(image_folder: Path, class_folder: Path, tmp_path: Path):
    run = pretrain(image_folder, out=tmp_path / "run", epochs=4, val=str(class_folder), **TINY)
    present = {p.relative_to(run.folder).as_posix() for p in run.folder.rglob("*") if p.is_file()}
    files = ["recipe.json", "metrics.csv", "results.json", "env.json", "views.png", "curves.png", "log.txt"]
    assert {*files, "encoder.safetensors", "encoder.json"} <= present
    assert any(name.startswith("tensorboard/events") for name in present)

    steps_per_epoch = 60 // 16
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for column in ["step", "epoch", "loss", "lr", "tau", "std", "images_per_second", "waiting", "knn"]:
        assert column in rows[0]
    assert int(rows[-1]["step"]) == 4 * steps_per_epoch == run.results["training"]["steps"]
    assert float(rows[-1]["epoch"]) == 4
    assert all(0 <= float(row["loss"]) <= 8 and 0 <= float(row["waiting"]) <= 1 for row in rows)
    assert any(row["knn"] for row in rows)
    # The schedules, as the papers have them at the step before the last one: near 0 and near 1 but not there.
    progress = (4 * steps_per_epoch - 1) / (4 * steps_per_epoch)
    assert float(rows[-1]["tau"]) == pytest.approx(1 - 0.01 * (1 + math.cos(math.pi * progress)) / 2, abs=1e-6)
    peak, warmup = run.recipe.optim.lr, run.recipe.optim.warmup
    assert peak is not None and warmup is not None
    cosine = peak * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup))) / 2
    assert float(rows[-1]["lr"]) == pytest.approx(cosine, rel=1e-3)

    assert [e["subject"] for e in run.results["evaluations"]] == ["trained", "random", "pixels"]
    for entry in run.results["evaluations"]:
        assert entry["protocol"] == "knn" and (entry["settings"]["k"], entry["settings"]["temperature"]) == (20, 0.07)
        assert entry["num_test"] == 60 and entry["num_train"] == 59 and 0 <= entry["top1"] <= 1
    assert json.loads((run.folder / "env.json").read_text())["versions"]["torch"] == version("torch")
    assert "loss" in (run.folder / "log.txt").read_text()

    images = torch.randint(0, 256, (5, 3, 16, 16), dtype=torch.uint8)
    features = run.encoder(images)
    assert features.shape == (5, 128)
    torch.testing.assert_close(load_encoder(run.folder)(images), features)
    torch.testing.assert_close(pickle.loads(pickle.dumps(run.encoder))(images), features)  # nobody listens any more
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_stored_recipe_repeats_the_run(image_folder: Path, tmp_path: Path):
    first = pretrain(image_folder, out=tmp_path / "first", epochs=2, **TINY)
    again = pretrain(recipe=first.folder / "recipe.json", out=tmp_path / "again")
    other = pretrain(recipe=first.folder / "recipe.json", out=tmp_path / "other", seed=1)
    assert _weights(first.folder) == _weights(again.folder)
    assert _weights(first.folder) != _weights(other.folder)


def test_an_interrupted_run_ends_as_if_it_had_not_been(image_folder: Path, tmp_path: Path):
    whole = pretrain(image_folder, out=tmp_path / "whole", epochs=60, **TINY)
    stopped = tmp_path / "stopped"
    process = _start(image_folder, stopped, epochs=60)
    _wait_for_rows(process, stopped, 10)
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert "--resume" in said
    assert json.loads((stopped / "results.json").read_text())["finished"] is False
    assert load_encoder(stopped).num_features == 128
    steps = _steps(stopped)
    assert 10 <= steps[-1] < 180

    pretrain(out=stopped, resume=True)
    assert _steps(stopped) == _steps(whole.folder)
    assert json.loads((stopped / "results.json").read_text())["finished"] is True
    assert _weights(stopped) == _weights(whole.folder)


def test_a_run_stopped_while_it_is_judged_is_judged_when_resumed(
    image_folder: Path, class_folder: Path, tmp_path: Path
):
    first = pretrain(image_folder, out=tmp_path / "run", epochs=2, val=str(class_folder), **TINY)
    judged, weights = first.results, _weights(first.folder)
    (first.folder / "results.json").write_text(json.dumps({**judged, "finished": False, "evaluations": []}))
    again = pretrain(out=first.folder, resume=True)
    scores = [[(e["subject"], e["top1"]) for e in results["evaluations"]] for results in (again.results, judged)]
    assert again.results["finished"] and scores[0] == scores[1]
    assert again.results["training"]["steps"] == judged["training"]["steps"]
    assert _weights(again.folder) == weights


@pytest.mark.parametrize("optimiser", ["adamw", "lars"])
def test_stopping_and_resuming_changes_nothing_with_accumulation_and_workers(
    optimiser: str, mixed_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: Callable[[int], Any]
):
    fields = {**TINY, "batch_size": 8, "accumulate": 2, "epochs": 4, "workers": 1, "optim.name": optimiser}
    monkeypatch.setattr("ownlatent.train.fit._every", lambda job: 3)  # rows between which a run can stop
    whole = pretrain(mixed_folder, out=tmp_path / "whole", **fields)
    with stop_at(6):
        stopped = pretrain(mixed_folder, out=tmp_path / "stopped", **fields)
    assert not stopped.results["finished"] and stopped.results["training"]["steps"] == 7
    pretrain(out=stopped.folder, resume=True)
    assert _steps(stopped.folder) == _steps(whole.folder) == [1, 3, 6, 9, 12]
    assert _weights(stopped.folder) == _weights(whole.folder)


def test_the_target_moves_once_per_optimiser_step(image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    moved, passes = [], []
    after_step, forward = BYOL.after_step, BYOL.forward
    monkeypatch.setattr(BYOL, "after_step", lambda self, p: (moved.append(p), after_step(self, p))[1])
    monkeypatch.setattr(BYOL, "forward", lambda self, v: (passes.append(len(v[0])), forward(self, v))[1])
    run = pretrain(image_folder, out=tmp_path / "run", epochs=2, accumulate=4, **TINY)
    assert set(passes) == {4}
    assert len(passes) == 4 * len(moved) == 4 * run.results["training"]["steps"]
    assert moved == sorted(moved) and moved[0] == 0 and moved[-1] < 1


def test_labels_never_reach_a_method(class_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    forward = BYOL.forward
    monkeypatch.setattr(BYOL, "forward", lambda self, views: (seen.append(views), forward(self, views))[1])
    pretrain(class_folder, out=tmp_path / "run", epochs=1, val=str(class_folder), **TINY)
    assert all(isinstance(views, list) and len(views) == 2 for views in seen)
    assert all(view.shape[1:] == (3, 16, 16) and view.is_floating_point() for views in seen for view in views)


def test_images_of_many_sizes_are_streamed_and_broken_ones_skipped(mixed_folder: Path, tmp_path: Path):
    run = pretrain(mixed_folder, out=tmp_path / "run", epochs=2, workers=2, **{**TINY, "batch_size": 8})
    assert run.recipe.loading == "streaming"
    assert "broken.png" in (run.folder / "log.txt").read_text()
    assert run.results["training"]["steps"] == 2 * (25 // 8)


def test_waiting_for_data_is_named_with_what_to_change(tmp_path: Path):
    class Slow:
        def __len__(self) -> int:
            return 32

        def __getitem__(self, index: int) -> np.ndarray:
            time.sleep(0.02)
            return np.full((24, 24, 3), index, np.uint8)

    run = pretrain(Slow(), out=tmp_path / "run", epochs=2, loading="streaming", workers=0, **TINY)
    said = next(line for line in (run.folder / "log.txt").read_text().splitlines() if "waited" in line)
    assert "--workers" in said
    assert run.metrics[-1]["waiting"] is not None and run.metrics[-1]["waiting"] > 0.1


def test_a_run_in_memory_says_nothing_of_waiting(image_folder: Path, tmp_path: Path):
    run = pretrain(image_folder, out=tmp_path / "run", epochs=2, **TINY)
    assert run.recipe.loading == "resident" and "waited" not in (run.folder / "log.txt").read_text()


def test_in_memory_and_streamed_are_the_same_run(image_folder: Path, tmp_path: Path):
    """Bit for bit: the draws of a batch do not know where its crops are cut."""
    runs = [
        pretrain(image_folder, out=tmp_path / loading, epochs=2, loading=loading, workers=1, **TINY)
        for loading in ("resident", "streaming")
    ]
    assert _weights(runs[0].folder) == _weights(runs[1].folder)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_module_of_ones_own_is_trained_in_place_if_asked(in_place: bool, image_folder: Path, tmp_path: Path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2))
    before = net[0].weight.detach().clone()
    settings = {k: v for k, v in TINY.items() if k != "backbone"}
    run = pretrain(image_folder, out=tmp_path / "run", epochs=1, backbone=net, in_place=in_place, **settings)
    assert torch.equal(net[0].weight, before) != in_place
    fresh = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 12, 3, stride=2))
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(load_encoder(run.folder, fresh)(images), run.encoder(images))
    with pytest.raises(OwnlatentError, match="load_encoder"):
        load_encoder(run.folder)


def test_a_budget_in_minutes_completes_its_schedule(image_folder: Path, tmp_path: Path):
    run = pretrain(image_folder, out=tmp_path / "run", minutes=0.05, **TINY)
    rows, peak = run.metrics, run.recipe.optim.lr
    assert run.results["finished"] and rows[-1]["progress"] == 1.0
    assert rows[-1]["lr"] < 0.5 * peak < max(row["lr"] for row in rows) <= peak
    falling = [row["lr"] for row in rows[len(rows) // 4 :]]
    assert falling == sorted(falling, reverse=True)


def _start(data: Path, out: Path, **fields: object) -> subprocess.Popen:
    """A run in a process of its own, with one thread, so that it repeats bit for bit."""
    code = "import sys, json, torch; torch.set_num_threads(1); from ownlatent.cli import main; "
    code += "main(json.loads(sys.argv[1]))"
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in {**TINY, **fields}.items()]
    arguments = json.dumps(["pretrain", str(data), "--out", str(out), *flags])
    return subprocess.Popen(
        [sys.executable, "-c", code, arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _wait_for_rows(process: subprocess.Popen, folder: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(_steps(folder)) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline, "training did not begin"
        time.sleep(0.02)


def _steps(folder: Path) -> list[int]:
    path = folder / "metrics.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["step"]]


def _weights(folder: Path) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "encoder.safetensors").items()}
