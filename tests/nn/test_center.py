"""DINO's centre against its closed form."""

import pytest
import torch

from ownlatent.nn.center import Center


def outputs(batch: int = 8, width: int = 5, seed: int = 0) -> torch.Tensor:
    return torch.randn((batch, width), generator=torch.Generator().manual_seed(seed)) + 1


@pytest.mark.parametrize("momentum", [0.9, 0.5, 0.99])
def test_after_n_batches_of_one_mean(momentum: float):
    """c_n = (1 - m^n) mean: it starts at 0 and is not corrected for that."""
    center, mean = Center(5, momentum), outputs().mean(0)
    assert torch.equal(center.value, torch.zeros(5))
    for n in range(1, 30):
        center.observe(outputs())
        torch.testing.assert_close(center.value, (1 - momentum**n) * mean, atol=1e-6, rtol=1e-5)


def test_after_n_batches_of_changing_means():
    """c_n = (1 - m) sum_i m^(n - i) mean_i, the newest with the largest weight."""
    center, expected = Center(5, 0.7), torch.zeros(5).double()
    batches = [outputs(batch=3 + seed, seed=seed) for seed in range(6)]
    for batch in batches:
        center.observe(batch)
    for i, batch in enumerate(batches):
        expected += 0.3 * 0.7 ** (len(batches) - 1 - i) * batch.double().mean(0)
    torch.testing.assert_close(center.value.double(), expected, atol=1e-6, rtol=1e-5)


def test_momentum_zero_is_the_last_mean_and_one_never_moves():
    last, still = Center(5, 0.0), Center(5, 1.0)
    for seed in range(3):
        last.observe(outputs(seed=seed))
        still.observe(outputs(seed=seed))
    torch.testing.assert_close(last.value, outputs(seed=2).mean(0))
    assert torch.equal(still.value, torch.zeros(5))


def test_observing_leaves_no_gradient_and_its_input_as_it_was():
    center, x = Center(5, 0.9), outputs().requires_grad_()
    before = x.detach().clone()
    center.observe(x)
    assert not center.value.requires_grad and center.value.grad_fn is None
    assert torch.equal(x, before)


def test_half_precision_is_averaged_in_float32():
    """A mean of bfloat16 in bfloat16 errs by 2^-9 of it, and would be all that a centre near it can say."""
    x = outputs(batch=500).bfloat16()
    center = Center(5, 0.0)
    center.observe(x)
    assert center.value.dtype == torch.float32
    torch.testing.assert_close(center.value.double(), x.double().mean(0), atol=1e-6, rtol=1e-5)
    assert not torch.equal(center.value, center.value.bfloat16().float())  # so a rounding would have shown


def test_it_is_state_and_no_parameter():
    first, second = Center(5, 0.9), Center(5, 0.9)
    first.observe(outputs())
    assert not list(first.parameters()) and set(first.state_dict()) == {"value"}
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.value, second.value)


def test_means_are_those_of_all_processes(monkeypatch: pytest.MonkeyPatch):
    """With a stand-in for the second process, whose half of each batch gives another mean.

    What real processes make of `average` is in test_collectives.py.
    """
    halves = [outputs(seed=seed).chunk(2) for seed in range(3)]
    others = iter([second.mean(0) for _, second in halves])
    monkeypatch.setattr("ownlatent.nn.center.average", lambda own: (own + next(others)) / 2)
    center, expected = Center(5, 0.9), torch.zeros(5)
    for first, second in halves:
        center.observe(first)
        expected = 0.9 * expected + 0.1 * torch.cat([first, second]).mean(0)
    torch.testing.assert_close(center.value, expected)
