"""The fixed random target: BYOL with tau = 1 and a target of weights of its own."""

from copy import deepcopy
from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods.random_target import RandomTarget
from ownlatent.nn.norm import StandardizedLinear
from ownlatent.optim.create import create
from ownlatent.types import Views


def tiny_backbone(seed: int = 0) -> backbones.Backbone:
    """One convolution with BatchNorm."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return backbones.create(net, channels=3, image_size=8)


def tiny_method(seed: int = 0, **settings: Any) -> RandomTarget:
    return RandomTarget(tiny_backbone(seed), **{"hidden": 16, "projection": 4, **settings})


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def train(method: RandomTarget, steps: int, progress: float = 0.0, same: bool = False) -> list[float]:
    """Optimiser steps in the order of training, on the same two views or on new ones; the loss before each."""
    optimizer = create("sgd", method.param_groups(), lr=0.1, weight_decay=1e-4)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = method(two_views(seed=0 if same else step)).loss
        loss.backward()
        method.before_step(progress)
        optimizer.step()
        method.after_step(progress)
        losses.append(loss.item())
    return losses


def online_parameters(method: RandomTarget) -> list[torch.Tensor]:
    return [*method.backbone.parameters(), *method.projector.parameters()]


def slow_loss(prediction: list[list[float]], target: list[list[float]]) -> float:
    """The squared distance of the unit vectors, in Python's double precision."""
    total = 0.0
    for p, t in zip(prediction, target, strict=True):
        p_norm = sqrt(sum(x * x for x in p))
        t_norm = sqrt(sum(x * x for x in t))
        total += sum((x / p_norm - y / t_norm) ** 2 for x, y in zip(p, t, strict=True))
    return total / len(prediction)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),  # the prediction is the target
        ([[0.0, -1.0], [1.0, 0.0]], 4.0),  # orthogonal
        ([[-1.0, 0.0], [0.0, -1.0]], 8.0),  # opposite
    ],
)
def test_loss_of_known_angles_is_summed_over_both_directions(rotation: list[list[float]], expected: float):
    method = RandomTarget(backbones.create(nn.Flatten(), channels=2, image_size=1), hidden=2, projection=2)
    target = nn.Linear(2, 2, bias=False)
    target.weight.data = torch.tensor(rotation)
    method.projector, method.predictor = nn.Identity(), nn.Identity()
    method.target = nn.Sequential(nn.Flatten(), target)
    image = torch.randn((5, 2, 1, 1), generator=torch.Generator().manual_seed(0))
    assert method([image, 3 * image]).loss.item() == pytest.approx(expected, abs=1e-6)


def test_each_prediction_is_paired_with_the_target_of_the_other_view():
    """q(z1) with the target of view 2 and q(z2) with that of view 1: value, and gradient by another formula."""
    method, (view1, view2) = tiny_method(), two_views()
    copy = deepcopy(method)
    p1, p2 = (copy.predictor(copy.projector(copy.backbone(view))) for view in (view1, view2))
    t1, t2 = copy.target(view1), copy.target(view2)
    lists = [x.double().tolist() for x in (p1, p2, t1, t2)]
    expected = slow_loss(lists[0], lists[3]) + slow_loss(lists[1], lists[2])
    same_view = slow_loss(lists[0], lists[2]) + slow_loss(lists[1], lists[3])
    assert abs(expected - same_view) > 1e-2  # the example can tell the two apart
    output = method([view1, view2])
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    output.loss.backward()
    (4 - 2 * torch.cosine_similarity(p1, t2).mean() - 2 * torch.cosine_similarity(p2, t1).mean()).backward()
    for module, other in ((method.backbone, copy.backbone), (method.predictor, copy.predictor)):
        for ours, reference in zip(module.parameters(), other.parameters(), strict=True):
            assert ours.grad is not None
            torch.testing.assert_close(ours.grad, reference.grad, atol=1e-5, rtol=1e-4)


def test_loss_is_computed_in_float32_under_autocast():
    """The networks' outputs may be bfloat16; comparing them may not, which would err by about 1e-2."""
    method, views = tiny_method(projection=32), two_views()
    predicted: list[torch.Tensor] = []
    projected: dict[bool, torch.Tensor] = {}
    method.predictor.register_forward_hook(lambda *a: predicted.append(a[2].detach()))
    method.target.register_forward_hook(lambda *a: projected.update({torch.equal(a[1][0], views[0]): a[2]}))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(views).loss
    assert loss.dtype == torch.float32
    p1, p2 = (x.double().tolist() for x in predicted)
    t1, t2 = (projected[of_first].double().tolist() for of_first in (True, False))
    assert loss.item() == pytest.approx(slow_loss(p1, t2) + slow_loss(p2, t1), abs=1e-5)
    assert loss.item() != loss.bfloat16().item()  # so the example could have shown a rounding


# --- the target -----------------------------------------------------------------------------------


def test_no_parameter_of_the_target_ever_moves():
    """tau = 1: bit-identical after any number of steps, wherever in the run, though its statistics are its own."""
    method = tiny_method()
    before, online = [p.clone() for p in method.target.parameters()], [p.clone() for p in online_parameters(method)]
    for progress in (0.0, 0.5, 1.0):
        train(method, steps=2, progress=progress)
        assert method.scheduled(progress) == {"tau": 1.0}
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), before, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(online_parameters(method), online, strict=True) if p.ndim > 1)
    statistics = method.target.net[0].net[1]
    assert statistics.training and statistics.num_batches_tracked == 12
    assert not torch.equal(statistics.running_mean, method.backbone.net[1].running_mean)


def test_target_gets_no_gradient_and_is_not_optimised():
    method = tiny_method()
    method(two_views()).loss.backward()
    optimised = {id(p) for group in method.param_groups() for p in group["params"]}
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    trained = {id(p) for m in (method.backbone, method.projector, method.predictor) for p in m.parameters()}
    assert optimised == trained
    assert all(p.grad is not None for p in online_parameters(method))


def test_targets_weights_are_independent_of_the_online_ones():
    """A copy at the start would let the online network be right without learning; the same distribution is kept."""
    method = RandomTarget(backbones.create("resnet10_w16", image_size=8), hidden=64, projection=16)
    for target, online in zip(method.target.parameters(), online_parameters(method), strict=True):
        assert torch.equal(target.flatten().sort().values, online.detach().flatten().sort().values)
        if online.ndim > 1:  # of independent values the correlation has a standard deviation of 1 / sqrt(n)
            both = torch.stack([target.flatten(), online.detach().flatten()])
            assert both.corrcoef()[0, 1].abs() < 5 / sqrt(online.numel())
    norm = method.target.net[0].net[1]
    assert torch.equal(norm.weight, torch.ones_like(norm.weight)) and torch.equal(
        norm.bias, torch.zeros_like(norm.bias)
    )


def test_drawing_the_target_leaves_the_online_network_alone():
    """Backbone and heads are what the same seed gives without a target; another seed gives another target."""
    method, backbone = tiny_method(seed=3), tiny_backbone(seed=3)
    assert all(torch.equal(p, q) for p, q in zip(method.backbone.parameters(), backbone.parameters(), strict=True))
    again, other = tiny_method(seed=3), tiny_method(seed=4)
    targets = [list(m.target.parameters()) for m in (method, again, other)]
    assert all(torch.equal(p, q) for p, q in zip(targets[0], targets[1], strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(targets[0], targets[2], strict=True) if p.ndim > 1)


def test_target_is_part_of_the_state():
    """A resumed run predicts the same random network, not another."""
    first, second = tiny_method(seed=0), tiny_method(seed=1)
    assert abs(deepcopy(first)(two_views()).loss.item() - deepcopy(second)(two_views()).loss.item()) > 1e-3
    second.load_state_dict(first.state_dict())
    assert first(two_views()).loss.item() == second(two_views()).loss.item()


def test_target_normalises_with_its_current_batch():
    """In training the running statistics must not matter to what is predicted."""
    method = tiny_method()
    other = deepcopy(method)
    for name, buffer in other.target.named_buffers():
        if "running" in name:
            buffer.add_(5.0)
    assert method(two_views()).loss.item() == other(two_views()).loss.item()


def test_loss_falls_well_below_its_start_without_collapse():
    """What a random network makes of two fixed views can be learned, and its outputs differ: so must the predictions.

    The target's unit vectors have a spread; a prediction within 0.2 of them (squared, both views) has one too.
    """
    method = tiny_method(hidden=32)
    losses = train(method, steps=150, same=True)
    assert losses[0] > 1
    assert losses[-1] < 0.2
    predicted = method.predictor(method.projector(method.backbone(two_views(seed=0)[0])))
    spread = nn.functional.normalize(predicted, dim=1).std(0).mean()
    aimed_at = nn.functional.normalize(method.target(two_views(seed=0)[1]), dim=1).std(0).mean()
    assert spread > aimed_at / 2 > 0.05


# --- forward --------------------------------------------------------------------------------------


def test_each_view_is_its_own_forward_pass():
    """The backbone, online and target, is called once per view with that view alone."""
    method, views = tiny_method(), two_views()
    for network in (method.backbone, method.target.net[0]):
        seen: list[torch.Tensor] = []
        handle = network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].clone()))
        method(views)
        handle.remove()
        assert len(seen) == 2
        assert {0, 1} == {n for x in seen for n, view in enumerate(views) if torch.equal(x, view)}


def test_batchnorm_statistics_are_per_view():
    """The running mean moves twice per step, by a tenth towards each view's own mean."""
    method, views = tiny_method(), two_views()
    convolution, norm = method.backbone.net[0], method.backbone.net[1]
    mean1, mean2 = (convolution(view).mean((0, 2, 3)).detach() for view in views)
    method(views)
    torch.testing.assert_close(norm.running_mean, 0.9 * 0.1 * mean1 + 0.1 * mean2)


def test_embeddings_are_the_projections_of_the_first_view():
    method, views = tiny_method(), two_views()
    copy = deepcopy(method)
    output = method(views)
    torch.testing.assert_close(output.embeddings, copy.projector(copy.backbone(views[0])).detach())
    assert not output.embeddings.requires_grad and output.terms == {}


@pytest.mark.parametrize("count", [1, 3])
def test_other_than_two_views_are_refused(count: int):
    with pytest.raises(OwnlatentError, match="views"):
        tiny_method()([*two_views(), *two_views()][:count])


# --- architecture and settings --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "linear", "normalisation"),
    [
        ("batch", nn.Linear, nn.BatchNorm1d),
        ("group", StandardizedLinear, nn.GroupNorm),
        ("layer", nn.Linear, nn.LayerNorm),
        ("none", nn.Linear, nn.Identity),
    ],
)
def test_heads_are_byols(kind: str, linear: type, normalisation: type):
    """Linear with bias, normalisation, ReLU, Linear without bias; the predictor on the online branch only."""
    method = tiny_method(norm=kind)
    for head, inputs in ((method.projector, 8), (method.predictor, 4), (method.target.net[1], 8)):
        assert [type(layer) for layer in head] == [linear, normalisation, nn.ReLU, nn.Linear]
        assert head[0].weight.shape == (16, inputs) and head[0].bias is not None
        assert head[3].weight.shape == (4, 16) and head[3].bias is None
    assert len(method.target.net) == 2


def test_defaults_are_byols():
    assert methods.settings("random_target") == {"hidden": 4096, "projection": 256, "norm": "batch"}
    assert RandomTarget.min_batch == 2  # BatchNorm of one vector has no variance


@pytest.mark.parametrize(
    ("word", "settings"), [("0", {"hidden": 0}), ("0", {"projection": 0}), ("batch", {"norm": "bach"})]
)
def test_settings_out_of_range_are_refused(word: str, settings: dict[str, Any]):
    with pytest.raises(OwnlatentError, match=word):
        tiny_method(**settings)


def test_recipes_have_byols_views_and_widths():
    """So that the two differ in the target alone; there is no published row."""
    ours, byols = methods.recipes("random_target"), methods.recipes("byol")
    assert methods.named_recipes("random_target") == {} and {"default", "small", "processor"} <= set(ours)
    for row, settings in ours.items():
        compared = {name: value for name, value in settings.items() if not name.startswith("optim.")}
        assert compared == {name: byols[row][name] for name in compared}
        assert {name for name in byols[row] if name.startswith(("method.", "views"))} - set(compared) <= {"method.tau"}
