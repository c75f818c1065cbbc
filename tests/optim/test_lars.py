"""LARS against a reference in numpy and against steps worked out by hand."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.optim.create import create
from ownlatent.optim.lars import LARS

ETA = 1e-3


def weight(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor([values], dtype=torch.float64))


def first_update(gradient: list[float], weight_decay: float, start: tuple[float, ...] = (3.0, 4.0)) -> Tensor:
    """What one step at lr 1 without momentum takes off the weight."""
    w = weight(*start)
    w.grad = torch.tensor([gradient], dtype=torch.float64)
    LARS([w], lr=1.0, momentum=0.0, weight_decay=weight_decay, eta=ETA).step()
    return torch.tensor([start], dtype=torch.float64) - w.detach()


def test_ten_steps_equal_a_numpy_reference():
    """Two adapted tensors, one excluded with decay off; lr changes, so its place outside the buffer shows."""
    generator = np.random.default_rng(0)
    shapes, decays, adapted = [(4, 3), (2, 3, 3, 3), (5,)], [0.1, 0.1, 0.0], [True, True, False]
    reference = [generator.normal(size=shape) for shape in shapes]
    buffers = [np.zeros(shape) for shape in shapes]
    parameters = [nn.Parameter(torch.tensor(w)) for w in reference]
    optimizer = LARS(
        [
            {"params": parameters[:2], "weight_decay": 0.1},
            {"params": parameters[2:], "weight_decay": 0.0, "adapt": False},
        ],
        momentum=0.9,
        eta=ETA,
    )
    for step in range(10):
        lr = 0.5 * (step + 1)
        gradients = [generator.normal(size=shape) for shape in shapes]
        for group in optimizer.param_groups:
            group["lr"] = lr
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = torch.tensor(gradient)
        optimizer.step()
        for i, gradient in enumerate(gradients):
            u = gradient + decays[i] * reference[i]
            q = ETA * np.linalg.norm(reference[i].ravel()) / np.linalg.norm(u.ravel()) if adapted[i] else 1.0
            buffers[i] = 0.9 * buffers[i] + q * u
            reference[i] = reference[i] - lr * buffers[i]
        for parameter, expected in zip(parameters, reference, strict=True):
            np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_gradient_parallel_to_the_weight(weight_decay: float):
    """Only the direction of g + wd w counts, so decay changes nothing when both are parallel."""
    expected = torch.tensor([[0.003, 0.004]], dtype=torch.float64)
    torch.testing.assert_close(first_update([0.6, 0.8], weight_decay), expected, atol=1e-12, rtol=0)


def test_decay_stands_inside_the_norm():
    """g orthogonal to w tells the reference form from eta |w| / (|g| + wd |w|), which gives (-0.001667, 0.003333)."""
    expected = torch.tensor([[-0.002236, 0.004472]], dtype=torch.float64)
    torch.testing.assert_close(first_update([-0.8, 0.6], 0.1), expected, atol=5e-7, rtol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 2.0])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_first_step_has_a_length_of_its_own(scale: float, weight_decay: float):
    """|dw| = lr eta |w| = 0.005 whatever the scale of the loss and the decay."""
    assert first_update([0.3 * scale, -0.7 * scale], weight_decay).norm().item() == pytest.approx(0.005, rel=1e-9)


def test_zero_weight_takes_a_plain_step():
    update = first_update([0.3, -0.7], 0.1, start=(0.0, 0.0))
    torch.testing.assert_close(update, torch.tensor([[0.3, -0.7]], dtype=torch.float64))


def test_zero_gradient_moves_nothing():
    assert torch.equal(first_update([0.0, 0.0], 0.0), torch.zeros(1, 2, dtype=torch.float64))


@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_undecayed_group_takes_plain_momentum_sgd(weight_decay: float):
    """A bias moves by -lr g, then -lr (0.9 g + g): neither decay nor adaptation touches it."""
    bias = nn.Parameter(torch.tensor([3.0, 4.0]))
    gradient = torch.tensor([0.6, -0.8])
    optimizer = create("lars", [{"params": [bias], "decay": False}], lr=0.5, weight_decay=weight_decay)
    for expected in (torch.tensor([3.0, 4.0]) - 0.5 * gradient, torch.tensor([3.0, 4.0]) - 0.5 * 2.9 * gradient):
        bias.grad = gradient.clone()
        optimizer.step()
        torch.testing.assert_close(bias.detach(), expected)


def test_parameter_without_gradient_is_left_alone():
    used, unused = weight(3.0, 4.0), weight(1.0, 2.0)
    used.grad = torch.ones(1, 2, dtype=torch.float64)
    LARS([used, unused], weight_decay=0.1).step()
    assert torch.equal(unused.detach(), torch.tensor([[1.0, 2.0]], dtype=torch.float64))


def test_gradient_is_not_changed_by_the_step():
    w = weight(3.0, 4.0)
    w.grad = torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    LARS([w], weight_decay=0.1).step()
    assert torch.equal(w.grad, torch.tensor([[0.6, 0.8]], dtype=torch.float64))


def test_state_dict_resumes_exactly():
    """The momentum is in the state: three steps and two after a reload equal five."""

    def run(w: nn.Parameter, optimizer: LARS, steps: range) -> None:
        for step in steps:
            w.grad = torch.tensor([[1.0 + step, -2.0]], dtype=torch.float64)
            optimizer.step()

    straight = weight(3.0, 4.0)
    optimizer = LARS([straight], lr=1.0, weight_decay=0.1)
    run(straight, optimizer, range(3))
    resumed = nn.Parameter(straight.detach().clone())
    fresh = LARS([resumed], lr=7.0)
    fresh.load_state_dict(deepcopy(optimizer.state_dict()))
    run(straight, optimizer, range(3, 5))
    run(resumed, fresh, range(3, 5))
    assert torch.equal(straight.detach(), resumed.detach())


def test_closure_is_evaluated_with_gradients():
    w = weight(3.0, 4.0)
    optimizer = LARS([w], lr=1.0, momentum=0.0, eta=ETA)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (w**2).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 25
    assert w.detach().norm().item() == pytest.approx(5 * (1 - ETA))


def test_adapted_group_of_a_method_holds_weights_only():
    """By name: no BatchNorm and no bias is adapted or decayed, every other trained weight is both."""
    method = methods.create("byol", backbones.create("resnet10_w16", image_size=16), hidden=8, projection=4)
    optimizer = create("lars", method.param_groups(), lr=0.2, weight_decay=1e-6)
    adapted = {id(p) for group in optimizer.param_groups if group["adapt"] for p in group["params"]}
    excluded = {id(p) for group in optimizer.param_groups if not group["adapt"] for p in group["params"]}
    norms = {name for name, module in method.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)}
    trained = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    assert len(trained) == len(adapted) + len(excluded)
    for name, parameter in trained:
        owner, _, leaf = name.rpartition(".")
        plain = owner in norms or leaf == "bias"
        assert id(parameter) in (excluded if plain else adapted), name
