"""What is told before a run, of runs that have something to be told of."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ownlatent import check
from ownlatent.checks.duplicates import duplicates
from ownlatent.checks.finding import Finding
from ownlatent.checks.network import counting_saved, fixed_bytes
from ownlatent.data.resident import Resident

TINY = {
    "backbone": "resnet10_w16",
    "image_size": 16,
    "batch_size": 32,
    "precision": "32",
    "accelerator": "cpu",
    "method.hidden": 16,
    "method.projection": 8,
}
Told = Callable[..., list[Finding]]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("ownlatent.checks.before._SECONDS", 0.5)
    monkeypatch.chdir(tmp_path)


def told(data: Any, **options: Any) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for finding in check(data, **{**TINY, "epochs": 2, **options}):
        found.setdefault(finding.part, []).append(finding)
    return found


def test_everything_is_told_and_nothing_written(image_folder: Path, tmp_path: Path):
    found = told(image_folder)
    parts = {"shape", "network", "memory", "batch", "files", "pixels", "doubled", "views", "disk", "speed", "waiting"}
    assert set(found) == parts
    shapes = [finding.text for finding in found["shape"]]
    assert any(line.startswith("backbone ") and line.endswith("3x16x16 to 128") for line in shapes), shapes
    assert any(line.startswith("projector ") and line.endswith("128 to 8") for line in shapes)
    assert "0 of 60 files cannot be read" in found["files"][0].text
    assert "3 channels of 8 bits, 32 px" in found["pixels"][0].text
    assert "images/s" in found["speed"][0].text
    assert not list(tmp_path.iterdir())


def test_settings_that_are_known_to_fail(image_folder: Path):
    found = told(image_folder, **{"method.predictor_layers": 0, "optim.base_lr": 12})
    texts = [finding.text for finding in found["settings"]]
    assert len(texts) == 2 and {finding.state for finding in found["settings"]} == {"lacking"}
    assert "there is no predictor" in texts[0] and "--method.predictor-layers 2" in texts[0]
    assert "100 times what is usual" in texts[1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "simclr", "batch_size": 32}, "simclr wants 256 or more"),
        ({"batch_size": 32, "accumulate": 4}, "BatchNorm sees 8 images at a time"),
    ],
)
def test_a_batch_that_is_too_small(image_folder: Path, options: dict[str, Any], said: str):
    assert any(said in finding.text for finding in told(image_folder, **options)["batch"])


def test_a_short_run_may_have_small_batches(image_folder: Path):
    """It is short of steps: a larger batch, which a long run of the method wants, would take them away."""
    short = {"method": "simclr", "batch_size": 32, "epochs": None, "minutes": 5}
    assert {finding.state for finding in told(image_folder, **short)["batch"]} == {"ok"}


def test_a_network_without_batchnorm_may_have_small_batches(image_folder: Path):
    options = {"accumulate": 4, "backbone.norm": "group", "method.norm": "group"}
    assert not any("BatchNorm" in finding.text for finding in told(image_folder, **options)["batch"])


def test_equal_views(image_folder: Path):
    still = {f"views.{name}": 0 for name in ("flip", "jitter", "grayscale", "solarize", "blur")}
    found = told(image_folder, **still, **{"views.crop_scale": "1,1", "views.crop_ratio": "1,1"})
    assert found["views"][0].state == "lacking" and "nothing to learn" in found["views"][0].text


def test_doubled_and_unreadable_images(image_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("doubled")
    for path in sorted(image_folder.iterdir())[:40]:
        (folder / path.name).write_bytes(path.read_bytes())
        if path.suffix == ".png":
            (folder / f"again-{path.name}").write_bytes(path.read_bytes())
    (folder / "cut.png").write_bytes(next(image_folder.glob("*.png")).read_bytes()[:50])
    found = told(folder)
    assert found["doubled"][0].state == "lacking" and "of 60 images 20 are there twice" in found["doubled"][0].text
    assert found["files"][0].state == "lacking" and "1 of 61 files cannot be read" in found["files"][0].text


def test_nearly_the_same_images_are_counted_apart(image_folder: Path):
    images = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(image_folder.iterdir())[:3]]
    smooth = [
        np.asarray(Image.fromarray(image).resize((4, 4)).resize((32, 32), Image.Resampling.BICUBIC)) for image in images
    ]
    brighter = np.clip(smooth[0].astype(int) + 9, 0, 255).astype(np.uint8)
    stack = torch.tensor(np.stack([*smooth, smooth[1], brighter])).permute(0, 3, 1, 2)
    assert duplicates(Resident(stack), list(range(5))) == (5, 1, 1)
    flat = torch.full((4, 3, 8, 8), 7, dtype=torch.uint8) + torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1)
    assert duplicates(Resident(flat), [0, 1, 2, 3]) == (4, 0, 0)  # blank images are not each other's doubles


def test_memory_of_a_layer_that_is_known():
    layer = nn.Linear(10, 20, bias=False)
    x = torch.zeros(5, 10)
    with counting_saved(list(layer.parameters())) as saved:
        layer(x).relu().sum()
    assert saved[0] == x.nbytes + 5 * 20 * 4  # the input of the product, and what the ReLU gave
    assert fixed_bytes(layer, "sgd") == 3 * 200 * 4  # type: ignore[arg-type]
    assert fixed_bytes(layer, "adamw") == 4 * 200 * 4  # type: ignore[arg-type]


def test_a_run_that_does_not_fit_the_memory(image_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ownlatent.checks.before.memory", lambda: 4 * 2**20)
    memory = told(image_folder)["memory"][0]
    assert memory.state == "broken" and "--accumulate" in memory.text


def test_the_command(image_folder: Path, tmp_path: Path):
    words = [word for name, value in TINY.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "ownlatent", "check", str(image_folder), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "shape      projector" in done.stdout and "speed      " in done.stdout
    assert not list(tmp_path.iterdir())
    done = subprocess.run([*command[:3], "check", "nowhere"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
