"""The moving average against its closed form."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn
from torchvision.models import DenseNet, SwinTransformer
from torchvision.ops import DropBlock2d, StochasticDepth

from ownlatent.nn.ema import EMA


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 3, bias=False))


def shifted(net: nn.Module, seed: int = 1) -> nn.Module:
    """The same network with other weights and other BatchNorm statistics."""
    generator = torch.Generator().manual_seed(seed)
    net = deepcopy(net)
    for tensor in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
        tensor.data.add_(torch.randn(tensor.shape, generator=generator).to(tensor.dtype))
    return net


@pytest.mark.parametrize(
    ("tau", "below"),
    [(0.97, 23), (0.99, 69), (0.996, 173), (0.999, 693), (0.9995, 1386)],  # first whole step past the half-life
)
def test_distance_to_a_constant_source_decays_by_tau_each_step(tau: float, below: int):
    """xi_n - theta = tau^n (xi_0 - theta): half is left after 22.8, 69.0, 172.9, 692.8 and 1385.9 steps."""
    source = nn.Linear(3, 2).double()
    target = EMA(source)
    moved = shifted(source)
    start = [t.detach() - s.detach() for t, s in zip(target.parameters(), moved.parameters(), strict=True)]
    for n in range(1, below + 1):
        target.update(moved, tau=tau)
        if n == below - 1:
            left = target.net[0].weight - moved.weight
            assert (left.abs() > start[0].abs() / 2).all()
    for difference, t, s in zip(start, target.parameters(), moved.parameters(), strict=True):
        torch.testing.assert_close(t - s, tau**below * difference, atol=1e-12, rtol=1e-9)
    assert ((target.net[0].weight - moved.weight).abs() < start[0].abs() / 2).all()


def test_changing_source_and_tau_in_closed_form():
    """xi_n = prod(tau) xi_0 + sum_i (1 - tau_i) prod_{j > i} tau_j theta_i."""
    source = nn.Linear(3, 2, bias=False).double()
    target, taus = EMA(source), [0.5, 0.9, 0.0, 0.99, 0.7]
    start = source.weight.detach().clone()
    history = []
    for i, tau in enumerate(taus):
        source = shifted(source, seed=i)
        history.append(source.weight.detach().clone())
        target.update(source, tau=tau)
    expected = torch.tensor(taus).double().prod() * start
    for i, theta in enumerate(history):
        expected = expected + (1 - taus[i]) * torch.tensor(taus[i + 1 :]).double().prod() * theta
    torch.testing.assert_close(target.net[0].weight.data, expected, atol=1e-7, rtol=1e-7)


def test_tau_one_is_bit_identical_and_tau_zero_is_a_copy():
    source = network()
    target, moved = EMA(source), shifted(source)
    before = [p.clone() for p in target.parameters()]
    for _ in range(5):
        target.update(moved, tau=1.0)
    assert all(torch.equal(p, q) for p, q in zip(target.parameters(), before, strict=True))
    target.update(moved, tau=0.0)
    assert all(torch.equal(p, q) for p, q in zip(target.parameters(), moved.parameters(), strict=True))


def test_buffers_are_never_averaged():
    source = network()
    target, moved = EMA(source), shifted(source)
    for tau in (0.0, 0.5, 1.0):
        target.update(moved, tau=tau)
        assert torch.equal(target.net[0][1].running_mean, torch.zeros(5))
        assert torch.equal(target.net[0][1].running_var, torch.ones(5))


def test_forward_changes_its_own_statistics_and_no_parameter():
    source = network()
    target = EMA(source)
    before = [p.clone() for p in target.parameters()]
    target(torch.randn(16, 4))
    assert target.net[0][1].num_batches_tracked == 1
    assert source[1].num_batches_tracked == 0 and torch.equal(source[1].running_mean, torch.zeros(5))
    assert all(torch.equal(p, q) for p, q in zip(target.parameters(), before, strict=True))


def test_copy_is_a_chain_of_its_sources_in_their_order():
    first, second = nn.Linear(4, 6), nn.Linear(6, 2)
    target = EMA(first, second)
    x = torch.randn(3, 4)
    torch.testing.assert_close(target(x), second(first(x)).detach())
    moved = shifted(first, 1), shifted(second, 2)
    target.update(*moved, tau=0.0)
    torch.testing.assert_close(target(x), moved[1](moved[0](x)).detach())


def test_copy_is_independent_of_its_source():
    source = network()
    target = EMA(source)
    before = [p.clone() for p in target.parameters()]
    for p in source.parameters():
        p.data.add_(1)
    assert all(torch.equal(p, q) for p, q in zip(target.parameters(), before, strict=True))


def test_source_is_not_changed_by_an_update():
    source = network()
    target, moved = EMA(source), shifted(source)
    before = [p.detach().clone() for p in moved.parameters()]
    target.update(moved, tau=0.3)
    assert all(torch.equal(p, q) for p, q in zip(moved.parameters(), before, strict=True))
    assert all(p.requires_grad for p in moved.parameters())


def test_no_gradient_flows_through_it():
    target = EMA(network())
    x = torch.randn(3, 4, requires_grad=True)
    assert not target(x).requires_grad
    assert not any(p.requires_grad for p in target.parameters())


# --- nothing is dropped ---------------------------------------------------------------------------


def timm_vit(**keywords: float) -> nn.Module:
    sizes = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2, "num_classes": 0}
    return timm.create_model("vit_tiny_patch16_224", **sizes, **keywords)


def torchvision_swin(**keywords: float) -> nn.Module:
    settings = {"dropout": 0.0, "attention_dropout": 0.0, "stochastic_depth_prob": 0.0, **keywords}
    return SwinTransformer([4, 4], 16, [2], [2], [2, 2], num_classes=4, **settings)


DROPPING: dict[str, Callable[[], nn.Module]] = {
    "dropout": lambda: nn.Dropout(0.5),
    "dropout of maps": lambda: nn.Dropout2d(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.5),
    "timm's paths": lambda: DropPath(0.5),
    "timm's paths in a transformer": lambda: timm_vit(drop_path_rate=0.9),
    "timm's dropout in a transformer": lambda: timm_vit(proj_drop_rate=0.5, pos_drop_rate=0.5),
    "torchvision's paths": lambda: StochasticDepth(0.5, "row"),
    "torchvision's paths in a transformer": lambda: torchvision_swin(stochastic_depth_prob=0.9),
    # These drop inside a function, by the mode of the layer around it, or are layers of another name.
    "timm's attention": lambda: timm_vit(attn_drop_rate=0.5),
    "timm's patches": lambda: timm_vit(patch_drop_rate=0.5),
    "timm's blocks": lambda: timm.layers.DropBlock2d(0.5, 3),
    "timm's features": lambda: timm.create_model("resnet10t", num_classes=0, drop_rate=0.5),
    "torchvision's attention": lambda: torchvision_swin(attention_dropout=0.5),
    "torchvision's blocks": lambda: DropBlock2d(0.5, 3),
    "torchvision's DenseNet": lambda: DenseNet(4, (2, 2), 8, drop_rate=0.5),
    "torch's transformer": lambda: nn.Sequential(nn.Flatten(2), nn.TransformerEncoderLayer(256, 2, 16, dropout=0.5)),
}


@pytest.mark.parametrize("what", DROPPING)
def test_copy_drops_nothing_even_in_training(what: str):
    """DINO's student drops paths, its teacher does not: a target must say the same of the same batch twice."""
    torch.manual_seed(0)
    source, x = DROPPING[what](), torch.randn(8, 3, 16, 16)
    assert not torch.equal(source(x), source(x))  # the example drops something
    target = EMA(source)
    assert torch.equal(target(x), target(x))
    for around in (target, nn.Sequential(target)):
        around.train()
        assert torch.equal(target(x), target(x))
    assert not torch.equal(source(x), source(x))  # and the original goes on
    assert all(module.training for module in source.modules())


def test_batchnorm_of_the_copy_stays_in_training():
    """Beside dropout: it normalises with its own batch, as the released codes' targets do."""
    source = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyBatchNorm1d())
    x = 3 * torch.randn(8, 3, 6, 6) + 1
    source(x)
    target = EMA(source)
    for _ in range(2):
        norms = [target.net[0][1], target.net[0][4]]
        assert all(norm.training for norm in norms)
        counted = [norm.num_batches_tracked.item() for norm in norms]
        outputs = target(x)
        assert [norm.num_batches_tracked.item() for norm in norms] == [n + 1 for n in counted]
        torch.testing.assert_close(outputs.mean(0), torch.zeros(64), atol=1e-5, rtol=0)
        nn.ModuleList([target]).train()


def test_mode_of_the_copy_follows_train_and_eval():
    """In evaluation BatchNorm uses what it has gathered; back in training it normalises again, and nothing drops."""
    target = EMA(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5)))
    x = torch.randn(8, 4) + 3
    target.eval()
    assert not any(module.training for module in target.modules())
    torch.testing.assert_close(target(x), x, atol=1e-4, rtol=1e-4)  # no batch gathered yet: mean 0, variance 1
    assert target.train() is target and target.training and target.net[0][0].training
    torch.testing.assert_close(target(x).mean(0), torch.zeros(4), atol=1e-5, rtol=0)


def test_a_layer_that_was_frozen_in_evaluation_is_copied_so():
    """Whoever fine-tunes with fixed BatchNorm statistics says so by `.eval()` on those layers."""
    source = network()
    source[1].eval()
    target = EMA(source)
    x = torch.randn(16, 4) + 3
    torch.testing.assert_close(target(x), source(x).detach())
    assert torch.equal(target.net[0][1].running_mean, torch.zeros(5))
