"""DINO against its equations: the expected numbers follow from the paper by hand, not from the code."""

from copy import deepcopy
from itertools import pairwise
from math import cos, log, pi
from typing import Any

import pytest
import timm
import torch
from torch import nn

from ownlatent import backbones
from ownlatent.errors import OwnlatentError
from ownlatent.methods.dino import DINO
from ownlatent.optim.create import create
from ownlatent.types import Views

RISING = {"warmup_temperature": 0.04, "teacher_temperature": 0.07, "warmup": 0.3}


def tiny_dino(seed: int = 0, **settings: Any) -> DINO:
    """One convolution with BatchNorm as the backbone, and a narrow head."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    backbone = backbones.create(net, channels=3, image_size=8)
    return DINO(backbone, **{"hidden": 16, "bottleneck": 4, "prototypes": 6, **settings})


def with_other_teacher(method: DINO, seed: int = 7) -> DINO:
    """Weights that let images differ, others in the teacher: at the start both coincide, which would hide a mix-up."""
    generator = torch.Generator().manual_seed(seed)
    for network in (method.projector, method.target):
        for parameter in network.parameters():
            parameter.data.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return method


def some_views(small: int = 2, batch: int = 6, seed: int = 1, side: int = 8) -> Views:
    """Two large views and small ones of half the side, all of different mean and spread."""
    generator = torch.Generator().manual_seed(seed)
    sides = [side, side] + [side // 2] * small
    return [(n + 1) * torch.randn((batch, 3, s, s), generator=generator) + n / 2 for n, s in enumerate(sides)]


def loss_of(student: list[torch.Tensor], teacher: list[torch.Tensor], s: float, t: float) -> float:
    """Equations 1 to 3 in double precision: student's logits per view, the large views' centred teacher logits."""
    given = [(g.double() / s).log_softmax(-1) for g in student]
    wanted = [(g.double() / t).softmax(-1) for g in teacher]
    pairs = [-(wanted[i] * given[j]).sum(-1).mean() for i in range(2) for j in range(len(given)) if i != j]
    return torch.stack(pairs).mean().item()


def expected_loss(method: DINO, views: Views, s: float = 0.1, t: float = 0.04) -> float:
    """The loss that a method's next forward pass must have, from its networks one by one; it is left as it was."""
    copy = deepcopy(method)
    student = [copy.prototypes(copy.projector(copy.backbone(view))) for view in views]
    return loss_of(student, [copy.target(view) - copy.center.value for view in views[:2]], s, t)


def backward(method: DINO, progress: float, optimizer: torch.optim.Optimizer, seed: int = 1) -> None:
    """One whole step, in the order of training."""
    optimizer.zero_grad()
    method(some_views(seed=seed)).loss.backward()
    method.before_step(progress)
    optimizer.step()
    method.after_step(progress)


# --- forward: pairs, passes, precision ------------------------------------------------------------


@pytest.mark.parametrize("small", [0, 3])
def test_method_pairs_every_view_with_the_other_large_views(small: int):
    method, views = with_other_teacher(tiny_dino()), some_views(small)
    method(some_views(small, seed=5))  # a centre that is not 0
    expected = expected_loss(method, views)
    crossed = expected_loss(method, [views[1], views[0], *views[2:]])
    assert crossed == pytest.approx(expected, abs=1e-6)  # the large views are equals
    copy = deepcopy(method)
    copy.center.value.zero_()
    assert abs(expected_loss(copy, views) - expected) > 1e-3  # the centre matters
    copy = deepcopy(method)
    with torch.no_grad():
        copy.target.update(copy.backbone, copy.projector, copy.prototypes, tau=0.0)
    assert abs(expected_loss(copy, views) - expected) > 1e-3  # so does who teaches
    assert method(views).loss.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("settings", [{"student_temperature": 0.25}, {"teacher_temperature": 0.06, "warmup": 0.0}])
def test_temperatures_are_those_asked_for(settings: dict[str, float]):
    method, views = with_other_teacher(tiny_dino(**settings)), some_views()
    expected = expected_loss(
        method, views, settings.get("student_temperature", 0.1), settings.get("teacher_temperature", 0.04)
    )
    assert abs(expected - expected_loss(method, views)) > 1e-3
    assert method(views).loss.item() == pytest.approx(expected, abs=1e-5)


def test_student_sees_every_view_and_the_teacher_the_large_ones_each_in_a_pass_of_its_own():
    method, views = tiny_dino(), some_views(3)
    for network, expected in ((method.backbone, views), (method.target.net[0], views[:2])):
        seen: list[torch.Tensor] = []
        handle = network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].clone()))
        method(views)
        handle.remove()
        assert len(seen) == len(expected)
        assert all(torch.equal(a, b) for a, b in zip(seen, expected, strict=True))


def test_batchnorm_statistics_are_per_view():
    """The running mean moves once per view, by a tenth towards each view's own mean."""
    method, views = tiny_dino(), some_views()
    convolution, norm = method.backbone.net[0], method.backbone.net[1]
    expected = torch.zeros(8)
    for view in views:
        expected = 0.9 * expected + 0.1 * convolution(view).mean((0, 2, 3)).detach()
    method(views)
    torch.testing.assert_close(norm.running_mean, expected)
    assert norm.num_batches_tracked == 4
    assert method.target.net[0].net[1].num_batches_tracked == 2


def test_embeddings_are_the_projections_of_the_first_view_before_the_prototypes():
    method, views = with_other_teacher(tiny_dino()), some_views()
    copy = deepcopy(method)
    output = method(views)
    torch.testing.assert_close(output.embeddings, copy.projector(copy.backbone(views[0])).detach())
    assert not output.embeddings.requires_grad
    assert set(output.terms) == {"entropy", "single_entropy", "kl"}
    assert not any(term.requires_grad for term in output.terms.values())
    assert 0 <= output.terms["entropy"] <= log(6) + 1e-6


def test_loss_is_computed_in_float32_under_autocast():
    """What the networks give may be rounded; the temperatures, the centre and the softmax after it may not.

    Quotients of up to 10 in bfloat16 err by up to 2^-6, which no mean over the few images makes less than 1e-4.
    """
    method, views = with_other_teacher(tiny_dino(prototypes=64)), some_views()
    student: list[torch.Tensor] = []
    teacher: list[torch.Tensor] = []
    method.prototypes.register_forward_hook(lambda *a: student.append(a[2].detach()))
    method.target.register_forward_hook(lambda *a: teacher.append(a[2]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(views).loss
    assert loss.dtype == torch.float32 and method.center.value.dtype == torch.float32
    assert loss.item() == pytest.approx(loss_of(student, teacher, 0.1, 0.04), abs=1e-5)
    mean = torch.cat(teacher).float().mean(0)
    torch.testing.assert_close(method.center.value, 0.1 * mean, atol=1e-7, rtol=1e-5)


def test_a_single_view_is_refused_and_any_number_from_two_is_taken():
    with pytest.raises(OwnlatentError, match="at least 2"):
        tiny_dino()(some_views()[:1])
    assert all(tiny_dino()(some_views(small)).loss.isfinite() for small in (0, 1, 8))


# --- the centre ----------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.9, 0.5])
def test_center_after_n_batches_of_one_mean(momentum: float):
    """c_n = (1 - m^n) times the mean of the teacher's raw logits over both large views, and over no small one."""
    method, views = with_other_teacher(tiny_dino(center_momentum=momentum)), some_views()
    copy = deepcopy(method)
    mean = torch.cat([copy.target(view) for view in views[:2]]).mean(0)
    assert (mean - copy.target(views[0]).mean(0)).abs().max() > 1e-3  # one view alone would show
    for n in range(1, 6):
        method(views)
        torch.testing.assert_close(method.center.value, (1 - momentum**n) * mean, atol=1e-6, rtol=1e-5)


def test_center_is_used_before_it_observes():
    """The loss of a batch knows the batches before it alone: the first is centred by 0."""
    method, views = with_other_teacher(tiny_dino(center_momentum=0.0)), some_views()
    first = expected_loss(method, views)
    assert method(views).loss.item() == pytest.approx(first, abs=1e-5)
    second = expected_loss(method, views)
    assert abs(second - first) > 1e-2
    assert method(views).loss.item() == pytest.approx(second, abs=1e-5)


def test_momentum_of_one_is_without_centring():
    method = tiny_dino(center_momentum=1.0)
    for seed in range(3):
        method(some_views(seed=seed))
    assert torch.equal(method.center.value, torch.zeros(6))


# --- the teacher ----------------------------------------------------------------------------------


def student_parameters(method: DINO) -> list[torch.Tensor]:
    return [*method.backbone.parameters(), *method.projector.parameters(), *method.prototypes.parameters()]


def test_teacher_starts_as_the_student_and_gets_no_gradient():
    method = tiny_dino()
    pairs = zip(method.target.parameters(), student_parameters(method), strict=True)
    assert all(torch.equal(t, s) for t, s in pairs)
    method(some_views()).loss.backward()
    groups = method.param_groups()
    optimised = {id(p) for group in groups for p in group["params"]}
    assert all(p.grad is None and not p.requires_grad for p in method.target.parameters())
    assert optimised == {id(p) for p in student_parameters(method)}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student_parameters(method))
    decayed = {id(p) for group in groups if group["decay"] for p in group["params"]}
    assert id(method.prototypes.weight) in decayed and id(method.projector[0].bias) not in decayed


def test_teacher_follows_by_the_schedule_after_the_step_alone():
    """xi <- tau xi + (1 - tau) theta with tau = 1 - (1 - tau_base)(cos(pi k / K) + 1) / 2; statistics are its own."""
    method = with_other_teacher(tiny_dino(tau=0.9))
    before, theta = [p.clone() for p in method.target.parameters()], student_parameters(method)
    for seed in range(2):
        method(some_views(seed=seed)).loss.backward()
    method.before_step(0.25)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), before, strict=True))
    buffers = deepcopy(dict(method.target.named_buffers()))
    method.after_step(0.25)
    tau = 1 - 0.1 * (cos(pi / 4) + 1) / 2
    expected = [tau * old + (1 - tau) * new for old, new in zip(before, theta, strict=True)]
    torch.testing.assert_close(list(method.target.parameters()), expected)
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in method.target.named_buffers())


def test_schedule_of_tau():
    method = tiny_dino(tau=0.996)
    taus = [method.scheduled(k / 100)["tau"] for k in range(101)]
    assert (taus[0], taus[50], taus[100]) == (pytest.approx(0.996, abs=1e-15), pytest.approx(0.998, abs=1e-15), 1)
    assert all(later > earlier for earlier, later in pairwise(taus))


def test_tau_one_keeps_the_teacher_bit_for_bit():
    method = tiny_dino(tau=1.0, freeze=0.0)
    before = [p.clone() for p in method.target.parameters()]
    optimizer = create("sgd", method.param_groups(), lr=0.1, weight_decay=0.0)
    for step in range(4):
        backward(method, step / 4, optimizer, seed=step)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), before, strict=True))
    assert not any(torch.equal(p, q) for p, q in zip(student_parameters(method), before, strict=True) if p.ndim > 1)


# --- the teacher's temperature --------------------------------------------------------------------


def test_schedule_of_the_teachers_temperature():
    """Linear from 0.04 to 0.07 over the first 30 of 100 epochs, then constant."""
    method = tiny_dino(**RISING)
    for progress, expected in [(0, 0.04), (0.1, 0.05), (0.15, 0.055), (0.3, 0.07), (0.6, 0.07), (1, 0.07)]:
        assert method.scheduled(progress)["teacher_temperature"] == pytest.approx(expected, abs=1e-12)
    constant = tiny_dino(warmup_temperature=0.04, teacher_temperature=0.07, warmup=0.0)
    assert constant.scheduled(0.0)["teacher_temperature"] == pytest.approx(0.07, abs=1e-12)


def test_teachers_temperature_is_that_of_the_last_step():
    method, views = with_other_teacher(tiny_dino(**RISING)), some_views()
    for progress, temperature in [(None, 0.04), (0.15, 0.055), (0.5, 0.07)]:
        if progress is not None:
            method.after_step(progress)
        expected = expected_loss(method, views, t=temperature)
        others = [expected_loss(method, views, t=t) for t in (0.04, 0.055, 0.07) if t != temperature]
        assert min(abs(expected - other) for other in others) > 1e-3
        assert method(views).loss.item() == pytest.approx(expected, abs=1e-5)


def test_temperature_and_center_are_restored_from_the_state_dict():
    first, second = with_other_teacher(tiny_dino(**RISING)), tiny_dino(seed=3, **RISING)
    first(some_views(seed=4))
    first.after_step(0.15)
    second.load_state_dict(first.state_dict())
    views = some_views()
    expected = expected_loss(first, views, t=0.055)
    assert second(views).loss.item() == pytest.approx(expected, abs=1e-5)
    assert first(views).loss.item() == pytest.approx(expected, abs=1e-5)


# --- before the step ------------------------------------------------------------------------------


def test_prototypes_do_not_move_in_the_first_share_of_the_run():
    """Without a gradient the optimiser leaves them alone, decay and running moments included."""
    method = tiny_dino(freeze=0.02)
    optimizer = create("adamw", method.param_groups(), lr=0.01, weight_decay=0.5)
    before, head = method.prototypes.weight.detach().clone(), method.projector[0].weight.detach().clone()
    for progress in (0.0, 0.01, 0.0199):
        backward(method, progress, optimizer)
        assert torch.equal(method.prototypes.weight, before)
        assert method.prototypes.weight.grad is None and method.prototypes.weight not in optimizer.state
    assert not torch.equal(method.projector[0].weight, head)
    backward(method, 0.02, optimizer)
    assert not torch.equal(method.prototypes.weight, before)
    at_once = tiny_dino(freeze=0.0)
    backward(at_once, 0.0, create("adamw", at_once.param_groups(), lr=0.01, weight_decay=0.5))
    assert not torch.equal(at_once.prototypes.weight, before)


@pytest.mark.parametrize("clip", [3.0, 0.5, 0.0])
def test_gradients_are_clipped_one_tensor_at_a_time(clip: float):
    """A tensor above the limit keeps its direction and gets that norm; one below is untouched, though all together
    are far above. 0 is no limit."""
    method = tiny_dino(clip=clip, freeze=0.0)
    generator = torch.Generator().manual_seed(0)
    norms = [0.1, 2.9, 3.2, 400.0]
    given = []
    for n, parameter in enumerate(student_parameters(method)):
        direction = torch.randn(parameter.shape, generator=generator)
        parameter.grad = norms[n % 4] * direction / direction.norm()
        given.append(parameter.grad.clone())
    method.before_step(0.5)
    for n, (parameter, before) in enumerate(zip(student_parameters(method), given, strict=True)):
        assert parameter.grad is not None
        if clip and norms[n % 4] > clip:
            torch.testing.assert_close(parameter.grad, before * clip / norms[n % 4], atol=0, rtol=1e-5)
        else:
            assert torch.equal(parameter.grad, before)


# --- Vision Transformers --------------------------------------------------------------------------


def tiny_vit(**keywords: float) -> DINO:
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 3, "num_heads": 2}
    net = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, **sizes, **keywords)
    backbone = backbones.create(net, channels=3, image_size=32)
    return DINO(backbone, hidden=16, bottleneck=4, prototypes=6, freeze=0.0)


def test_vision_transformer_learns_from_views_of_two_sizes():
    """Small views have fewer patches: the position embedding is interpolated, the gradient reaches all of it."""
    method, views = with_other_teacher(tiny_vit()), some_views(3, side=32)
    assert [view.shape[-1] for view in views] == [32, 32, 16, 16, 16]
    expected = expected_loss(method, views)
    assert abs(expected - expected_loss(method, views[:2])) > 1e-3  # the small views count
    output = method(views)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    output.loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters() if p.requires_grad)
    optimizer = create("adamw", method.param_groups(), lr=1e-3, weight_decay=0.04)
    before = [p.detach().clone() for p in method.parameters()]
    method.before_step(0.5)
    optimizer.step()
    method.after_step(0.5)
    assert not any(torch.equal(p, q) for p, q in zip(method.parameters(), before, strict=True))


def test_student_drops_paths_and_the_teacher_none():
    method = tiny_vit(drop_path_rate=0.9).train()
    views = some_views(0, side=32)
    assert not torch.equal(method.backbone(views[0]), method.backbone(views[0]))
    assert torch.equal(method.target(views[0]), method.target(views[0]))
