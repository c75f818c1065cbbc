"""Layers by name and number, and how what they give becomes features."""

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.backbones.tap import Tap, find, part_of
from ownlatent.errors import OwnlatentError


def features(net: object, **given: object) -> Tensor:
    torch.manual_seed(0)
    backbone = backbones.create(net, image_size=32, **given).eval()
    with torch.no_grad():
        return backbone(torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))


def resnet() -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.resnet18()


def test_a_layer_by_name_by_number_and_by_a_function_is_the_same() -> None:
    net = resnet()
    by_name = features(net, layer="avgpool")
    assert by_name.shape == (2, 512)
    assert torch.equal(by_name, features(net, layer=-2))
    assert torch.equal(by_name, features(net, layer=8))
    assert torch.equal(by_name, features(net, layer="-2")), "as the command line gives it"

    def until_pool(net: nn.Module, x: Tensor) -> Tensor:
        return nn.Sequential(*list(net.children())[:-1])(x)

    torch.testing.assert_close(by_name, features(net, layer=until_pool))


def test_maps_of_an_inner_layer_are_averaged() -> None:
    net = resnet().eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        maps = net.layer2(net.layer1(net.maxpool(net.relu(net.bn1(net.conv1(x))))))
    torch.testing.assert_close(features(net, layer="layer2"), maps.mean((2, 3)))


def test_what_follows_the_layer_is_not_computed() -> None:
    net = resnet()
    backbone = backbones.create(net, layer="layer1", image_size=32)
    net.layer3.register_forward_hook(lambda *_: pytest.fail("layer3 was computed in vain"))
    backbone(torch.rand(2, 3, 32, 32)).sum().backward()
    assert net.layer1[0].conv1.weight.grad is not None and net.layer2[0].conv1.weight.grad is None
    assert not net.layer1._forward_hooks


def test_no_hook_is_left_behind_by_an_error() -> None:
    net = resnet()
    backbone = backbones.create(net, layer="layer1", image_size=32)
    with pytest.raises(RuntimeError):
        backbone(torch.rand(2, 5, 32, 32))
    assert not net.layer1._forward_hooks


def test_of_a_layer_that_is_called_twice_the_last_time_counts() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 3, 3, padding=1)
            self.act = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.first(self.act(self.first(x)))) * 0

    net = Twice()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    expected = net.act(net.first(net.act(net.first(x)))).mean((2, 3))
    torch.testing.assert_close(features(net, layer="act"), expected.detach())


@pytest.mark.parametrize("pool", ["mean", "class"])
def test_tokens_are_averaged_or_the_first_is_taken(pool: str) -> None:
    torch.manual_seed(0)
    net = backbones.create("vit_tiny_patch16_224", image_size=32).net.eval()
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = net.norm(net.blocks(net.norm_pre(net._pos_embed(net.patch_embed(x)))))
    expected = tokens[:, 0] if pool == "class" else tokens.mean(1)
    torch.testing.assert_close(features(net, layer="norm", pool=pool), expected, atol=1e-5, rtol=1e-5)


def test_maps_whose_channels_are_last_are_known_by_their_shape() -> None:
    """Swin's blocks give (B, H, W, D)."""
    net = backbones.create("swin_tiny_patch4_window7_224", image_size=64).net.eval()
    backbone = backbones.create(net, layer="layers.1", image_size=64)
    assert backbone.num_features == 192 and backbone.tap.channels_last


def test_a_part_of_a_dictionary_or_a_tuple() -> None:
    parts = {"aux": torch.zeros(2, 3), "out": torch.ones(2, 4), "n": 5}
    assert part_of(parts, None).shape == (2, 4), "the usual name comes first"
    assert part_of(parts, "aux").shape == (2, 3)
    assert part_of((7, torch.ones(2, 5)), None).shape == (2, 5)
    assert part_of((torch.ones(2, 1), torch.ones(2, 5)), -1).shape == (2, 5)
    with pytest.raises(OwnlatentError, match=r"no \[ouz\]: the nearest is out"):
        part_of(parts, "ouz")
    with pytest.raises(OwnlatentError, match="leave out"):
        part_of(torch.ones(2, 3), "out")
    with pytest.raises(OwnlatentError, match=r"gives 2 tensors: .* NAME\[0\], of 0, 1"):
        part_of((torch.ones(2, 1), torch.ones(2, 5)), None)
    with pytest.raises(OwnlatentError, match="without a tensor"):
        part_of({"n": 5}, None)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("layre2", "no layer 'layre2': the nearest are? layer2"),
        ("layer1.0.conv3", "nearest"),
        (10, "no layer 10: it has 10 children"),
        (-11, "no layer -11"),
    ],
)
def test_a_wrong_layer_is_told_the_nearest(layer: object, message: str) -> None:
    with pytest.raises(OwnlatentError, match=message):
        find(resnet(), layer)


def test_layers_that_cannot_give_features_are_refused() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([nn.Conv2d(3, 4, 3)])
            self.flat = nn.Flatten(0)
            self.windows = nn.Flatten(0, 1)

        def forward(self, x: Tensor) -> Tensor:
            self.flat(x), self.windows(x)
            return self.parts[0](x)

    for layer, message in (
        ("parts", "never calls its layer 'parts'"),
        ("flat", "no features for each image"),
        ("windows", "gives 6 rows for 2 images"),
    ):
        with pytest.raises(OwnlatentError, match=message):
            backbones.create(Holder(), layer=layer, image_size=16)
    with pytest.raises(OwnlatentError, match="only tokens have a class"):
        backbones.create(Holder(), layer="parts.0", pool="class", image_size=16)
    with pytest.raises(OwnlatentError, match="no pool 'first'"):
        backbones.create(Holder(), pool="first", image_size=16)


def test_the_name_of_a_tap_finds_it_again() -> None:
    net = resnet()
    for layer in ("layer2", "layer1.0[3]", "[out]", ""):
        tap = find(net, layer)
        assert find(net, tap.name) == tap
    assert Tap().name == ""


def test_a_recorded_network_gives_the_same() -> None:
    """Who traces a network needs all of it: nothing is cut off by an exception then."""
    backbone = backbones.create(resnet(), layer="layer1", image_size=32).eval()
    x = torch.rand(2, 3, 32, 32)
    traced = torch.jit.trace(backbone, x, check_trace=False)
    torch.testing.assert_close(traced(x), backbone(x))
