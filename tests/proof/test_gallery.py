"""What is kept of images and features for the report, at its ends: one image, all alike, not finite, any name."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ownlatent import backbones, report
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.resident import Resident
from ownlatent.proof import gallery as module
from ownlatent.proof.gallery import Shown, write_gallery
from ownlatent.reporting.gallery import Gallery, read_gallery
from ownlatent.train.recipe import Recipe

FACTS = {"data": "made", "test": None, "weights": {}, "layer": None}


class Named(Resident):
    """Images whose names are as a file system may have them."""

    def title(self, index: int) -> str:
        return f"{index}-\udcff-</script>.png"


def encoder(channels: int) -> Encoder:
    backbone = backbones.create("resnet10_w16", channels=channels, image_size=32)
    return Encoder(backbone, 32, (0.5,) * channels, (0.2,) * channels, 4095.0)


def write(folder: Path, images: torch.Tensor, features: torch.Tensor) -> Gallery:
    count = len(images)
    Recipe(data="made", method="byol").save(folder / "recipe.json")
    places = list(range(count))
    shown = Shown(Named(images), places, places, [-1] * count, (), encoder(images.shape[1]))
    write_gallery(folder, shown, {"trained": features, "random": features.flip(1)}, FACTS)
    found = read_gallery(folder)
    assert found is not None
    return found


@pytest.mark.parametrize("count", [1, 2, 11])
@pytest.mark.parametrize("kind", ["noise", "all alike", "not finite", "zero"])
def test_every_number_of_images_and_kind_of_features(count: int, kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    features = torch.randn(count, 6)
    if kind == "all alike":
        features = features[:1].expand(count, 6)
    elif kind == "not finite":
        features[0, 0] = torch.nan
    elif kind == "zero":
        features = torch.zeros(count, 6)
    found = write(tmp_path, torch.randint(0, 256, (count, 3, 9, 12), dtype=torch.uint8), features)
    for seen in found.seen.values():
        assert seen.components.shape[0] == count and seen.neighbours.shape == (count, min(10, count - 1))
        assert all(np.isfinite(part).all() for part in vars(seen).values())
    page = report(tmp_path, map="pca").read_text(encoding="utf-8")
    assert "\\udcff-\\u003c/script" in page
    assert ("There is one image, which has no neighbours." in page) == (count == 1)
    assert {"embedding.png", "neighbours.png"} <= {path.name for path in tmp_path.iterdir()}


def test_sixteen_bits_and_other_channels_are_shown_by_the_value_that_counts_as_white(tmp_path: Path) -> None:
    for channels in (1, 2, 5):
        images = torch.full((3, channels, 32, 32), 2048, dtype=torch.int32).to(torch.uint16)
        found = write(tmp_path, images, torch.randn(3, 4))
        tile = module.Image.open(module.io.BytesIO(found.sheets[0])).convert("RGB").getpixel((5, 5))
        assert all(abs(value - 127) <= 4 for value in tile), (channels, tile)


def test_of_many_images_some_are_shown_and_thumbnails_shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module._chosen(10_000).tolist() == list(range(10_000))
    some = module._chosen(35_000)
    assert len(some) == 10_000 and some[0] == 0 and some[-1] == 34_999 and (some.diff() >= 3).all()
    monkeypatch.setattr(module, "_PIXELS", 40 * 40 * 25)
    images = Named(torch.zeros(25, 3, 64, 64, dtype=torch.uint8))
    shown = Shown(images, [], list(range(25)), [-1] * 25, (), encoder(3))
    assert module._sheets(shown)[1] == 40


def test_neighbours_are_those_of_the_cosine() -> None:
    torch.manual_seed(0)
    features = torch.randn(40, 8) * torch.rand(40, 1).add(0.1)
    cosine = F.normalize(features, dim=1) @ F.normalize(features, dim=1).T
    cosine.fill_diagonal_(-2)
    expected = cosine.argsort(1, descending=True)[:, :10].numpy()
    assert (module._of_features(features)["neighbours"] == expected).all()


def test_correlations_are_counted_once_for_each_pair() -> None:
    torch.manual_seed(0)
    one, other = torch.randn(500), torch.randn(500)
    features = torch.stack([one, one, -one, other, torch.zeros(500)], dim=1)
    counts = module._correlations(features)
    assert counts.sum() == 6  # of the four that change
    assert (counts[-1], counts[0]) == (1, 2)  # equal, and opposite to each of the two
