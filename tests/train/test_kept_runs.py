"""Runs of every format that this package has written are read, or refused by name.

`python tests/train/test_kept_runs.py` writes the folder of the present one, once, when a format changes.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ownlatent import OwnlatentError, Run, load_encoder, pretrain

FIXTURES = Path(__file__).parents[1] / "fixtures"
FOLDERS = sorted(FIXTURES.glob("run-format-*"))
KEPT = ("recipe.json", "results.json", "metrics.csv", "encoder.json", "encoder.safetensors")


def network() -> nn.Sequential:
    """Small enough for its checkpoint to be kept beside the tests."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)


def features(folder: Path) -> list[list[float]]:
    return load_encoder(folder, network())(torch.from_numpy(images()[:3]).permute(0, 3, 1, 2)).tolist()


@pytest.mark.parametrize("kept", FOLDERS, ids=lambda path: path.name)
def test_a_run_of_this_format_is_read_and_gone_on_with(kept: Path, tmp_path: Path):
    shutil.copytree(kept, tmp_path / "run")
    expected = json.loads((kept / "features.json").read_text())
    torch.testing.assert_close(torch.tensor(features(tmp_path / "run")), torch.tensor(expected), atol=1e-5, rtol=1e-4)
    before = Run(tmp_path / "run").metrics
    run = pretrain(images(), out=tmp_path / "run", extend="2ep", backbone=network())
    assert run.results["finished"] and run.results["training"]["steps"] == 16
    assert run.metrics[: len(before)] == before and len(run.metrics) > len(before)


def test_the_present_format_is_among_them():
    recipe = json.loads((FOLDERS[-1] / "recipe.json").read_text())
    from ownlatent.train.recipe import FORMAT

    assert recipe["format"] == FORMAT


@pytest.mark.parametrize("name", ["recipe.json", "encoder.json"])
def test_a_later_format_is_refused_by_name(name: str, tmp_path: Path):
    shutil.copytree(FOLDERS[-1], tmp_path / "run")
    content = json.loads((tmp_path / "run" / name).read_text())
    (tmp_path / "run" / name).write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(OwnlatentError, match=r"\.json has format 99, and this version"):
        pretrain(out=tmp_path / "run", resume=True) if name == "recipe.json" else features(tmp_path / "run")


def write(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    settings = {"method.hidden": 8, "method.projection": 4, "batch_size": 16, "precision": "32", "accelerator": "cpu"}
    run = pretrain(images(), out=folder, method="byol", backbone=network(), epochs=2, keep_checkpoints=1, **settings)
    for path in [*folder.iterdir()]:
        if path.name not in (*KEPT, "checkpoints"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (run.folder / "features.json").write_text(json.dumps(features(folder)) + "\n")


if __name__ == "__main__":
    from ownlatent.train.recipe import FORMAT

    write(FIXTURES / f"run-format-{FORMAT}")
