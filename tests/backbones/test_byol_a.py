"""The encoders of BYOL-A against their description."""

import pytest
import torch

from ownlatent import backbones


@pytest.mark.parametrize(
    ("name", "features", "parameters"),
    [  # of a convolution 64*64*9 + 64 and its norm 128; of a linear layer (inputs + 1) * outputs
        ("byol_a_512", 512, 640 + 128 + 2 * (36_928 + 128) + 513 * 512 + 513 * 512),
        ("byol_a_1024", 1024, 640 + 128 + 2 * (36_928 + 128) + 513 * 1024 + 1025 * 1024),
        ("byol_a_2048", 2048, 640 + 128 + 2 * (36_928 + 128) + 513 * 2048 + 2049 * 2048),
        ("byol_a_v2", 3072, 640 + 128 + 36_928 + 128 + 1025 * 2048 + 2049 * 2048),
    ],
)
def test_widths_and_sizes(name: str, features: int, parameters: int) -> None:
    backbone = backbones.create(name, channels=1, image_size=(64, 96))
    assert backbone.num_features == features
    assert sum(p.numel() for p in backbone.parameters()) == parameters
    assert backbone(torch.randn(2, 1, 64, 96)).shape == (2, features)
    assert backbone(torch.randn(2, 1, 64, 201)).shape == (2, features)  # of any length


@pytest.mark.parametrize("name", ["byol_a_512", "byol_a_v2"])
def test_frames_are_pooled_by_maximum_plus_mean(name: str) -> None:
    net = backbones.create(name, channels=1, image_size=(64, 96)).net.eval()
    x = torch.randn(3, 1, 64, 96)
    with torch.no_grad():
        maps = net.features(x)  # (B, 64, bands, frames)
        frames = torch.stack([maps[..., t].permute(0, 2, 1).flatten(1) for t in range(maps.shape[-1])])
        seen = net.fc(frames)
        seen = torch.cat([frames, seen], dim=-1) if net.skip else seen
        assert torch.allclose(net(x), seen.max(0).values + seen.mean(0), atol=1e-5)


def test_other_bands_are_refused_in_one_sentence() -> None:
    from ownlatent.errors import OwnlatentError

    with pytest.raises(OwnlatentError, match="does not take 1 channels of 32x32 px"):
        backbones.create("byol_a_512", channels=1, image_size=32)
