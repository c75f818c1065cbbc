"""The guard before the optimiser, as it works on CUDA: here with the fused optimisers' own flag on the processor."""

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.optim.create import create
from ownlatent.train.finite import Guard, NotFinite, Window, memory_of
from ownlatent.train.module import gradient_norm, seed_networks


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_a_bad_step_is_left_out_on_the_device_and_told_at_the_next(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Guard, "_can_wait", staticmethod(lambda optimizer, device: True))
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    optimizer = create(name, [{"params": list(net.parameters())}], lr=0.1, weight_decay=0.1)
    guard = Guard()

    def step(number: int, scale: float) -> None:
        window = Window({}, number)
        window.step = number
        optimizer.zero_grad()
        loss = scale * net(torch.ones(2, 4)).square().mean()
        loss.backward()
        window.losses.append(loss.detach())
        guard.check(optimizer, window, gradient_norm(list(net.parameters())), scaled=False)
        optimizer.step()

    step(1, 1.0)
    before = net.weight.detach().clone()
    step(2, 1.0)
    assert not torch.equal(net.weight, before)
    before = net.weight.detach().clone()
    step(3, float("nan"))
    assert torch.equal(net.weight, before)
    with pytest.raises(NotFinite, match="the loss is nan") as raised:
        step(4, 1.0)
    assert raised.value.window.step == 3
    assert torch.equal(net.weight, before)
    guard.settle()  # nothing is left to look at


def overflowed() -> tuple[torch.optim.Optimizer, Window, torch.Tensor]:
    """An optimiser, and a step whose loss is finite and whose gradient is not."""
    optimizer = create("sgd", [{"params": list(nn.Linear(2, 1).parameters())}], lr=0.1, weight_decay=0.0)
    window = Window({}, 0)
    window.losses.append(torch.tensor(1.0))
    return optimizer, window, torch.tensor(float("inf"))


def test_the_last_step_is_looked_at_when_a_run_ends(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Guard, "_can_wait", staticmethod(lambda optimizer, device: True))
    guard = Guard()
    guard.check(*overflowed(), scaled=False)
    with pytest.raises(NotFinite, match="the gradient is inf"):
        guard.settle()


def test_what_a_gradient_scaler_leaves_out_is_no_failure():
    guard = Guard()
    guard.check(*overflowed(), scaled=True)
    with pytest.raises(NotFinite, match="the gradient is inf"):
        guard.check(*overflowed(), scaled=False)


def test_what_a_method_remembers_is_found_after_it_was_moved():
    """As a move to CUDA does, another dtype puts other buffers in the place of the old ones."""
    backbone = backbones.create("resnet10_w16", image_size=16)
    method = methods.create("moco_v2", backbone, hidden=16, projection=8, queue=32)
    memory = memory_of(method)
    method.double()
    method.queue.keys.fill_(3)
    kept = Window(memory, 0).memory
    assert set(kept) == {"queue.keys", "queue.place"}
    assert kept["queue.keys"].dtype == torch.float64 and bool((kept["queue.keys"] == 3).all())
    method.queue.keys.fill_(4)
    assert bool((kept["queue.keys"] == 3).all())


def test_networks_draw_as_after_a_seed_by_torch_and_nothing_piles_up():
    torch.manual_seed(7)
    expected = torch.rand(3)
    waiting = len(torch.cuda._queued_calls)
    for _ in range(10):
        seed_networks(7)
    assert torch.equal(torch.rand(3), expected)
    assert len(torch.cuda._queued_calls) == waiting
