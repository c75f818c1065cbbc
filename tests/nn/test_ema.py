"""The moving average against its closed form."""

from copy import deepcopy

import pytest
import torch
from torch import nn

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
