"""Large images written once as small ones: sizes, pixels, labels, and nothing half done."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ownlatent.data import prepared
from ownlatent.data.opening import open_source
from ownlatent.data.prepared import prepare
from ownlatent.errors import OwnlatentError


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two classes of smooth pictures: large JPEGs, one small JPEG, one large PNG, one broken file."""
    root = tmp_path / "photographs"
    y, x = np.mgrid[:600, :800] / 800
    for number, (name, size) in enumerate(
        [("cat/0.jpg", (800, 600)), ("cat/1.jpg", (600, 800)), ("dog/2.jpg", (100, 75)), ("dog/3.png", (800, 600))]
    ):
        pixels = np.stack([x, y, np.full_like(x, number / 4)], axis=2) * 255
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).resize(size).save(path)
    (root / "dog" / "4.jpg").write_bytes((root / "cat" / "0.jpg").read_bytes()[:500])
    return root


def test_large_images_are_made_smaller_and_small_ones_are_copied(photographs: Path, tmp_path: Path):
    report = prepare(photographs, tmp_path / "small", max_side=256)
    assert (report.images, report.shrunk, report.shards) == (4, 3, 1)
    assert report.skipped == {"dog/4.jpg": "the file ends too early"}
    assert report.bytes_after < report.bytes_before
    small, large = open_source(tmp_path / "small"), open_source(photographs)
    assert [tuple(small[i].image.shape) for i in range(4)] == [
        (3, 192, 256),
        (3, 256, 192),
        (3, 75, 100),
        (3, 192, 256),
    ]
    assert torch.equal(small[2].image, large[2].image)
    for index, of in ((0, 0), (1, 1), (3, 3)):
        shape = small[index].image.shape[1:]
        expected = torch.nn.functional.interpolate(
            large[of].image[None].float(), shape, mode="bilinear", antialias=True
        )
        assert (small[index].image - expected[0]).abs().mean() < 2


def test_the_report_is_kept_beside_the_shards(photographs: Path, tmp_path: Path):
    report = prepare(photographs, tmp_path / "small", max_side=256)
    stored = json.loads((tmp_path / "small" / "prepared.json").read_text())
    assert stored["images"] == report.images and stored["skipped"] == report.skipped
    assert stored["epoch_seconds_before"] > 0 and stored["epoch_seconds_after"] > 0
    assert sorted(p.name for p in (tmp_path / "small").iterdir()) == ["000000.tar", "prepared.json"]


def test_classes_are_kept_when_asked_for(photographs: Path, tmp_path: Path):
    prepare(photographs, tmp_path / "labelled", labelled=True)
    source = open_source(tmp_path / "labelled", labelled=True)
    assert source.classes is not None and list(source.classes) == ["cat", "dog"]
    assert [source[i].label for i in range(len(source))] == [0, 0, 1, 1]
    prepare(photographs, tmp_path / "unlabelled")
    with pytest.raises(OwnlatentError, match="label"):
        open_source(tmp_path / "unlabelled", labelled=True)


def test_several_shards_hold_every_image_once(photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepared, "_SHARD_BYTES", 10_000)
    report = prepare(photographs, tmp_path / "small", max_side=256)
    assert report.shards > 1
    assert len(list((tmp_path / "small").glob("*.tar"))) == report.shards
    assert len(open_source(tmp_path / "small")) == 4


def test_sixteen_bits_and_many_channels_are_kept(tmp_path: Path):
    (tmp_path / "bands").mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        np.save(tmp_path / "bands" / f"{number}.npy", rng.integers(0, 4096, (64, 90, 5), dtype=np.uint16))
    prepare(tmp_path / "bands", tmp_path / "small", max_side=45)
    image = open_source(tmp_path / "small")[0].image
    assert image.shape == (5, 32, 45) and image.dtype == torch.uint16 and int(image.int().max()) > 255


def test_a_folder_with_something_in_it_is_left_alone(photographs: Path, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000.tar").write_text("mine")
    with pytest.raises(OwnlatentError, match="not empty"):
        prepare(photographs, tmp_path / "mine")
    assert (tmp_path / "mine" / "000000.tar").read_text() == "mine"


def test_nothing_half_written_is_left(photographs: Path, tmp_path: Path):
    def interrupt(share: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(photographs, tmp_path / "small", progress=interrupt)
    assert not (tmp_path / "small").exists()


def test_unreadable_input_writes_nothing(tmp_path: Path):
    (tmp_path / "broken").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "broken" / "good.png")
    content = (tmp_path / "broken" / "good.png").read_bytes()
    (tmp_path / "broken" / "good.png").write_bytes(content[:-30])
    with pytest.raises(OwnlatentError, match="can be read"):
        prepare(tmp_path / "broken", tmp_path / "small")
    assert not (tmp_path / "small").exists()
