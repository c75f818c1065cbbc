"""BYOL against its equations: the expected numbers follow from the paper by hand, not from the code."""

from copy import deepcopy
from itertools import pairwise
from math import log, sqrt

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.losses import regression_loss
from ownlatent.methods.byol import BYOL
from ownlatent.types import Views


def tiny_byol(tau: float = 0.99, seed: int = 0) -> BYOL:
    """One convolution with BatchNorm as the backbone, and narrow heads."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return BYOL(backbones.create(net, channels=3, image_size=8), hidden=16, projection=4, tau=tau)


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def vectors(batch: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((batch, width), generator=torch.Generator().manual_seed(seed))


def train(method: BYOL, steps: int, progress: float = 0.0, lr: float = 0.5) -> None:
    """Plain gradient steps, each followed by the method's own update."""
    optimizer = torch.optim.SGD([p for group in method.param_groups() for p in group["params"]], lr=lr)
    for step in range(steps):
        optimizer.zero_grad()
        method(two_views(seed=step)).loss.backward()
        optimizer.step()
        method.after_step(progress)


def online_parameters(method: BYOL) -> list[torch.Tensor]:
    """What the target follows, in its order."""
    return [*method.backbone.parameters(), *method.projector.parameters()]


def slow_loss(prediction: list[list[float]], target: list[list[float]]) -> float:
    """Equation 2 word by word, in Python's double precision: the squared distance of the unit vectors."""
    total = 0.0
    for p, t in zip(prediction, target, strict=True):
        p_norm = sqrt(sum(x * x for x in p))
        t_norm = sqrt(sum(x * x for x in t))
        total += sum((x / p_norm - y / t_norm) ** 2 for x, y in zip(p, t, strict=True))
    return total / len(prediction)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rotation", "per_direction"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),  # the prediction is the target
        ([[0.0, -1.0], [1.0, 0.0]], 2.0),  # orthogonal
        ([[-1.0, 0.0], [0.0, -1.0]], 4.0),  # opposite
    ],
)
def test_loss_of_known_angles_and_its_sum_over_both_directions(rotation: list[list[float]], per_direction: float):
    """0, 2, 4 for one direction and, because BYOL sums the directions, 0, 4, 8 for the method."""
    x = vectors(5, 2)
    target = nn.Linear(2, 2, bias=False)
    target.weight.data = torch.tensor(rotation)
    assert regression_loss(x, target(x)).item() == pytest.approx(per_direction, abs=1e-6)

    backbone = backbones.create(nn.Flatten(), channels=2, image_size=1)
    method = BYOL(backbone, hidden=2, projection=2)
    method.projector, method.predictor, method.target = (
        nn.Identity(),
        nn.Identity(),
        nn.Sequential(nn.Flatten(), target),
    )
    image = x.view(5, 2, 1, 1)
    assert method([image, 3 * image]).loss.item() == pytest.approx(2 * per_direction, abs=1e-6)


def test_loss_of_independent_random_directions_is_two():
    """The cosine of random directions in d dimensions has mean 0 and standard deviation 1 / sqrt(d)."""
    n, d = 20_000, 64
    error = 2 / sqrt(d) / sqrt(n)
    assert regression_loss(vectors(n, d, 0), vectors(n, d, 1)).item() == pytest.approx(2, abs=5 * error)


def test_loss_stays_in_its_range():
    """[0, 4] per direction whatever the scale and width, up to float32's rounding of a cosine of one."""
    for seed in range(100):
        scale = 10.0 ** (seed % 9 - 4)
        p, t = scale * vectors(1, 1 + seed % 5, seed), vectors(1, 1 + seed % 5, seed + 1000)
        assert -1e-6 <= regression_loss(p, t).item() <= 4 + 1e-6
    losses = [tiny_byol(seed=seed)(two_views(seed=seed)).loss.item() for seed in range(5)]
    assert all(0 <= loss <= 8 for loss in losses)


def test_loss_does_not_depend_on_scale():
    p, t = vectors(7, 5, 0), vectors(7, 5, 1)
    expected = regression_loss(p, t).item()
    for a, b in [(1e-3, 1.0), (1e3, 1e-3), (0.37, 19.0)]:
        assert regression_loss(a * p, b * t).item() == pytest.approx(expected, abs=1e-6)
    rows = torch.tensor([0.01, 0.1, 1.0, 10.0, 100.0, 3.0, 0.3]).unsqueeze(1)
    assert regression_loss(rows * p, t / rows).item() == pytest.approx(expected, abs=1e-6)


def test_loss_of_a_zero_vector_is_finite():
    """The released code clips the squared norm at 1e-12: zero stays zero, at distance 1 from every unit vector."""
    p = torch.zeros(2, 3, requires_grad=True)
    loss = regression_loss(p, vectors(2, 3))
    loss.backward()
    assert loss.item() == pytest.approx(1, abs=1e-6)
    assert p.grad is not None and p.grad.isfinite().all()


def test_gradient_in_closed_form():
    """-(2 / |p|) (t - (p . t) p) with unit p and t: orthogonal to p, of length (2 / |p|) sin(angle)."""
    batch = 5
    p, t = (3 * vectors(batch, 6, 0)).requires_grad_(), vectors(batch, 6, 1)
    regression_loss(p, t).backward()
    assert p.grad is not None
    norm = p.detach().norm(dim=1, keepdim=True)
    p_unit, t_unit = p.detach() / norm, t / t.norm(dim=1, keepdim=True)
    cosine = (p_unit * t_unit).sum(1, keepdim=True)
    torch.testing.assert_close(p.grad, -(2 / norm) * (t_unit - cosine * p_unit) / batch, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close((p.grad * p_unit).sum(1), torch.zeros(batch), atol=1e-7, rtol=0)
    sine = (1 - cosine**2).sqrt()
    torch.testing.assert_close(p.grad.norm(dim=1, keepdim=True), 2 / norm * sine / batch, atol=1e-6, rtol=1e-5)


def test_loss_and_gradient_equal_a_slow_reference():
    """Value in double precision with loops; gradient by central differences of that value."""
    p, t = vectors(4, 6, 2).requires_grad_(), vectors(4, 6, 3)
    loss = regression_loss(p, t)
    loss.backward()
    assert p.grad is not None
    rows, target = p.detach().double().tolist(), t.double().tolist()
    assert loss.item() == pytest.approx(slow_loss(rows, target), abs=1e-6)
    step = 1e-5
    for i in range(4):
        for j in range(6):
            sides = []
            for sign in (1, -1):
                moved = deepcopy(rows)
                moved[i][j] += sign * step
                sides.append(slow_loss(moved, target))
            assert p.grad[i, j].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-6)


def test_method_pairs_each_prediction_with_the_other_view():
    """q(z1) with the target of view 2, q(z2) with the target of view 1, summed, not averaged."""
    method, (view1, view2) = tiny_byol(), two_views()
    for parameter in method.target.parameters():  # else online and target projections coincide at the start
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    copy = deepcopy(method)
    predicted = [copy.predictor(copy.projector(copy.backbone(v))).double().tolist() for v in (view1, view2)]
    projected = [copy.target(v).double().tolist() for v in (view1, view2)]
    expected = slow_loss(predicted[0], projected[1]) + slow_loss(predicted[1], projected[0])
    wrong = slow_loss(predicted[0], projected[0]) + slow_loss(predicted[1], projected[1])
    assert abs(expected - wrong) > 1e-2  # the example can tell the two apart
    assert method([view1, view2]).loss.item() == pytest.approx(expected, abs=1e-5)


def test_method_is_symmetric_in_its_views():
    method, (view1, view2) = tiny_byol(), two_views()
    swapped = deepcopy(method)([view2, view1]).loss.item()
    assert method([view1, view2]).loss.item() == pytest.approx(swapped, abs=1e-5)


def test_loss_is_computed_in_float32_under_autocast():
    """Rounding the unit vectors or their product to bfloat16 would err by about 1e-2; float32 errs by 1e-6."""
    p, t = vectors(16, 32, 0).bfloat16(), vectors(16, 32, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = regression_loss(p, t)
        assert tiny_byol()(two_views()).loss.dtype == torch.float32
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_loss(p.double().tolist(), t.double().tolist()), abs=1e-6)
    assert loss.item() != loss.bfloat16().item()  # so the example could have shown a rounding


# --- gradients and branches -----------------------------------------------------------------------


def test_target_projections_come_without_a_gradient():
    """The loss treats both sides alike and would let a gradient through to either; the target cuts it."""
    p, t = vectors(3, 4, 0).requires_grad_(), vectors(3, 4, 1).requires_grad_()
    regression_loss(p, t).backward()
    swapped = [x.detach().clone().requires_grad_() for x in (t, p)]
    regression_loss(*swapped).backward()
    torch.testing.assert_close([p.grad, t.grad], [swapped[1].grad, swapped[0].grad])

    method, projections = tiny_byol(), []
    method.target.register_forward_hook(lambda _, inputs, output: projections.append(output))
    method(two_views())
    assert [z.requires_grad for z in projections] == [False, False]


def test_target_parameters_get_no_gradient_and_are_not_optimised():
    method = tiny_byol()
    method(two_views()).loss.backward()
    optimised = {id(p) for group in method.param_groups() for p in group["params"]}
    for parameter in method.target.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad
        assert id(parameter) not in optimised
    for module in (method.backbone, method.projector, method.predictor):
        assert all(p.grad is not None and id(p) in optimised for p in module.parameters())


def test_each_view_is_its_own_forward_pass():
    """The backbone, online and target, is called once per view with that view alone."""
    method, views = tiny_byol(), two_views()
    for network in (method.backbone, method.target.net[0]):
        seen: list[torch.Tensor] = []
        handle = network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].clone()))
        method(views)
        handle.remove()
        assert len(seen) == 2
        assert torch.equal(seen[0], views[0]) and torch.equal(seen[1], views[1])


def test_batchnorm_statistics_are_per_view():
    """The running mean moves twice per step, by a tenth towards each view's own mean."""
    method, views = tiny_byol(), two_views()
    convolution, norm = method.backbone.net[0], method.backbone.net[1]
    mean1, mean2 = (convolution(view).mean((0, 2, 3)).detach() for view in views)
    method(views)
    torch.testing.assert_close(norm.running_mean, 0.9 * 0.1 * mean1 + 0.1 * mean2)
    assert norm.num_batches_tracked == 2
    assert method.target.net[0].net[1].num_batches_tracked == 2


def test_predictor_stands_on_the_online_branch_only():
    method, views = tiny_byol(), two_views()
    copy = deepcopy(method)
    expected = [copy.projector(copy.backbone(view)) for view in views]
    seen: list[torch.Tensor] = []
    method.predictor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    method(views)
    assert len(seen) == 2
    torch.testing.assert_close(seen, expected)
    online = sum(p.numel() for p in online_parameters(method))
    assert sum(p.numel() for p in method.target.parameters()) == online


def test_embeddings_are_the_projections_of_the_first_view():
    method, views = tiny_byol(), two_views()
    copy = deepcopy(method)
    embeddings = method(views).embeddings
    torch.testing.assert_close(embeddings, copy.projector(copy.backbone(views[0])).detach())
    assert not embeddings.requires_grad


# --- the moving average ---------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.97, 0.996])
def test_schedule_of_tau(tau: float):
    """tau_0 = tau_base, tau_{K/2} = (1 + tau_base) / 2, tau_K = 1, never falling."""
    method = tiny_byol(tau=tau)
    taus = [method.scheduled(k / 100)["tau"] for k in range(101)]
    assert taus[0] == pytest.approx(tau, abs=1e-15)
    assert taus[50] == pytest.approx((1 + tau) / 2, abs=1e-15)
    assert taus[100] == 1
    assert all(later > earlier for earlier, later in pairwise(taus))


@pytest.mark.parametrize(("tau", "steps", "expected"), [(0.99, 1000, -5.02), (0.996, 312_784, -626.5)])
def test_product_of_tau_over_a_run(tau: float, steps: int, expected: float):
    """How much of the first target is left: ln prod tau_k is close to -(1 - tau_base) (K / 2 + 1 / 2)."""
    method = tiny_byol(tau=tau)
    left = sum(log(method.scheduled(k / steps)["tau"]) for k in range(steps))
    assert left == pytest.approx(expected, abs=0.005 if steps == 1000 else 0.05)  # half a unit of the last digit
    assert left == pytest.approx(-(1 - tau) * (steps / 2 + 0.5), rel=5e-3)


def test_target_after_several_steps_in_closed_form():
    """xi_n = prod(tau) xi_0 + sum_i (1 - tau_i) prod_{j > i} tau_j theta_i, with tau from the schedule."""
    method, steps = tiny_byol(tau=0.9).double(), 8
    generator = torch.Generator().manual_seed(3)
    expected = [p.clone() for p in method.target.parameters()]
    taus = [1 - (1 - 0.9) * (torch.pi * torch.tensor(k / steps).double()).cos().add(1).div(2) for k in range(steps)]
    history = []
    for k in range(steps):
        for p in online_parameters(method):
            p.data.add_(torch.randn(p.shape, generator=generator, dtype=torch.float64))
        history.append([p.detach().clone() for p in online_parameters(method)])
        method.after_step(k / steps)
    for n, start in enumerate(expected):
        value = torch.stack(taus).prod() * start
        for i in range(steps):
            rest = torch.stack([*taus[i + 1 :], torch.tensor(1.0).double()]).prod()
            value = value + (1 - taus[i]) * rest * history[i][n]
        expected[n] = value
    torch.testing.assert_close(list(method.target.parameters()), expected, atol=1e-12, rtol=1e-12)


def test_tau_one_keeps_the_target_bit_for_bit():
    """A fixed random target: no parameter may move in training, though its BatchNorm statistics do."""
    method = tiny_byol(tau=1.0)
    before = [p.clone() for p in method.target.parameters()]
    for progress in (0.0, 0.3, 1.0):
        train(method, steps=2, progress=progress)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), before, strict=True))
    assert not all(torch.equal(p, q) for p, q in zip(online_parameters(method), before, strict=True))


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_tau_zero_makes_the_target_the_online_network_after_each_step(progress: float):
    """The paper's ablation "stop gradient of online" keeps tau at zero throughout training (table 5a)."""
    method = tiny_byol(tau=0.0)
    for _ in range(3):
        train(method, steps=1, progress=progress)
        pairs = zip(method.target.parameters(), online_parameters(method), strict=True)
        assert all(torch.equal(target, online) for target, online in pairs)


def test_target_moves_only_after_the_step():
    """Forward and backward passes, in training mode, leave every target parameter as it was."""
    method = tiny_byol()
    before = [p.clone() for p in method.target.parameters()]
    for seed in range(3):  # three micro-batches
        method(two_views(seed=seed)).loss.backward()
        method.before_step(0.5)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), before, strict=True))


def test_target_keeps_batchnorm_statistics_of_its_own():
    """They come from the target's own forward passes; the average neither copies nor mixes them."""
    method = tiny_byol(tau=0.5)
    train(method, steps=3)
    online, target = method.backbone.net[1], method.target.net[0].net[1]
    assert target.training
    assert not torch.allclose(target.running_mean, torch.zeros(8), atol=1e-3)
    assert not torch.equal(target.running_mean, online.running_mean)
    before = deepcopy(dict(method.target.named_buffers()))
    method.after_step(0.0)
    assert all(torch.equal(buffer, before[name]) for name, buffer in method.target.named_buffers())


def test_target_normalises_with_its_current_batch():
    """In training the running statistics must not matter to the target's projections."""
    method, views = tiny_byol(), two_views()
    other = deepcopy(method)
    for name, buffer in other.target.named_buffers():
        if "running" in name:
            buffer.add_(5.0)
    assert method(views).loss.item() == other(views).loss.item()


# --- architecture and settings --------------------------------------------------------------------


def test_heads_are_those_of_the_released_code():
    """Linear with bias, BatchNorm, ReLU, Linear without bias; nothing after it."""
    method = tiny_byol()
    for head, inputs in ((method.projector, 8), (method.predictor, 4)):
        assert [type(layer) for layer in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert head[0].weight.shape == (16, inputs) and head[0].bias is not None
        assert head[3].weight.shape == (4, 16) and head[3].bias is None
        assert (head[1].eps, head[1].momentum, head[1].affine) == (1e-5, 0.1, True)


def test_defaults_are_the_papers():
    """Two heads of two layers, an l2-normalised distance without negatives, and a target that slows to a halt."""
    widths = {"hidden": 4096, "projection": 256, "projector_layers": 2, "predictor_layers": 2, "norm": "batch"}
    target = {"tau": 0.996, "tau_schedule": "cosine", "stop_gradient": True, "predictor_lr": 1.0}
    loss = {"normalize": "l2", "negatives": 0.0, "temperature": 0.1}
    assert methods.settings("byol") == {**widths, **target, **loss}


@pytest.mark.parametrize("tau", [-0.01, 1.01, float("nan")])
def test_tau_outside_its_range_is_refused(tau: float):
    with pytest.raises(OwnlatentError, match="tau"):
        tiny_byol(tau=tau)


@pytest.mark.parametrize("widths", [{"hidden": 0}, {"projection": 0}])
def test_heads_without_width_are_refused(widths: dict[str, int]):
    backbone = backbones.create(nn.Flatten(), channels=2, image_size=1)
    with pytest.raises(OwnlatentError, match=r"hidden, projection .*widths? .*at least 1, not .*\b0\b"):
        BYOL(backbone, **widths)
