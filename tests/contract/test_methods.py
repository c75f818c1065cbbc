"""What every method promises; a new file in methods/ is tested here the moment it exists."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods._base import Method
from ownlatent.optim.create import create
from ownlatent.types import Output, Views

every_method = pytest.mark.parametrize("name", methods.names())

SMALL = {"hidden": 32, "projection": 16}
"""Settings that make a method small, given where the method has them."""


def build(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    backbone = backbones.create("resnet10_w16", channels=3, image_size=8)
    known = methods.settings(name)
    return methods.create(name, backbone, **{key: value for key, value in SMALL.items() if key in known})


def views_for(method: Method, seed: int = 0, batch: int = 8) -> Views:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn((batch, 3, 8, 8), generator=generator) for _ in range(method.num_views)]


def train(method: Method, steps: int, first: int = 0) -> list[float]:
    """Optimiser steps as in training; the loss before each."""
    optimizer = create("sgd", method.param_groups(), lr=0.05, weight_decay=1e-4)
    losses = []
    for step in range(first, first + steps):
        output = method(views_for(method, seed=step))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        method.after_step(step / 20)
        losses.append(output.loss.item())
    return losses


def test_every_file_is_a_method_and_every_method_a_file():
    files = {path.stem for path in Path(methods.__file__).parent.glob("*.py")}
    assert methods.names() == sorted(name for name in files if not name.startswith("_"))
    assert "byol" in methods.names()


@every_method
def test_class_is_found_in_its_own_file_and_documented(name: str):
    method = methods.get(name)
    assert issubclass(method, Method) and method is not Method
    assert method.__module__ == f"ownlatent.methods.{name}"
    assert method.__doc__ and "Equation" in method.__doc__
    assert method.min_batch >= 1 and method.num_views >= 1


@every_method
def test_output_is_a_finite_scalar_loss_and_detached_embeddings(name: str):
    method = build(name)
    output = method(views_for(method))
    assert isinstance(output, Output)
    assert output.loss.shape == () and output.loss.isfinite() and output.loss.requires_grad
    assert output.embeddings.ndim == 2 and len(output.embeddings) == 8
    assert output.embeddings.isfinite().all() and not output.embeddings.requires_grad
    for term in output.terms.values():
        assert term.shape == () and not term.requires_grad


@every_method
def test_the_smallest_batch_it_allows_works(name: str):
    method = build(name)
    assert method(views_for(method, batch=method.min_batch)).loss.isfinite()


@every_method
def test_gradient_reaches_the_whole_backbone_and_no_frozen_parameter(name: str):
    """A target network, where there is one, is frozen: no gradient may ever reach it."""
    method = build(name)
    method(views_for(method)).loss.backward()
    for parameter_name, parameter in method.backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.abs().sum() > 0, parameter_name
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)
    if hasattr(method, "target"):
        assert not any(p.requires_grad for p in method.target.parameters())


@every_method
def test_param_groups_hold_every_trainable_parameter_once(name: str):
    method = build(name)
    grouped = [id(p) for group in method.param_groups() for p in group["params"]]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == {id(p) for p in method.parameters() if p.requires_grad}


@every_method
def test_no_bias_and_no_norm_is_decayed(name: str):
    """Told by the module a parameter belongs to, not by its number of dimensions."""
    method = build(name)
    decayed = {id(p) for group in method.param_groups() if group["decay"] for p in group["params"]}
    norms = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    for module_name, module in method.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, norms) or "bias" in parameter_name:
                assert id(parameter) not in decayed, f"{module_name}.{parameter_name}"
            elif isinstance(module, nn.Linear | nn.Conv2d) and parameter.requires_grad:
                assert id(parameter) in decayed, f"{module_name}.{parameter_name}"


@every_method
def test_state_dict_round_trip_continues_identically(name: str):
    """All that training needs from a method is in its state dict."""
    first, second = build(name, seed=0), build(name, seed=1)
    train(first, steps=3)
    state = deepcopy(first.state_dict())
    second.load_state_dict(state)
    assert all(torch.equal(value, state[key]) for key, value in second.state_dict().items())
    assert train(first, steps=2, first=3) == train(second, steps=2, first=3)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@every_method
def test_order_of_the_batch_does_not_matter(name: str):
    method = build(name)
    views = views_for(method)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(5))
    shuffled = deepcopy(method)([view[order] for view in views]).loss.item()
    assert method(views).loss.item() == pytest.approx(shuffled, rel=1e-4)


@every_method
def test_twenty_steps_with_one_seed_give_identical_weights(name: str):
    first, second = build(name), build(name)
    start = deepcopy(first.backbone.state_dict())
    losses = train(first, steps=20)
    assert losses == train(second, steps=20)
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())
    assert not all(torch.equal(value, start[key]) for key, value in first.backbone.state_dict().items())


@every_method
def test_bfloat16_agrees_with_float32(name: str):
    """Eight bits of mantissa: a few rounding errors of 2^-8 of the loss, which autocast returns in float32."""
    method = build(name)
    views = views_for(method)
    expected = deepcopy(method)(views).loss.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(views)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(expected, rel=4 * 2**-8)
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())


@every_method
def test_schedules_are_numbers_over_the_whole_run(name: str):
    method = build(name)
    for progress in (0.0, 0.25, 0.5, 1.0):
        assert all(isinstance(value, float) for value in method.scheduled(progress).values())


@every_method
def test_unknown_setting_names_the_nearest(name: str):
    backbone = backbones.create("resnet10_w16", channels=3, image_size=8)
    for setting in methods.settings(name):
        with pytest.raises(OwnlatentError, match=f"nearest.* {setting}"):
            methods.create(name, backbone, **{setting + "x": 1})


def test_unknown_method_names_the_nearest():
    with pytest.raises(OwnlatentError, match=r"'boyl'.*byol"):
        methods.get("boyl")
