"""Encoders with random weights, as folders."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.export.encoder import save_encoder

MakeEncoder = Callable[..., Path]


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> MakeEncoder:
    """make_encoder(channels=1, seed=0): the folder of a small encoder of 32 px whose statistics are not those of a
    fresh one."""

    def make(channels: int = 1, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        backbone = backbones.create("resnet10_w16", channels=channels, image_size=32)
        encoder = Encoder(backbone, 32, [0.5] * channels, [0.25] * channels)
        encoder.train()(torch.randint(0, 256, (8, channels, 32, 32), dtype=torch.uint8))
        folder = tmp_path_factory.mktemp("encoder")
        save_encoder(encoder.eval(), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def gray(make_encoder: MakeEncoder) -> Path:
    return make_encoder(1)


@pytest.fixture(scope="session")
def colour(make_encoder: MakeEncoder) -> Path:
    return make_encoder(3)
