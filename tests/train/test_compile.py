"""When the networks are compiled, and that this changes nothing but the speed."""

from functools import partialmethod

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.backbones import Backbone
from ownlatent.train.budget import Budget
from ownlatent.train.compile import choose_compile, compiled


def method_of(seed: int = 0) -> methods._base.Method:
    torch.manual_seed(seed)
    return methods.create("byol", backbones.create("resnet10_w16", image_size=16), hidden=16, projection=8)


@pytest.mark.parametrize(("wanted", "chosen"), [("on", True), ("off", False), ("auto", False)])
def test_a_processor_compiles_when_asked_and_says_why(wanted: str, chosen: bool):
    backbone = backbones.create("resnet10_w16", image_size=16)
    found, why = choose_compile(wanted, backbone, (4, 3, 16, 16), torch.device("cpu"), "32", Budget(steps=10))
    assert found is chosen
    assert why == ("as asked" if wanted != "auto" else "compiling gains a few percent on cpu and takes half a minute")


def test_both_networks_run_compiled_within_and_plain_afterwards(monkeypatch: pytest.MonkeyPatch):
    # The tracing alone, without a C++ compiler.
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend="eager"))
    method, views = method_of(), [torch.randn(4, 3, 16, 16) for _ in range(2)]
    names = list(method.state_dict())
    nets = [part.net for part in method.modules() if isinstance(part, Backbone)]
    assert len(nets) == 2
    with compiled(method, True):
        assert all(net._compiled_call_impl is not None for net in nets)
        assert list(method.state_dict()) == names
        loss = method(views).loss
        loss.backward()
    assert all(net._compiled_call_impl is None for net in nets)
    plain = method_of()
    expected = plain(views).loss
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for p, q in zip(method.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)


def test_nothing_is_compiled_unless_wanted():
    method = method_of()
    with compiled(method, False):
        assert all(getattr(part, "_compiled_call_impl", None) is None for part in method.modules())
