"""Run folders to report on."""

import shutil
from pathlib import Path

import pytest
import torch
from pages import draw

from ownlatent import evaluate, pretrain

TINY = {"backbone": "resnet10_w16", "image_size": 16, "batch_size": 16, "precision": "32", "accelerator": "cpu"}


@pytest.fixture(scope="session")
def hostile_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and evaluated run on images with such names."""
    root = tmp_path_factory.mktemp("hostile")
    train, test = draw(root / "train", 8, 0), draw(root / "test", 6, 1)
    torch.manual_seed(0)
    run = pretrain(train, out=root / "run <b>&amp;", epochs=3, val=test, **TINY)
    evaluate(run, train=train, test=test, protocols="linear", without="supervised")
    return run.folder


@pytest.fixture(scope="session")
def plain_run(tmp_path_factory: pytest.TempPathFactory, image_folder: Path) -> Path:
    """A run without labels."""
    return pretrain(image_folder, out=tmp_path_factory.mktemp("plain") / "plain", epochs=1, **TINY).folder


@pytest.fixture
def copied(plain_run: Path, tmp_path: Path) -> Path:
    shutil.copytree(plain_run, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.fixture(scope="session")
def sound_run(tmp_path_factory: pytest.TempPathFactory, sound_folder: Path) -> Path:
    """A run on sounds with labels."""
    fields = {"modality": "audio", "duration": 0.31, "batch_size": 14, "precision": "32", "accelerator": "cpu"}
    out = tmp_path_factory.mktemp("heard") / "sounds"
    return pretrain(sound_folder, val=sound_folder, out=out, epochs=2, backbone="resnet10_w16", **fields).folder
