"""The SGD probe: its gradient by autograd, its many rates by one at a time."""

import pytest
import torch
import torch.nn.functional as F

from ownlatent.evaluation.sgd_probe import RATES, _gradient, _train, sgd_predict


def clusters(n: int, seed: int, scale: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    return scale * (torch.eye(3, 6)[labels] + 0.3 * torch.randn((n, 6), generator=draws)), labels


def test_gradient_is_that_of_the_mean_cross_entropy():
    x, labels = clusters(30, 0)
    layers = torch.randn((2, 3, 7), generator=torch.Generator().manual_seed(1), dtype=torch.double).requires_grad_()
    x = x.double()
    sum(F.cross_entropy(x @ layer[:, :-1].T + layer[:, -1], labels) for layer in layers).backward()
    torch.testing.assert_close(_gradient(layers.detach(), x, labels), layers.grad)


def everyone(labels: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(labels, dtype=torch.bool)


def test_one_layer_is_what_torch_trains():
    """torch.optim.SGD with the cosine on the same batches."""
    x, labels = clusters(64, 0)
    (layer,) = _train([x], labels, everyone(labels), (1.0,), 3, 32, 0.9, 0.01, 5)
    draws = torch.Generator().manual_seed(5)
    start = 0.01 * torch.randn(3, 7, generator=draws)
    weight, bias = start[:, :-1].clone().requires_grad_(), torch.zeros(3, requires_grad=True)
    groups = [{"params": [weight], "weight_decay": 0.01}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=1.0 * 32 / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 6)
    for _ in range(3):
        order = torch.randperm(64, generator=draws)
        for rows in order.split(32):
            optimizer.zero_grad()
            F.cross_entropy(x[rows] @ weight.T + bias, labels[rows]).backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(layer, torch.cat([weight, bias.unsqueeze(1)], 1).detach(), atol=1e-5, rtol=1e-4)


def test_several_rates_at_once_are_those_one_by_one():
    x, labels = clusters(100, 0)
    together = _train([x, x + 0.1], labels, everyone(labels), (0.1, 10.0), 4, 32, 0.9, 0.0, 0)
    for layer, rate in zip(together, (0.1, 10.0), strict=True):
        torch.testing.assert_close(
            layer, _train([x, x + 0.1], labels, everyone(labels), (rate,), 4, 32, 0.9, 0.0, 0)[0]
        )


@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_the_rate_suits_the_scale_of_the_features(scale: float):
    (x, labels), (test, truth) = clusters(500, 0, scale), clusters(300, 1, scale)
    predicted, rate = sgd_predict([x], labels, x, test, epochs=30)
    assert (predicted == truth).float().mean() > 0.9 and rate in RATES


def test_epochs_take_the_copies_in_turn():
    """A copy of zeros teaches the offset only: two epochs over (x, 0) are not two over x."""
    x, labels = clusters(60, 0)
    both = _train([x, torch.zeros_like(x)], labels, everyone(labels), (1.0,), 2, 20, 0.0, 0.0, 0)
    assert not torch.allclose(both, _train([x], labels, everyone(labels), (1.0,), 2, 20, 0.0, 0.0, 0))


def test_images_that_are_not_used_change_nothing():
    x, labels = clusters(60, 0)
    used = torch.arange(len(x)) % 3 > 0
    changed = torch.where(used.unsqueeze(1), x, 100 * x)
    first, second = (_train([copy], labels, used, (1.0,), 2, 20, 0.0, 0.0, 0) for copy in (x, changed))
    assert torch.equal(first, second)


def test_two_images_are_enough():
    predicted, _ = sgd_predict([torch.eye(2)], torch.tensor([0, 1]), torch.eye(2), torch.eye(2), epochs=20)
    assert predicted.tolist() == [0, 1]
