"""DirectPred against its equations: the expected numbers follow from the paper by hand, not from the code."""

from collections.abc import Callable
from copy import deepcopy
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods import directpred
from ownlatent.methods.directpred import DirectPred
from ownlatent.nn.ema import EMA
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Recipe, edit
from ownlatent.types import Views


def tiny_directpred(seed: int = 0, **settings) -> DirectPred:
    """One convolution with BatchNorm as the backbone, and a narrow projector."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return DirectPred(backbones.create(net, channels=3, image_size=8), **{"hidden": 16, "projection": 4, **settings})


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def recorded(method: DirectPred) -> list[Tensor]:
    """A list to which every projection of the online network will be added."""
    seen: list[Tensor] = []
    method.projector.register_forward_hook(lambda *call: seen.append(call[-1].detach().clone()))
    return seen


def train(method: DirectPred, steps: int, first: int = 0, each: Callable[[int], None] = lambda step: None) -> None:
    """Plain gradient steps, each followed by the method's own; `each` looks on between the two."""
    optimizer = torch.optim.SGD([p for group in method.param_groups() for p in group["params"]], lr=0.5)
    for step in range(first, first + steps):
        optimizer.zero_grad()
        method(two_views(seed=step)).loss.backward()
        optimizer.step()
        each(step)
        method.after_step(step / 10)


def online_parameters(method: DirectPred) -> list[Tensor]:
    """What the target follows, in its order."""
    return [*method.backbone.parameters(), *method.projector.parameters()]


def slow_correlation(views: list[Tensor]) -> Tensor:
    """The mean of f f^T over the rows of all views, one after the other."""
    rows = [row for view in views for row in view.double().tolist()]
    d = len(rows[0])
    means = [[sum(f[i] * f[j] for f in rows) / len(rows) for j in range(d)] for i in range(d)]
    return torch.tensor(means, dtype=torch.float64)


def slow_loss(rows: list[list[float]], w: list[list[float]], targets: list[list[float]]) -> float:
    """2 - 2 cos(W f, t), averaged over the rows, in Python's double precision."""
    total = 0.0
    for f, t in zip(rows, targets, strict=True):
        p = [sum(weight * x for weight, x in zip(row, f, strict=True)) for row in w]
        lengths = sqrt(sum(x * x for x in p)) * sqrt(sum(x * x for x in t))
        total += 2 - 2 * sum(x * y for x, y in zip(p, t, strict=True)) / lengths
    return total / len(rows)


# --- the correlation ------------------------------------------------------------------------------


def test_first_batch_is_the_correlation_over_both_views_not_centred():
    """Taken whole, neither times 1 - rho nor corrected; projections as they are, of any mean and length."""
    method = tiny_directpred()
    nn.init.constant_(method.projector[3].bias, 2.0)
    seen = recorded(method)
    method(two_views())
    assert len(seen) == 2
    expected = slow_correlation(seen)
    torch.testing.assert_close(method.correlation.double(), expected, atol=0, rtol=1e-5)
    both = torch.cat(seen).double()
    others = [slow_correlation(seen[:1]), slow_correlation(seen[1:]), 2 * expected, 0.7 * expected]
    others += [both.T.cov(correction=0), slow_correlation([nn.functional.normalize(both)])]
    assert all((other - expected).abs().max() > 0.1 for other in others)  # the example can tell them apart


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.9])
def test_correlation_after_several_batches_in_closed_form(rho: float):
    """F_n = rho^(n-1) C_1 + (1 - rho) sum_{i > 1} rho^(n-i) C_i, moved by the batches and not by the steps."""
    method = tiny_directpred(rho=rho)
    seen, n = recorded(method), 5
    for seed in range(n):
        method(two_views(seed=seed))
        if seed % 2:
            before = method.correlation.clone()
            method.after_step(0.0)
            assert torch.equal(method.correlation, before)
    batches = [slow_correlation(seen[2 * i : 2 * i + 2]) for i in range(n)]
    expected = rho ** (n - 1) * batches[0]
    for i in range(1, n):
        expected = expected + (1 - rho) * rho ** (n - 1 - i) * batches[i]
    assert (expected - sum(batches) / n).abs().max() > 1e-2
    torch.testing.assert_close(method.correlation.double(), expected, atol=1e-6, rtol=1e-5)


def test_correlation_is_averaged_over_the_processes(monkeypatch: pytest.MonkeyPatch):
    """The average of the processes' own correlations, and not of their moving averages or predictors."""
    method = tiny_directpred()
    method(two_views(seed=0))
    before, elsewhere = method.correlation.clone(), torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    seen = recorded(method)
    monkeypatch.setattr(directpred, "average", lambda own: (own + elsewhere) / 2)
    method(two_views(seed=1))
    expected = 0.3 * before + 0.7 * (slow_correlation(seen).float() + elsewhere) / 2
    torch.testing.assert_close(method.correlation, expected)


def test_correlation_is_computed_in_float32_under_autocast():
    """The product of the projections in bfloat16 would err by about 1e-3; float32 errs by 1e-7."""
    method = tiny_directpred()
    seen = recorded(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(two_views()).loss
        rounded = torch.cat(seen).T @ torch.cat(seen) / 12
    assert seen[0].dtype == torch.bfloat16
    assert method.correlation.dtype == loss.dtype == torch.float32
    expected = slow_correlation(seen)
    torch.testing.assert_close(method.correlation.double(), expected, atol=1e-7, rtol=1e-6)
    assert (rounded - expected).abs().max() > 1e-4  # so the example could have shown a rounding


def test_method_works_in_double_precision():
    """As every other method does, for those who check gradients."""
    method = tiny_directpred().double()
    seen = recorded(method)
    assert method([view.double() for view in two_views()]).loss.dtype == torch.float64
    torch.testing.assert_close(method.correlation, slow_correlation(seen), atol=0, rtol=1e-6)


# --- loss and gradient ----------------------------------------------------------------------------


def test_method_pairs_each_prediction_with_the_other_views_target():
    """W f1 with the target of view 2, W f2 with that of view 1, summed as in BYOL; W is not its transpose."""
    method, views = tiny_directpred(), two_views()
    method.predictor.weight.data = random(4, 4).float()
    for parameter in method.target.parameters():  # else online and target projections coincide at the start
        parameter.data.add_(torch.randn_like(parameter))
    copy = deepcopy(method)
    f1, f2 = (copy.projector(copy.backbone(view)).tolist() for view in views)
    t1, t2 = (copy.target(view).tolist() for view in views)
    w, transposed = method.predictor.weight.tolist(), method.predictor.weight.T.tolist()
    expected = slow_loss(f1, w, t2) + slow_loss(f2, w, t1)
    wrong = [slow_loss(f1, w, t1) + slow_loss(f2, w, t2), slow_loss(f1, transposed, t2) + slow_loss(f2, transposed, t1)]
    assert all(abs(expected - other) > 1e-2 for other in wrong)  # the example can tell them apart
    output = method(views)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(output.embeddings.tolist(), f1)
    assert not output.embeddings.requires_grad and output.terms == {}


def test_gradient_equals_a_slow_reference():
    """Central differences of the loops, with fixed targets and a fixed W: neither of them passes a gradient on."""
    torch.manual_seed(0)
    x1, x2 = random(4, 3, seed=1).float(), random(4, 3, seed=2).float() + 0.5
    method = DirectPred(backbones.create(nn.Flatten(), channels=3, image_size=1), hidden=2, projection=3)
    target, method.projector = nn.Linear(3, 3), nn.Identity()
    method.target = EMA(method.backbone, target)
    method.predictor.weight.data = random(3, 3, seed=3).float()
    views = [x.view(4, 3, 1, 1).clone().requires_grad_() for x in (x1, x2)]
    method(views).loss.backward()
    w, rows, targets = method.predictor.weight.tolist(), [x1.tolist(), x2.tolist()], [target(x2), target(x1)]
    step = 1e-5
    for view in (0, 1):
        for i in range(4):
            for j in range(3):
                sides = []
                for sign in (1, -1):
                    moved = deepcopy(rows[view])
                    moved[i][j] += sign * step
                    sides.append(slow_loss(moved, w, targets[view].tolist()))
                expected = (sides[0] - sides[1]) / (2 * step)
                assert views[view].grad[i, j].item() == pytest.approx(expected, abs=1e-6)
    assert all(p.grad is None for p in (*method.target.parameters(), method.predictor.weight))


def test_each_view_is_its_own_forward_pass():
    """The backbone, online and target, is called once per view with that view alone."""
    method, views = tiny_directpred(), two_views()
    for network in (method.backbone, method.target.net[0]):
        seen: list[Tensor] = []
        handle = network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].clone()))
        method(views)
        handle.remove()
        assert len(seen) == 2
        seen.sort(key=lambda x: x.mean().item())  # which of them goes first does not matter
        assert torch.equal(seen[0], views[0]) and torch.equal(seen[1], views[1])


# --- the target -----------------------------------------------------------------------------------


def test_target_parameters_get_no_gradient_and_are_not_optimised():
    method = tiny_directpred()
    method(two_views()).loss.backward()
    optimised = {id(p) for group in method.param_groups() for p in group["params"]}
    for parameter in method.target.parameters():
        assert parameter.grad is None and not parameter.requires_grad and id(parameter) not in optimised
    assert all(p.grad is not None for p in online_parameters(method))
    assert len(list(method.target.parameters())) == len(online_parameters(method))  # no predictor


@pytest.mark.parametrize("tau", [0.0, 0.9, 1.0])
def test_target_follows_the_online_network_after_each_step_at_a_constant_rate(tau: float):
    """target <- tau target + (1 - tau) online, whatever the progress; exact for 0 and 1."""
    method = tiny_directpred(tau=tau)
    for step in range(3):
        before = [p.clone() for p in method.target.parameters()]
        online: list[Tensor] = []

        def each(_: int, before: list = before, online: list = online) -> None:
            assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), before, strict=True))
            online += [p.detach().clone() for p in online_parameters(method)]

        train(method, steps=1, first=4 * step, each=each)
        exact = {"atol": 0, "rtol": 0} if tau in (0, 1) else {}
        expected = [tau * p + (1 - tau) * q for p, q in zip(before, online, strict=True)]
        torch.testing.assert_close(list(method.target.parameters()), expected, **exact)
    assert [method.scheduled(progress) for progress in (0.0, 0.5, 1.0)] == [{"tau": tau}] * 3


# --- architecture and settings --------------------------------------------------------------------


def test_heads_are_those_of_the_released_code():
    """Linear with bias, BatchNorm without scale and offset, ReLU, Linear with bias; the predictor has no bias."""
    method = tiny_directpred()
    assert [type(layer) for layer in method.projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert method.projector[0].weight.shape == (16, 8) and method.projector[0].bias is not None
    assert method.projector[3].weight.shape == (4, 16) and method.projector[3].bias is not None
    assert (method.projector[1].eps, method.projector[1].momentum, method.projector[1].affine) == (1e-5, 0.1, False)
    assert type(method.predictor) is nn.Linear
    assert method.predictor.weight.shape == (4, 4) and method.predictor.bias is None


@pytest.mark.parametrize(("norm", "layer"), [("group", nn.GroupNorm), ("layer", nn.LayerNorm), ("none", nn.Identity)])
def test_norm_replaces_batchnorm_in_the_projector(norm: str, layer: type):
    method = tiny_directpred(norm=norm, hidden=64)
    assert type(method.projector[1]) is layer
    assert len(list(method.projector.parameters())) == 4  # nothing learned in it
    output = method(two_views())
    assert output.loss.isfinite() and output.embeddings.std(0).min() > 1e-4


def test_defaults_are_the_papers():
    widths = {"hidden": 512, "projection": 128}
    constants = {"rho": 0.3, "eps": 0.1, "every": 1, "tau": 0.996}
    assert methods.settings("directpred") == {**widths, **constants, "norm": "batch"}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("rho", [-0.01, 1.0, float("nan")]),
        ("tau", [-0.01, 1.01, float("nan")]),
        ("eps", [-1e-9, float("nan")]),
        ("every", [0, -1]),
        ("hidden", [0]),
        ("projection", [0]),
        ("norm", ["bach"]),
    ],
)
def test_settings_out_of_range_are_refused(name: str, values: list):
    for value in values:
        with pytest.raises(OwnlatentError, match=name):
            tiny_directpred(**{name: value})


def test_other_numbers_of_views_and_single_images_are_refused():
    method, (view1, view2) = tiny_directpred(), two_views()
    for views in ([view1], [view1, view2, view1]):
        with pytest.raises(OwnlatentError, match="views"):
            method(views)
    with pytest.raises(OwnlatentError, match="at least 2 images"):
        method.check_batch(1)
    assert method(two_views(batch=2)).loss.isfinite()


def test_cifar10_row_has_the_released_codes_numbers():
    """A constant rate without warm-up, MoCo v2's colours without blur, 3x3 stem by the size; 89.52 after 500 epochs."""
    recipe = edit(Recipe(method="directpred"), methods.named_recipes("directpred")["cifar10"])
    check(recipe)
    optim = recipe.optim
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("resnet18", 32, 128, 500)
    assert (optim.name, optim.lr, optim.base_lr, optim.momentum) == ("sgd", 0.03, None, 0.9)
    assert (optim.weight_decay, optim.warmup, optim.end_lr) == (4e-4, 0, 1)
    assert recipe.method_settings == {"tau": 0.996, "eps": 0.1}
    assert recipe.views[0] == recipe.views[1] and len(recipe.views) == 2
    view = recipe.views[0]
    assert (view.jitter, view.brightness, view.contrast, view.saturation, view.hue) == (0.8, 0.4, 0.4, 0.4, 0.1)
    assert (view.grayscale, view.blur, view.solarize) == (0.2, 0, 0)


@pytest.mark.parametrize("row", ["default", "small", "long"])
def test_rows_that_apply_unasked_are_valid(row: str):
    recipe = edit(Recipe(method="directpred"), methods.recipes("directpred")[row])
    check(recipe)
    assert tiny_directpred(**recipe.method_settings)(two_views()).loss.isfinite()
