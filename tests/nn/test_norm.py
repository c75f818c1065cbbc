"""Normalisation by name, weight standardisation, and networks without BatchNorm, against plain loops."""

from copy import deepcopy
from math import sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn

from ownlatent import backbones
from ownlatent.errors import OwnlatentError
from ownlatent.nn.mlp import mlp
from ownlatent.nn.norm import (
    KINDS,
    StandardizedConv2d,
    StandardizedLinear,
    norm,
    num_groups,
    standardized,
    without_batchnorm,
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Of a mean and a spread that a normalisation has to take away."""
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 2


def normalised(values: list[float], eps: float = 1e-5) -> list[float]:
    """(x - mean) / sqrt(variance + eps), the variance divided by n."""
    mean = sum(values) / len(values)
    variance = sum((x - mean) ** 2 for x in values) / len(values)
    return [(x - mean) / sqrt(variance + eps) for x in values]


def in_groups(row: list[float], groups: int) -> list[float]:
    size = len(row) // groups
    return [y for g in range(groups) for y in normalised(row[g * size : (g + 1) * size])]


# --- norm -----------------------------------------------------------------------------------------


def test_kinds_are_what_they_say():
    """Over the batch for each width, or for each image alone over groups or all of its values; or not at all."""
    x = numbers(5, 64)
    rows = x.double().tolist()
    columns = [normalised(list(column)) for column in zip(*rows, strict=True)]
    expected = {
        "batch": [list(row) for row in zip(*columns, strict=True)],
        "group": [in_groups(row, 16) for row in rows],
        "layer": [normalised(row) for row in rows],
        "none": rows,
    }
    assert set(expected) == set(KINDS)
    for kind, values in expected.items():
        torch.testing.assert_close(norm(kind, 64)(x).double(), torch.tensor(values).double(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["batch", "group", "layer"])
def test_scale_and_offset_are_learned_where_asked_for(kind: str):
    whole, bare, scaled = norm(kind, 32), norm(kind, 32, affine=False), norm(kind, 32, shift=False)
    assert {name for name, p in whole.named_parameters() if p.requires_grad} == {"weight", "bias"}
    assert not list(bare.parameters())
    assert {name for name, p in scaled.named_parameters() if p.requires_grad} == {"weight"}
    assert torch.equal(scaled.bias, torch.zeros(32)) and torch.equal(scaled.weight, torch.ones(32))
    assert not list(norm(kind, 32, affine=False, shift=False).parameters())


def test_unknown_kind_names_the_nearest():
    with pytest.raises(OwnlatentError, match=r"'bach'.*batch"):
        norm("bach", 8)


def test_groups_are_the_most_up_to_16_that_divide_the_width():
    table = {1: 1, 2: 2, 7: 7, 16: 16, 17: 1, 18: 9, 20: 10, 24: 12, 34: 2, 48: 16, 64: 16, 512: 16, 4096: 16}
    assert {width: num_groups(width) for width in table} == table


@pytest.mark.parametrize("width", [4, 8, 12, 16, 32, 512])
def test_group_norm_of_a_vector_lets_something_through(width: int):
    """A group of one value is its own mean: a head as narrow as its groups would give 0 for every image."""
    outputs = norm("group", width)(numbers(16, width))
    assert outputs.std(0).mean() > 0.1


# --- weight standardisation -----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 7), (4, 3, 3, 3), (6, 1, 3, 3)])
def test_standardised_weights_of_each_output_have_mean_0_and_variance_1(shape: tuple[int, ...]):
    """(W - mean) / std over the inputs, kernel places included, the variance divided by their number."""
    weight = numbers(*shape)
    result = standardized(weight)
    assert result.shape == weight.shape
    flat = result.flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(shape[0]), atol=1e-6, rtol=0)
    torch.testing.assert_close(flat.var(1, unbiased=False), torch.ones(shape[0]), atol=1e-4, rtol=0)
    for row, out in zip(weight.flatten(1).double().tolist(), flat.tolist(), strict=True):
        mean = sum(row) / len(row)
        deviation = sqrt(sum((x - mean) ** 2 for x in row) / len(row))
        assert out == pytest.approx([(x - mean) / deviation for x in row], abs=1e-4)


def test_scale_and_offset_of_a_filter_do_not_matter_nor_does_the_gradient_change_them():
    """W and a W + b are one filter; so the gradient is orthogonal to W and to 1."""
    weight = numbers(4, 9).double().requires_grad_()
    scales, offsets = torch.tensor([[0.1], [1.0], [7.0], [100.0]]), torch.tensor([[3.0], [-1.0], [0.0], [50.0]])
    torch.testing.assert_close(standardized(scales * weight + offsets), standardized(weight), atol=1e-3, rtol=0)
    (standardized(weight) * numbers(4, 9, seed=1)).sum().backward()
    assert weight.grad is not None and weight.grad.abs().max() > 0.1
    torch.testing.assert_close(weight.grad.sum(1), torch.zeros(4).double(), atol=1e-9, rtol=0)
    inner = (weight.grad * (weight.detach() - weight.detach().mean(1, keepdim=True))).sum(1)
    torch.testing.assert_close(inner, torch.zeros(4).double(), atol=1e-3, rtol=0)  # but for eps


def test_gradient_of_standardised_weights_equals_central_differences():
    weight = numbers(3, 5).double().requires_grad_()
    assert torch.autograd.gradcheck(standardized, weight)


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.ones(2, 3, 3, 3), torch.randn(4, 1)])
def test_a_constant_filter_has_a_finite_gradient(weight: torch.Tensor):
    """All weights equal, at the start by design or because there is one input: a NaN would poison the whole run."""
    weight = weight.clone().requires_grad_()
    result = standardized(weight)
    assert torch.equal(result, torch.zeros_like(result))
    (result * numbers(*weight.shape)).sum().backward()
    assert weight.grad is not None and weight.grad.isfinite().all()


@pytest.mark.parametrize(
    "keywords",
    [{}, {"bias": False}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}],
)
def test_standardised_convolution_is_a_convolution_with_standardised_weights(keywords: dict[str, Any]):
    layer, x = StandardizedConv2d(4, 6, 3, **keywords), numbers(2, 4, 9, 9)
    rest = {name: value for name, value in keywords.items() if name != "bias"}
    torch.testing.assert_close(layer(x), F.conv2d(x, standardized(layer.weight), layer.bias, **rest))
    assert not torch.allclose(layer(x), nn.Conv2d.forward(layer, x), atol=1e-2)
    around = StandardizedConv2d(4, 6, 3, padding=1, padding_mode="circular")
    padded = F.pad(x, (1, 1, 1, 1), mode="circular")
    torch.testing.assert_close(around(x), F.conv2d(padded, standardized(around.weight), around.bias))


def test_standardised_linear_layer_is_a_linear_layer_with_standardised_weights():
    layer, x = StandardizedLinear(5, 3), numbers(4, 5)
    torch.testing.assert_close(layer(x), x @ standardized(layer.weight).T + layer.bias)


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_heads_of_every_kind(kind: str):
    """Hidden layers are normalised, with standardised weights before groups; the last layer is an ordinary one."""
    torch.manual_seed(0)
    head = mlp(6, 64, 32, 4, kind=kind)
    linear = StandardizedLinear if kind == "group" else nn.Linear
    between = type(norm(kind, 64))
    assert [type(layer) for layer in head] == [*[linear, between, nn.ReLU] * 2, nn.Linear]
    assert [tuple(head[n].weight.shape) for n in (0, 3, 6)] == [(64, 6), (32, 64), (4, 32)]
    assert head[0].bias is not None and head[3].bias is not None and head[6].bias is None
    x = numbers(8, 6)
    hidden = x
    for n in (0, 3):
        weight = standardized(head[n].weight) if kind == "group" else head[n].weight
        hidden = norm(kind, len(weight))(hidden @ weight.T + head[n].bias).clamp(min=0)
    torch.testing.assert_close(head(x), hidden @ head[6].weight.T, atol=1e-5, rtol=1e-4)
    one_by_one = torch.cat([deepcopy(head).eval()(row) for row in x.split(1)])
    assert torch.allclose(head(x), one_by_one, atol=1e-4) == (kind != "batch")  # who sees the rest of the batch


def test_biases_of_a_head_are_chosen():
    for bias, last_bias in ((True, True), (False, False), (False, True)):
        head = mlp(6, 32, 4, bias=bias, last_bias=last_bias)
        assert (head[0].bias is not None, head[3].bias is not None) == (bias, last_bias)


@pytest.mark.parametrize("widths", [(8, 4), (4,)])
def test_unknown_kind_of_head_is_refused_also_where_nothing_is_normalised(widths: tuple[int, ...]):
    with pytest.raises(OwnlatentError, match=r"'bach'.*batch"):
        mlp(6, *widths, kind="bach")


@pytest.mark.parametrize("widths", [(0, 4), (8, 0), (-1,)])
def test_heads_without_width_are_refused(widths: tuple[int, ...]):
    with pytest.raises(OwnlatentError, match="at least 1"):
        mlp(6, *widths)


# --- networks without BatchNorm -------------------------------------------------------------------


def small_net() -> nn.Sequential:
    """The last convolution has a bias: no normalisation follows it, and its weights stay as they are."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 5, 1))


def test_convolution_and_norm_written_out():
    """Standardised convolution, then 16 groups of two maps, each with its own mean and variance; scale and offset."""
    net, x = small_net(), numbers(2, 3, 5, 5)
    net[1].weight.data, net[1].bias.data = numbers(32, seed=1), numbers(32, seed=2)
    weight, bias = net[1].weight, net[1].bias
    maps = F.conv2d(x, standardized(net[0].weight))
    assert without_batchnorm(net) == 1
    expected = [[in_groups(image.flatten().tolist(), 16)] for image in maps.double()]
    grouped = torch.tensor(expected).view(2, 32, 3, 3) * weight.view(32, 1, 1) + bias.view(32, 1, 1)
    torch.testing.assert_close(net[:2](x), grouped.float(), atol=1e-3, rtol=1e-3)
    last = F.conv2d(net[:3](x), net[3].weight, net[3].bias)
    torch.testing.assert_close(net(x), last)


def test_weights_keep_their_names_and_their_parameters():
    """The very same parameters: an optimiser or a weight file made before fits after. Statistics go."""
    net = backbones.create("resnet10_w16", image_size=8)
    net.net[1].bias.requires_grad_(False)
    before = dict(net.named_parameters())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert without_batchnorm(net) == norms > 8
    after = dict(net.named_parameters())
    assert before.keys() == after.keys() and all(before[name] is after[name] for name in before)
    assert not net.net[1].bias.requires_grad
    assert net.state_dict().keys() == before.keys()
    kinds = {type(module) for module in net.modules()}
    assert not any(issubclass(kind, nn.modules.batchnorm._BatchNorm) for kind in kinds)
    assert nn.Conv2d not in kinds and {StandardizedConv2d, nn.GroupNorm} <= kinds


def test_images_no_longer_see_each_other():
    """The features of an image are the same alone, in any batch, in training and in evaluation."""
    net, x = backbones.create("resnet10_w16", image_size=8), numbers(6, 3, 8, 8)
    assert not torch.allclose(net(x)[:2], net(x[:2]), atol=1e-3)
    without_batchnorm(net)
    torch.testing.assert_close(net(x)[:2], net(x[:2]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(net(x), deepcopy(net).eval()(x))
    net(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_network_without_batchnorm_stays_as_it_is():
    net, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU()), numbers(2, 3, 5, 5)
    expected = net(x)
    assert without_batchnorm(net) == 0
    assert type(net[0]) is nn.Conv2d
    assert torch.equal(net(x), expected)


def test_norms_after_linear_layers_and_without_scale():
    net = nn.Sequential(nn.Linear(4, 32), nn.BatchNorm1d(32, affine=False), nn.ReLU())
    assert without_batchnorm(net) == 1
    assert type(net[1]) is nn.GroupNorm and (net[1].num_groups, net[1].affine) == (16, False)


def test_a_norm_that_stands_in_two_places_is_replaced_in_both():
    shared = nn.BatchNorm2d(8)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), shared, nn.Conv2d(8, 8, 3), shared)
    without_batchnorm(net)
    assert type(net[1]) is nn.GroupNorm and type(net[3]) is nn.GroupNorm


def test_an_activation_that_the_norm_carries_is_kept():
    """timm's BatchNormAct2d, of EfficientNets, RegNets and others, normalises and then clips at 0."""
    net = nn.Sequential(nn.Conv2d(3, 32, 3), BatchNormAct2d(32))
    without_batchnorm(net)
    outputs = net(numbers(2, 3, 6, 6))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert outputs.min() == 0 and (outputs == 0).float().mean() > 0.2
