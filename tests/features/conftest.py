"""Encoders with random weights, as folders, and real photographs to embed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.sources.photos import PHOTOGRAPHS, Photos
from ownlatent.export.encoder import save_encoder

MakeEncoder = Callable[..., Path]


@pytest.fixture(scope="session")
def make_encoder(tmp_path_factory: pytest.TempPathFactory) -> MakeEncoder:
    """make_encoder(channels=1, seed=0): the folder of an encoder of 16 px with statistics unlike a fresh one's."""

    def make(channels: int = 1, seed: int = 0) -> Path:
        torch.manual_seed(seed)
        backbone = backbones.create("resnet10_w16", channels=channels, image_size=16)
        encoder = Encoder(backbone, 16, [0.5] * channels, [0.25] * channels)
        encoder.train()(torch.randint(0, 256, (8, channels, 16, 16), dtype=torch.uint8))
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


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """140 patches of scikit-image's photographs, ten of each, gray, 16 px, with their names as labels."""
    source = Photos("test")
    images = np.stack([source[n].image[0, ::2, ::2].numpy() for n in range(0, len(source), 10)])
    path = tmp_path_factory.mktemp("photos") / "photos.npz"
    np.savez(path, images=images, labels=np.repeat(PHOTOGRAPHS, 10))
    return path
