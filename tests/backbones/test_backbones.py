"""Backbones: the stem that fits the images, the measured width, and the encoder around them."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.backbones.stem import fit_stem
from ownlatent.backbones.tap import Tap
from ownlatent.errors import OwnlatentError

LIBRARIES = ["timm:resnet18", "torchvision:resnet18"]


def shape_of_stem(backbone: backbones.Backbone) -> tuple:
    conv = backbone.net.conv1
    return (conv.in_channels, conv.kernel_size, conv.stride, conv.padding, conv.bias)


@pytest.mark.parametrize("name", LIBRARIES)
def test_stem_of_resnet18_at_32_pixels(name: str):
    """3x3, stride 1, no max-pool (SimCLR, app. B.9), said in words; the width is the same."""
    backbone = backbones.create(name, image_size=32)
    assert shape_of_stem(backbone) == (3, (3, 3), (1, 1), (1, 1), None)
    assert isinstance(backbone.net.maxpool, nn.Identity)
    assert any("3x3" in change for change in backbone.changes)
    assert any("max-pool" in change for change in backbone.changes)
    assert backbone.num_features == 512


@pytest.mark.parametrize("name", LIBRARIES)
def test_stem_of_resnet18_at_224_pixels_is_untouched(name: str):
    backbone = backbones.create(name, image_size=224)
    assert shape_of_stem(backbone) == (3, (7, 7), (2, 2), (3, 3), None)
    assert isinstance(backbone.net.maxpool, nn.MaxPool2d)
    assert backbone.changes == ()
    assert backbone.num_features == 512


@pytest.mark.parametrize(("image_size", "stride"), [(16, (1, 1)), (64, (1, 1)), (65, (2, 2)), (96, (2, 2))])
def test_stem_changes_up_to_64_pixels(image_size: int, stride: tuple[int, int]):
    net = nn.Sequential(nn.Conv2d(3, 4, 5, stride=2, padding=2, bias=False), nn.Conv2d(4, 4, 3, stride=2))
    changes = fit_stem(net, image_size, 3)
    assert net[0].stride == stride
    assert bool(changes) == (stride == (1, 1))
    assert net[1].stride == (2, 2)  # only the first convolution is the stem


@pytest.mark.parametrize("name", LIBRARIES)
def test_small_stem_keeps_the_resolution(name: str):
    """Three halvings are left in the stages: 32 px end as maps of 4 x 4, not 1 x 1."""
    net = backbones.create(name, image_size=32).net
    seen: list[Tensor] = []
    net.layer4.register_forward_hook(lambda _, inputs, output: seen.append(output))
    net.eval()(torch.zeros(1, 3, 32, 32))
    assert seen[0].shape == (1, 512, 4, 4)


def test_pool_of_densenets_stem_goes_too():
    backbone = backbones.create("torchvision:densenet121", image_size=32)
    assert isinstance(backbone.net.features.pool0, nn.Identity)
    assert backbone.net.features.conv0.stride == (1, 1)
    assert backbone.num_features == 1024


@pytest.mark.parametrize("name", ["timm:test_vit", "torchvision:swin_t", "timm:mixer_s32_224"])
def test_patch_embedding_of_a_transformer_is_left_alone(name: str):
    """It is the tokeniser, not a stem: at stride 1 every pixel would be a token."""
    backbone = backbones.create(name, image_size=64)
    conv = next(module for module in backbone.net.modules() if isinstance(module, nn.Conv2d))
    assert conv.kernel_size == conv.stride != (1, 1)
    assert backbone.changes == ()


def test_fresh_first_convolution_keeps_its_geometry():
    """Only the channels change: its stride, dilation, bias and way of padding are the network's own."""
    old = nn.Conv2d(3, 6, 3, stride=2, padding=2, dilation=2, padding_mode="reflect")
    net = nn.Sequential(old)
    fit_stem(net, 96, 1)
    new = net[0]
    assert (new.in_channels, new.out_channels, new.kernel_size, new.stride) == (1, 6, (3, 3), (2, 2))
    assert (new.padding, new.dilation, new.padding_mode) == (old.padding, old.dilation, old.padding_mode)
    assert new.bias is not None


def test_convolution_that_pads_by_itself_keeps_its_output_size():
    """timm's TensorFlow ports pad in the layer's own forward pass; a plain one in its place would not."""
    stem = backbones.create("timm:tf_mobilenetv3_small_minimal_100", channels=1, image_size=96).net.conv_stem
    assert stem(torch.zeros(1, 1, 96, 96)).shape[2:] == (48, 48)


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(("size", "kernel"), [(32, (3, 3)), (96, (7, 7))])
def test_single_channel(name: str, size: int, kernel: tuple[int, int]):
    """A fresh first convolution for one channel, of the size that the images ask for."""
    backbone = backbones.create(name, channels=1, image_size=size)
    assert backbone.net.conv1.in_channels == 1 and backbone.net.conv1.kernel_size == kernel
    assert any("1 input channel" in change for change in backbone.changes)
    assert backbone(torch.randn(2, 1, size, size)).shape == (2, 512)


@pytest.mark.parametrize(
    ("name", "width"), [("resnet10_w16", 128), ("resnet10_w32", 256), ("timm:test_vit", 64), ("timm:resnet18", 512)]
)
def test_measured_width_is_that_of_the_output(name: str, width: int):
    backbone = backbones.create(name, image_size=32)
    assert backbone.num_features == width
    assert backbone(torch.randn(2, 3, 32, 32)).shape == (2, width)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_small_networks_take_any_channels_and_need_no_change(channels: int):
    backbone = backbones.create("resnet10_w16", channels=channels, image_size=16)
    assert backbone.changes == ()
    assert backbone(torch.randn(2, channels, 16, 16)).shape == (2, 128)


@pytest.mark.parametrize(
    ("net", "width"),
    [
        (nn.Conv2d(3, 7, 3), 7),  # maps are averaged
        (nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.Flatten(2), nn.Softmax(1)), 4),  # (B, 6, 4): six tokens of width 4
        (nn.Flatten(), 3 * 8 * 8),
    ],
)
def test_module_of_ones_own_is_wrapped_as_it_is(net: nn.Module, width: int):
    backbone = backbones.create(net, image_size=8)
    assert backbone.net is net
    assert (backbone.num_features, backbone.spec, backbone.changes) == (width, None, ())
    assert backbone(torch.randn(2, 3, 8, 8)).shape == (2, width)


def test_pooling_is_the_mean_over_places():
    maps, tokens = torch.randn(2, 5, 3, 4), torch.randn(2, 6, 5)
    torch.testing.assert_close(Tap().pooled(maps), maps.flatten(2).mean(2))
    torch.testing.assert_close(Tap().pooled(tokens), tokens.sum(1) / 6)
    assert Tap().pooled(torch.randn(2, 5)).shape == (2, 5)


def test_measuring_leaves_statistics_and_weights_untouched():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    before, random_state = deepcopy(net.state_dict()), torch.get_rng_state()
    backbones.create(net, image_size=8)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_measuring_leaves_the_mode_of_every_part_untouched():
    """A BatchNorm that its owner froze in evaluation mode must stay frozen."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten())
    net.train()
    net[1].eval()
    backbones.create(net, image_size=8)
    assert [module.training for module in net] == [True, False, True, True]


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_the_mode_of_the_whole_untouched(training: bool):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train(training)
    backbones.create(net, image_size=8)
    assert all(module.training == training for module in net.modules())


@pytest.mark.parametrize(("wrong", "nearest"), [("resnet10_w61", "resnet10_w16"), ("resnet118", "resnet18")])
def test_unknown_name_names_the_nearest(wrong: str, nearest: str):
    for refuse in (backbones.check_name, backbones.create):
        with pytest.raises(OwnlatentError, match=f"'{wrong}'.*{nearest}"):
            refuse(wrong)


def test_known_names_pass_the_check():
    for name in ("resnet10_w32", "resnet18", *LIBRARIES):
        backbones.check_name(name)
    assert {"resnet10_w32", "resnet18", "vgg11"} <= set(backbones.names())


@pytest.mark.parametrize(
    "name",
    [
        "nowhere:resnet18",  # no such library
        "timm:resnet10_w16",  # ours, not timm's
        "timm:alexnet",  # torchvision's, not timm's
        "torchvision:resnet18d",  # timm's, not torchvision's
    ],
)
def test_name_is_refused_early_if_its_library_lacks_it(name: str):
    """The check comes before any data is read, so it must refuse whatever building would refuse."""
    with pytest.raises(OwnlatentError, match="there is no backbone"):
        backbones.create(name, image_size=32)
    with pytest.raises(OwnlatentError, match="there is no backbone"):
        backbones.check_name(name)


def test_network_that_does_not_take_the_images_is_refused_in_words():
    with pytest.raises(OwnlatentError, match="4 channels of 8x8 px"):
        backbones.create(nn.Conv2d(3, 4, 3), channels=4, image_size=8)
    with pytest.raises(OwnlatentError, match="3 channels of 8x8 px"):
        backbones.create(nn.Conv2d(3, 4, 16), channels=3, image_size=8)


def test_setting_that_a_network_does_not_have_is_refused():
    for name in ("timm:resnet18", "torchvision:resnet18", "resnet10_w16"):
        with pytest.raises(OwnlatentError, match=name.rpartition(":")[2]):
            backbones.create(name, image_size=32, colour="red")


def test_spec_is_enough_to_build_the_backbone_again():
    first = backbones.create("timm:resnet18", channels=1, image_size=32, zero_init_last=False)
    assert first.spec is not None
    spec = dict(first.spec)
    again = backbones.create(spec.pop("name"), **spec.pop("keywords"), **spec)
    again.load_state_dict(first.state_dict())
    x = torch.randn(2, 1, 32, 32)
    assert again.changes == first.changes and again.num_features == first.num_features
    assert torch.equal(first.eval()(x), again.eval()(x))


def test_encoder_takes_bytes_and_unit_floats_equally():
    torch.manual_seed(0)
    encoder = Encoder(
        backbones.create("resnet10_w16", image_size=16), 16, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ).eval()
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    features = encoder(images)
    assert features.shape == (3, 128) == (3, encoder.num_features)
    assert torch.equal(features, encoder(images.float() / 255))


def test_encoder_normalises_by_itself():
    """Around a network that only averages, the features are (mean pixel - mean) / std."""
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    encoder = Encoder(backbones.create(nn.Identity(), image_size=8), 8, mean, std)
    images = torch.rand(2, 3, 8, 8)
    expected = (images.mean((2, 3)) - torch.tensor(mean)) / torch.tensor(std)
    torch.testing.assert_close(encoder(images), expected)


def test_encoder_carries_its_normalisation_in_its_state():
    first = Encoder(backbones.create("resnet10_w16", channels=1, image_size=16), 16, (0.3,), (0.2,))
    other = Encoder(backbones.create("resnet10_w16", channels=1, image_size=16), 16, (0.0,), (1.0,))
    other.load_state_dict(first.state_dict())
    images = torch.rand(2, 1, 16, 16)
    assert torch.equal(first.eval()(images), other.eval()(images))


def test_a_stem_whose_branches_must_fit_each_other_stays():
    """MobileOne adds up three convolutions of the image: with one of them changed nothing fits."""
    backbone = backbones.create("mobileone_s0", image_size=64)
    assert backbone.changes == () and backbone.net.stem.conv_scale.conv.stride == (2, 2)
