"""Features of inner layers."""

import pytest
import torch

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.layer import LayerOf


def encoder(name: str = "resnet18") -> Encoder:
    torch.manual_seed(0)
    backbone = backbones.create(name, channels=3, image_size=32)
    return Encoder(backbone, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)).eval()


IMAGES = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def test_a_layer_gives_its_pooled_maps():
    whole = encoder()
    x = (IMAGES / 255 - 0.5) / 0.2
    net = whole.backbone.net
    with torch.no_grad():
        maps = net.layer2(net.layer1(net.maxpool(net.act1(net.bn1(net.conv1(x))))))
        torch.testing.assert_close(LayerOf(whole, "layer2")(IMAGES), maps.mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_the_last_layer_gives_the_encoders_own_features():
    whole = encoder()
    with torch.no_grad():
        torch.testing.assert_close(LayerOf(whole, "layer4")(IMAGES), whole(IMAGES), atol=1e-5, rtol=1e-5)


def test_what_follows_in_place_changes_nothing():
    """timm's ReLU works in place on what BatchNorm gave."""
    with torch.no_grad():
        x = (IMAGES / 255 - 0.5) / 0.2
        net = encoder().backbone.net
        expected = net.bn1(net.conv1(x))
        torch.testing.assert_close(LayerOf(encoder(), "bn1")(IMAGES), expected.mean((2, 3)), atol=1e-4, rtol=1e-4)


def test_tokens_are_averaged():
    with torch.no_grad():
        assert LayerOf(encoder("vit_tiny_patch16_224"), "blocks.3")(IMAGES).shape == (3, 192)


def test_a_wrong_name_is_told_the_nearest():
    with pytest.raises(OwnlatentError, match="no layer 'layer9': the nearest"):
        LayerOf(encoder(), "layer9")


def test_no_hook_is_left():
    whole = encoder()
    LayerOf(whole, "layer1")(IMAGES)
    assert not whole.backbone.net.layer1._forward_hooks
