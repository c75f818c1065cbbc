"""An encoder survives its files: same features, names that its library knows, clear errors for broken files."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import nn

from ownlatent import OwnlatentError, backbones, load_encoder
from ownlatent.backbones.encoder import Encoder
from ownlatent.export.encoder import save_encoder


def build(network: str | nn.Module, channels: int = 3, image_size: int = 32, **keywords: object) -> Encoder:
    """An encoder whose weights and BatchNorm statistics are not those of a fresh one."""
    torch.manual_seed(0)
    backbone = backbones.create(network, channels=channels, image_size=image_size, **keywords)
    encoder = Encoder(backbone, image_size, [0.4, 0.5, 0.6][:channels], [0.2, 0.3, 0.25][:channels])
    encoder.train()(torch.randint(0, 256, (8, channels, image_size, image_size), dtype=torch.uint8))
    return encoder.eval()


def images(encoder: Encoder) -> torch.Tensor:
    side = encoder.image_size
    return torch.randint(0, 256, (4, len(encoder.mean), side, side), generator=torch.Generator().manual_seed(1)).byte()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_encoder(build("resnet10_w16"), tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("network", "channels", "image_size", "keywords"),
    [
        ("resnet10_w16", 1, 32, {}),
        ("resnet10_w32", 3, 48, {}),
        ("resnet18", 3, 64, {}),
        ("resnet18", 3, 96, {"drop_rate": 0.1}),
        ("torchvision:resnet18", 3, 64, {}),
        ("vit_tiny_patch16_224", 3, 64, {}),
    ],
)
def test_a_loaded_encoder_gives_the_same_features(
    tmp_path: Path, network: str, channels: int, image_size: int, keywords: dict
) -> None:
    encoder = build(network, channels, image_size, **keywords)
    save_encoder(encoder, tmp_path)
    torch.manual_seed(99)  # whatever the fresh network starts from
    loaded = load_encoder(tmp_path)
    assert not loaded.training and isinstance(loaded, nn.Module)
    assert (loaded.image_size, loaded.num_features) == (encoder.image_size, encoder.num_features)
    with torch.no_grad():
        expected = encoder(images(encoder))
        assert torch.equal(loaded(images(encoder)), expected)
        assert torch.allclose(loaded(images(encoder).float() / 255), expected, atol=1e-5), "uint8 or [0, 1]"
    assert expected.shape == (4, encoder.num_features) and expected.std(0).max() > 0


def test_weights_in_channels_last_are_saved_too(tmp_path: Path) -> None:
    encoder = build("resnet10_w16").to(memory_format=torch.channels_last)
    save_encoder(encoder, tmp_path)
    with torch.no_grad():
        assert torch.allclose(load_encoder(tmp_path)(images(encoder)), encoder(images(encoder)), atol=1e-6)


def test_timm_loads_the_weights_by_its_own_names(tmp_path: Path) -> None:
    encoder = build("resnet18", image_size=64)
    save_encoder(encoder, tmp_path)
    weights = load_file(tmp_path / "encoder.safetensors")
    network = timm.create_model("resnet18", num_classes=0)
    assert set(weights) == set(network.state_dict())
    different = [name for name, value in network.state_dict().items() if value.shape != weights[name].shape]
    assert different == ["conv1.weight"], "the stem for small images"

    network.conv1, network.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    network.load_state_dict(weights)
    x = (images(encoder).float() / 255 - encoder.mean) / encoder.std
    with torch.no_grad():
        assert torch.allclose(network.eval()(x), encoder(images(encoder)), atol=1e-5)


def test_timm_loads_all_weights_where_the_stem_is_its_own(tmp_path: Path) -> None:
    save_encoder(build("resnet18", image_size=96), tmp_path)
    network = timm.create_model("resnet18", num_classes=0)
    network.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    assert json.loads((tmp_path / "encoder.json").read_text())["changes"] == []


def test_the_description_says_what_is_needed(tmp_path: Path) -> None:
    save_encoder(build("resnet18", image_size=64, drop_rate=0.1), tmp_path)
    stored = json.loads((tmp_path / "encoder.json").read_text())
    assert stored["network"]["name"] == "resnet18" and stored["network"]["keywords"] == {"drop_rate": 0.1}
    assert stored["num_features"] == 512
    assert stored["preprocessing"]["image_size"] == 64
    assert stored["preprocessing"]["mean"] == pytest.approx([0.4, 0.5, 0.6])
    assert stored["preprocessing"]["std"] == pytest.approx([0.2, 0.3, 0.25])
    assert any("3x3" in change for change in stored["changes"])


def own_network(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))


def test_a_module_of_ones_own_needs_a_fresh_one(tmp_path: Path) -> None:
    encoder = build(own_network())
    save_encoder(encoder, tmp_path)
    with pytest.raises(OwnlatentError, match=r"load_encoder\(folder, network\)"):
        load_encoder(tmp_path)
    with torch.no_grad():
        loaded = load_encoder(tmp_path, network=own_network())
        assert torch.equal(loaded(images(encoder)), encoder(images(encoder)))
    with pytest.raises(OwnlatentError, match="does not fit"):
        load_encoder(tmp_path, network=own_network(width=9))


def test_folders_without_an_encoder_are_refused(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(OwnlatentError, match="holds no encoder"):
        load_encoder(tmp_path / "nowhere")
    (saved / "encoder.safetensors").unlink()
    with pytest.raises(OwnlatentError, match="holds no encoder"):
        load_encoder(saved)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\x00" * 100])
def test_broken_weights_are_refused(saved: Path, content: bytes) -> None:
    (saved / "encoder.safetensors").write_bytes(content)
    with pytest.raises(OwnlatentError, match="broken"):
        load_encoder(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    weights = saved / "encoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(OwnlatentError, match="broken"):
        load_encoder(saved)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"3", b"null", b'"text"', b"\xff\xfe\x00"])
def test_broken_descriptions_are_refused(saved: Path, content: bytes) -> None:
    (saved / "encoder.json").write_bytes(content)
    with pytest.raises(OwnlatentError, match=r"encoder\.json"):
        load_encoder(saved)


UNFIT = {
    "no format": lambda stored: stored.pop("format"),
    "no network": lambda stored: stored.pop("network"),
    "no name": lambda stored: stored["network"].pop("name"),
    "no keywords": lambda stored: stored["network"].pop("keywords"),
    "no preprocessing": lambda stored: stored.pop("preprocessing"),
    "no mean": lambda stored: stored["preprocessing"].pop("mean"),
    "no std": lambda stored: stored["preprocessing"].pop("std"),
    "no image size": lambda stored: stored["preprocessing"].pop("image_size"),
    "a later format": lambda stored: stored.update(format=99),
    "empty preprocessing": lambda stored: stored.update(preprocessing=None),
    "network as text": lambda stored: stored.update(network="resnet10_w16"),
    "another network": lambda stored: stored["network"].update(name="resnet10_w32"),
    "an unknown network": lambda stored: stored["network"].update(name="no_such_network"),
    "a keyword twice": lambda stored: stored["network"].update(keywords={"image_size": 3}),
    "another channel count": lambda stored: stored["preprocessing"].update(mean=[0.5]),
    "mean and std of two lengths": lambda stored: stored["preprocessing"].update(std=[0.5, 0.5]),
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT.keys())
def test_descriptions_that_do_not_fit_are_refused(saved: Path, change: Callable[[dict], None]) -> None:
    stored = json.loads((saved / "encoder.json").read_text())
    change(stored)
    (saved / "encoder.json").write_text(json.dumps(stored))
    with pytest.raises(OwnlatentError):
        load_encoder(saved)
