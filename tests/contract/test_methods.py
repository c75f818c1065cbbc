"""What every method promises; a new file in methods/ is tested here the moment it exists."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods._base import Method
from ownlatent.methods._card import card
from ownlatent.optim.create import create
from ownlatent.types import Output

every_method = pytest.mark.parametrize("name", methods.names())
with_target = pytest.mark.parametrize("name", [n for n in methods.names() if card(n).needs["momentum"] == "yes"])

SMALL = {
    "hidden": 32,
    "projection": 16,
    "bottleneck": 8,
    "prototypes": 24,
    "queue": 32,
    "classes": 4,
    "clip": 0.1,  # so small that it acts
}
"""Settings that make a method small, given where the method has them."""


def build(name: str, seed: int = 0, **settings: Any) -> Method:
    torch.manual_seed(seed)
    backbone = backbones.create("resnet10_w16", channels=3, image_size=8)
    known = methods.settings(name)
    chosen = {**{key: value for key, value in SMALL.items() if key in known}, **settings}
    return methods.create(name, backbone, **chosen)


def inputs_for(method: Method, seed: int = 0, batch: int = 8) -> tuple[Any, ...]:
    """Views, as many as the method takes and two more where it takes any number, and labels where it uses them."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [8] * (method.max_views or 2) + [6, 6] * (method.max_views is None)
    views = [torch.randn((batch, 3, size, size), generator=generator) for size in sizes]
    labels = torch.randint(SMALL["classes"], (batch,), generator=generator)
    return (views, labels) if method.uses_labels else (views,)


def shuffled(inputs: tuple[Any, ...], order: torch.Tensor) -> tuple[Any, ...]:
    views, *labels = inputs
    return ([view[order] for view in views], *(label[order] for label in labels))


class Loop:
    """Optimiser steps as in training."""

    def __init__(self, method: Method, optimizer: str = "sgd"):
        self.method = method
        self.optimizer = create(optimizer, method.param_groups(), lr=0.05, weight_decay=1e-4)

    def step(self, number: int, parts: int = 1) -> float:
        """Step `number` of 20; the loss, as the mean over so many parts of the batch."""
        progress, losses = number / 20, []
        self.optimizer.zero_grad()
        for part in range(parts):
            torch.manual_seed(parts * number + part)  # as the engine does, for what is drawn at random inside
            output = self.method(*inputs_for(self.method, seed=parts * number + part))
            (output.loss / parts).backward()
            losses.append(output.loss.item())
        self.method.before_step(progress)
        self.optimizer.step()
        self.method.after_step(progress)
        return sum(losses) / parts

    def run(self, first: int, last: int) -> list[float]:
        return [self.step(number) for number in range(first, last)]


def parameters_of(module: nn.Module | None) -> list[torch.Tensor]:
    return [] if module is None else [value.detach().clone() for value in module.parameters()]


def same(first: nn.Module, second: nn.Module) -> bool:
    state = second.state_dict()
    return all(torch.equal(value, state[key]) for key, value in first.state_dict().items())


def test_every_file_is_a_method_and_every_method_a_file():
    files = {path.stem for path in Path(methods.__file__).parent.glob("*.py")}
    assert methods.names() == sorted(name for name in files if not name.startswith("_"))
    field = {"byol", "simsiam", "simclr", "moco_v2", "moco_v3", "barlow_twins", "vicreg", "directpred", "dino"}
    assert field | {"supervised", "random_target"} <= set(methods.names())


@every_method
def test_class_is_found_in_its_own_file(name: str):
    method = methods.get(name)
    assert issubclass(method, Method) and method is not Method
    assert method.__module__ == f"ownlatent.methods.{name}" and method.name == name
    assert method.min_batch >= 1 and 1 <= method.min_views <= (method.max_views or method.min_views)


@every_method
def test_what_it_says_of_its_needs_is_so(name: str):
    """The card in words, read without running the file, against the object."""
    method, needs = build(name), card(name).needs
    loop = Loop(method)
    before = parameters_of(getattr(method, "target", None))
    loop.run(0, 3)
    after = parameters_of(getattr(method, "target", None))
    moved = any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert (needs["momentum"] == "yes") == moved
    assert (needs["predictor"] == "yes") == hasattr(method, "predictor")
    assert ("two networks" in needs["memory"]) == hasattr(method, "target")
    assert ("queue" in needs["negatives"]) == hasattr(method, "queue")


@every_method
def test_output_is_a_finite_scalar_loss_and_detached_embeddings(name: str):
    method = build(name)
    output = method(*inputs_for(method))
    assert isinstance(output, Output)
    assert output.loss.shape == () and output.loss.isfinite() and output.loss.requires_grad
    assert output.embeddings.ndim == 2 and len(output.embeddings) == 8
    assert output.embeddings.isfinite().all() and not output.embeddings.requires_grad
    for term in output.terms.values():
        assert term.shape == () and not term.requires_grad and term.isfinite()


@every_method
def test_the_smallest_batch_it_allows_works(name: str):
    method = build(name)
    method.check_batch(8)
    assert method(*inputs_for(method, batch=method.min_batch)).loss.isfinite()


@every_method
def test_too_few_images_are_refused_in_one_sentence(name: str):
    method = build(name)
    with pytest.raises(OwnlatentError, match=f"{name}.* at least {method.min_batch} images.*not 0: raise --batch-size"):
        method.check_batch(0)


@every_method
def test_views_that_do_not_suit_are_refused_in_one_sentence(name: str):
    method = build(name)
    views, *labels = inputs_for(method)
    with pytest.raises(OwnlatentError, match=f"{name} .*at least {method.min_views}.*not {method.min_views - 1}"):
        method(views[: method.min_views - 1], *labels)
    if method.max_views is not None:
        with pytest.raises(OwnlatentError, match=f"{name} takes {method.max_views} views.*, not 3: .*dino"):
            method([*views, views[0]], *labels)


@every_method
def test_gradient_reaches_the_whole_backbone_and_no_frozen_parameter(name: str):
    """A target network, where there is one, is frozen: no gradient may ever reach it."""
    method = build(name)
    method(*inputs_for(method)).loss.backward()
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
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_a_step_after_save_and_load_is_the_step_without(name: str, optimizer: str, tmp_path: Path):
    """All that training needs is in the state dicts, and they hold nothing but tensors and numbers."""
    first = Loop(build(name, seed=0), optimizer)
    first.run(0, 3)
    torch.save((first.method.state_dict(), first.optimizer.state_dict()), tmp_path / "state")
    state, optimizer_state = torch.load(tmp_path / "state", weights_only=True)
    second = Loop(build(name, seed=1), optimizer)
    second.method.load_state_dict(state)
    second.optimizer.load_state_dict(optimizer_state)
    assert same(first.method, second.method)
    assert first.run(3, 6) == second.run(3, 6)
    assert same(first.method, second.method)


@every_method
def test_order_of_the_batch_does_not_matter(name: str):
    method = build(name)
    inputs = inputs_for(method)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(5))
    other = deepcopy(method)(*shuffled(inputs, order))
    output = method(*inputs)
    assert output.loss.item() == pytest.approx(other.loss.item(), rel=1e-4, abs=1e-5)
    torch.testing.assert_close(output.embeddings[order], other.embeddings, rtol=1e-3, atol=1e-4)


@every_method
def test_twenty_steps_with_one_seed_give_identical_weights(name: str):
    first, second = Loop(build(name)), Loop(build(name))
    start = deepcopy(first.method.backbone)
    assert first.run(0, 20) == second.run(0, 20)
    assert same(first.method, second.method)
    assert not same(first.method.backbone, start)


@with_target
def test_accumulation_moves_the_target_once(name: str):
    """Two passes for one optimiser step: the target stays where it was until after the step, and moves once."""
    method = build(name)
    loop, moves = Loop(method), []
    update = method.target.update
    method.target.update = lambda *sources, tau: (moves.append(tau), update(*sources, tau=tau))[1]
    before = parameters_of(method.target)
    for part in range(2):
        method(*inputs_for(method, seed=part)).loss.backward()
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), before, strict=True)) and not moves
    loop.step(0, parts=2)
    assert moves == [pytest.approx(method.scheduled(0.0)["tau"])]


@every_method
def test_bfloat16_agrees_with_float32(name: str):
    """Eight bits of mantissa: a few rounding errors of 2^-8 of the loss, which autocast returns in float32.

    Of a loss near 0 (SimSiam's is a mean of cosines) the same share of 1. 32 images: the correlations of 8 random
    ones hang on single roundings.
    """
    method = build(name)
    inputs = inputs_for(method, batch=32)
    expected = deepcopy(method)(*inputs).loss.item()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = method(*inputs)
    output.loss.backward()
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(expected, rel=4 * 2**-8, abs=4 * 2**-8)
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


@every_method
def test_heads_without_width_are_refused(name: str):
    usual = methods.settings(name)
    widths = [width for width in ("hidden", "projection", "bottleneck", "prototypes") if usual.get(width)]
    for width in widths:  # where 0 is usual it leaves the layer out
        with pytest.raises(OwnlatentError, match="at least 1"):
            build(name, **{width: 0})


def test_unknown_method_names_the_nearest():
    with pytest.raises(OwnlatentError, match=r"'boyl'.*byol"):
        methods.get("boyl")
