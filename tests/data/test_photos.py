"""The built-in photographs: no test pixel is ever trained on, and every machine cuts the same patches."""

import numpy as np
import pytest
import skimage.data
import torch

from ownlatent.data.opening import open_source
from ownlatent.data.resident import load_resident
from ownlatent.data.sources.photos import PATCH, PER_PHOTOGRAPH, PHOTOGRAPHS, Photos


@pytest.fixture(scope="module")
def splits() -> dict[str, torch.Tensor]:
    return {split: load_resident(Photos(split)).images for split in ("train", "test")}


@pytest.mark.parametrize(("split", "level"), [("train", 0), ("test", 255)])
@pytest.mark.parametrize("width", [99, 100, 101, 400])
def test_training_and_test_patches_share_no_pixel(
    monkeypatch: pytest.MonkeyPatch, split: str, level: int, width: int
) -> None:
    """Photographs whose left half is black and whose right half is white; small, so that patches touch the border."""
    photograph = np.zeros((60, width, 3), np.uint8)
    photograph[:, width // 2 :] = 255
    for name in PHOTOGRAPHS:
        monkeypatch.setattr(skimage.data, name, lambda: photograph)
    source = Photos(split)
    assert set(torch.cat([source[index].image for index in range(len(source))]).flatten().tolist()) == {level}


def test_sizes_and_labels(splits: dict[str, torch.Tensor]) -> None:
    for split, images in splits.items():
        source = Photos(split)
        count = PER_PHOTOGRAPH[split]
        assert images.shape == (count * len(PHOTOGRAPHS), 1, PATCH, PATCH) and images.dtype == torch.uint8
        assert len(source) == len(images) and list(source.classes) == list(PHOTOGRAPHS)
        ends = [(source[n * count].label, source[(n + 1) * count - 1].label) for n in range(len(PHOTOGRAPHS))]
        assert ends == [(n, n) for n in range(len(PHOTOGRAPHS))]
        assert source[count].name.startswith(PHOTOGRAPHS[1])


def test_patches_are_the_same_every_time(splits: dict[str, torch.Tensor]) -> None:
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    again = load_resident(open_source("photos:test")).images
    assert torch.equal(again, splits["test"])


def test_patches_are_real_and_differ(splits: dict[str, torch.Tensor]) -> None:
    images = splits["train"].float()
    assert len(splits["train"].flatten(1).unique(dim=0)) > 0.99 * len(images)
    means = images.view(len(PHOTOGRAPHS), -1).mean(1)
    assert means.max() - means.min() > 50, "the photographs are not of one brightness"
    assert images.std() > 20
