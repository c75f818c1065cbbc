"""Barlow Twins against its equation: the expected numbers follow from the paper by hand, not from the code."""

from copy import deepcopy
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods import barlow_twins
from ownlatent.methods.barlow_twins import BarlowTwins, correlation_loss
from ownlatent.nn.norm import StandardizedLinear
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Recipe, edit
from ownlatent.types import Views

EPS = 1e-5
"""Added to the variance in the released code, by its BatchNorm."""


def tiny_barlow(seed: int = 0, **settings) -> BarlowTwins:
    """One convolution with BatchNorm as the backbone, and a narrow projector."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    backbone = backbones.create(net, channels=3, image_size=8)
    return BarlowTwins(backbone, **{"hidden": 16, "projection": 4, **settings})


def without_networks(width: int, **settings) -> BarlowTwins:
    """The objective alone: the views (B, width, 1, 1) are the embeddings."""
    method = BarlowTwins(backbones.create(nn.Flatten(), channels=width, image_size=1), hidden=2, **settings)
    method.projector = nn.Identity()
    return method


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def vectors(batch: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, width), generator=generator, dtype=torch.float64)


def hadamard() -> Tensor:
    """(8, 7) of +-1: every column has mean 0 and biased variance 1, and is orthogonal to all others."""
    rows = [[(-1.0) ** (i & j).bit_count() for j in range(1, 8)] for i in range(8)]
    return torch.tensor(rows, dtype=torch.float64)


def slow_terms(z1: list[list[float]], z2: list[list[float]]) -> tuple[float, float]:
    """Equation 1 word by word, in Python's double precision: both sums, without their weights."""
    n, d = len(z1), len(z1[0])

    def standardised(z: list[list[float]]) -> list[list[float]]:
        mean = [sum(row[j] for row in z) / n for j in range(d)]
        variance = [sum((row[j] - mean[j]) ** 2 for row in z) / n for j in range(d)]
        return [[(row[j] - mean[j]) / sqrt(variance[j] + EPS) for j in range(d)] for row in z]

    a, b = standardised(z1), standardised(z2)
    on_diagonal = off_diagonal = 0.0
    for i in range(d):
        for j in range(d):
            c = sum(a[k][i] * b[k][j] for k in range(n)) / n
            if i == j:
                on_diagonal += (1 - c) ** 2
            else:
                off_diagonal += c**2
    return on_diagonal, off_diagonal


# --- the loss -------------------------------------------------------------------------------------


def test_equal_uncorrelated_features_reach_the_minimum():
    """C_ii = 1 / (1 + eps), so D (eps / (1 + eps))^2 = 7e-10 is left; the rest of C is 0, or a rounding of 1e-16."""
    invariance, redundancy = correlation_loss(hadamard(), hadamard())
    assert invariance.item() == pytest.approx(7 * (EPS / (1 + EPS)) ** 2, rel=1e-6)
    assert redundancy.item() < 7 * 6 * 1e-16**2


def test_standardisation_is_by_the_biased_variance():
    """The unbiased one makes C_ii = (N - 1) / N and leaves D / N^2: 0.109375 for eight images, 1 / 4 for two."""
    assert correlation_loss(hadamard(), hadamard())[0].item() < 1e-8
    pair = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    assert correlation_loss(pair, pair)[0].item() < 1e-8


def test_opposite_features_cost_four_each():
    """C_ii = -1: (1 + 1)^2 for each of the seven."""
    invariance, redundancy = correlation_loss(hadamard(), -hadamard())
    assert invariance.item() == pytest.approx(28, rel=2 * EPS)
    assert redundancy.item() < 7 * 6 * 1e-16**2


def test_constant_features_cost_one_each_and_get_no_gradient():
    """Standardised they are 0, and so is C: collapse shows as a loss of D, and is a stationary point."""
    z1, z2 = torch.full((6, 5), 3.0, requires_grad=True), torch.full((6, 5), -2.0, requires_grad=True)
    invariance, redundancy = correlation_loss(z1, z2)
    assert (invariance.item(), redundancy.item()) == (5, 0)
    (invariance + redundancy).backward()
    assert not z1.grad.any() and not z2.grad.any()


@pytest.mark.parametrize(("width", "expected"), [(7, 0.2142), (2048, 21381)])
def test_equal_columns_cost_lambda_for_every_pair(width: int, expected: float):
    """All of C is 1: lambda D (D - 1), with 0.0051 as in the released code. eps takes 2e-5 of it."""
    column = hadamard()[:, :1].expand(8, width).reshape(8, width, 1, 1)
    loss = without_networks(width)([column, column.clone()]).loss.item()
    assert loss == pytest.approx(expected, rel=5e-5)
    assert loss == pytest.approx(0.0051 * width * (width - 1), rel=3e-5)


def test_rows_of_c_are_the_first_views_features_and_both_triangles_count():
    """(h1, h2) with (h2, h3) correlate in C_21 alone, (h1, h2) with (h2, h1) in both; no diagonal in either."""
    h = hadamard()
    once = correlation_loss(h[:, [0, 1]], h[:, [1, 2]])
    assert [t.item() for t in once] == pytest.approx([2, 1], rel=3 * EPS)
    swapped = correlation_loss(h[:, [1, 2]], h[:, [0, 1]])
    assert [t.item() for t in swapped] == pytest.approx([2, 1], rel=3 * EPS)
    both = correlation_loss(h[:, [0, 1]], h[:, [1, 0]])
    assert [t.item() for t in both] == pytest.approx([2, 2], rel=3 * EPS)


def test_loss_of_independent_views():
    """A correlation of independent samples has mean 0 and variance 1 / (N - 1), its square a deviation of sqrt 2 / N.

    So the diagonal gives D (1 + 1 / N) with a deviation of 2 sqrt(D / N), the rest D (D - 1) / N.
    """
    n, d = 512, 64
    invariance, redundancy = correlation_loss(vectors(n, d, 0), vectors(n, d, 1))
    assert invariance.item() == pytest.approx(d * (1 + 1 / (n - 1)), abs=5 * 2 * sqrt(d / n))
    pairs = d * (d - 1)
    assert redundancy.item() == pytest.approx(pairs / (n - 1), abs=5 * sqrt(2 * pairs) / n)


def test_loss_does_not_depend_on_scale_offset_or_common_sign_of_a_feature():
    """Scales of 10 and more, beside which eps is 1e-7 of the variance."""
    z1, z2 = 10 * vectors(9, 4, 0), 10 * vectors(9, 4, 1)
    expected = [t.item() for t in correlation_loss(z1, z2)]
    scale1 = torch.tensor([1.0, -2.0, 30.0, -1e3])
    scale2 = torch.tensor([7.0, -1.0, 1.0, -50.0])  # of the same signs
    moved = correlation_loss(scale1 * z1 + torch.tensor([0.0, 5.0, -1e3, 2.0]), scale2 * z2 - 9)
    assert [t.item() for t in moved] == pytest.approx(expected, rel=1e-5)
    one_sign = correlation_loss(z1 * torch.tensor([1.0, 1.0, 1.0, -1.0]), z2)
    assert abs(one_sign[0].item() - expected[0]) > 1e-2


def test_loss_depends_on_the_pairing_of_features_and_of_images():
    """One order of columns, or of rows, for both views changes nothing; for one view alone it does."""
    z1 = vectors(9, 4, 0)
    z2 = z1 + 0.5 * vectors(9, 4, 1)
    expected = [t.item() for t in correlation_loss(z1, z2)]
    columns, rows = [2, 0, 3, 1], [4, 0, 8, 1, 3, 7, 5, 2, 6]
    assert [t.item() for t in correlation_loss(z1[:, columns], z2[:, columns])] == pytest.approx(expected, rel=1e-9)
    assert [t.item() for t in correlation_loss(z1[rows], z2[rows])] == pytest.approx(expected, rel=1e-9)
    assert correlation_loss(z1[:, columns], z2)[0].item() > expected[0] + 1
    assert correlation_loss(z1[rows], z2)[0].item() > expected[0] + 1


@pytest.mark.parametrize("term", [0, 1])
def test_loss_and_gradient_equal_a_slow_reference(term: int):
    """Value by loops; the gradient, for both views, by central differences of that value."""
    z1 = (vectors(5, 3, 2) + 1).requires_grad_()
    z2 = (3 * vectors(5, 3, 3) + 0.3 * z1.detach()).requires_grad_()
    value = correlation_loss(z1, z2)[term]
    value.backward()
    lists = [z1.tolist(), z2.tolist()]
    assert value.item() == pytest.approx(slow_terms(*lists)[term], rel=1e-10)
    step = 1e-5
    for view, z in enumerate((z1, z2)):
        assert z.grad.abs().max() > 1e-2
        for i in range(5):
            for j in range(3):
                sides = []
                for sign in (1, -1):
                    moved = deepcopy(lists)
                    moved[view][i][j] += sign * step
                    sides.append(slow_terms(*moved)[term])
                assert z.grad[i, j].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-8)


def test_statistics_are_over_the_images_of_all_processes(monkeypatch: pytest.MonkeyPatch):
    """With the other half of the images coming from elsewhere, loss and own gradient are those of the whole batch."""
    z1, z2 = vectors(8, 3, 4), vectors(8, 3, 5) + 0.5
    whole1, whole2 = z1.clone().requires_grad_(), z2.clone().requires_grad_()
    expected = correlation_loss(whole1, whole2)
    sum(expected).backward()
    half1, half2 = z1[:4].clone().requires_grad_(), z2[:4].clone().requires_grad_()
    elsewhere = {id(half1): z1[4:], id(half2): z2[4:]}
    monkeypatch.setattr(barlow_twins, "gather", lambda x: torch.cat([x, elsewhere[id(x)]]))
    terms = correlation_loss(half1, half2)
    sum(terms).backward()
    assert [t.item() for t in terms] == pytest.approx([t.item() for t in expected], rel=1e-12)
    torch.testing.assert_close([half1.grad, half2.grad], [whole1.grad[:4], whole2.grad[:4]])


def test_loss_is_computed_in_float32_under_autocast():
    """A product in bfloat16 would err by about 1e-2; float32 errs by 1e-6."""
    z1, z2 = vectors(16, 8, 0).bfloat16(), vectors(16, 8, 1).bfloat16()
    expected = slow_terms(z1.tolist(), z2.tolist())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = correlation_loss(z1, z2)
        single = correlation_loss(z1.float(), z2.float())
        assert tiny_barlow()(two_views()).loss.dtype == torch.float32
    for found in (terms, single):
        assert all(t.dtype == torch.float32 for t in found)
        assert [t.item() for t in found] == pytest.approx(expected, rel=1e-5)
        assert all(t.item() != t.bfloat16().item() for t in found)  # so the example could have shown a rounding


# --- the method -----------------------------------------------------------------------------------


def test_method_weighs_the_redundancy_and_names_both_sums():
    """The terms are the bare sums; the loss is the first plus lambda times the second, without any other factor."""
    method, views = tiny_barlow(redundancy=0.25), two_views()
    copy = deepcopy(method)
    embedded = [copy.projector(copy.backbone(view)).tolist() for view in views]
    invariance, redundancy = slow_terms(*embedded)
    assert redundancy > 0.1
    output = method(views)
    assert output.loss.item() == pytest.approx(invariance + 0.25 * redundancy, rel=1e-4)
    found = {name: term.item() for name, term in output.terms.items()}
    assert found == pytest.approx({"invariance": invariance, "redundancy": redundancy}, rel=1e-4)
    assert not any(term.requires_grad for term in output.terms.values())


def test_without_redundancy_the_invariance_is_all():
    """Lambda 0 is the paper's ablation "invariance only"; lambda grows the loss by the second sum."""
    views = two_views()
    losses = [tiny_barlow(redundancy=weight)(views).loss.item() for weight in (0.0, 1.0, 3.0)]
    terms = tiny_barlow()(views).terms
    assert losses[0] == pytest.approx(terms["invariance"].item(), rel=1e-6)
    assert losses[1] - losses[0] == pytest.approx(terms["redundancy"].item(), rel=1e-5)
    assert losses[2] - losses[0] == pytest.approx(3 * terms["redundancy"].item(), rel=1e-5)


def test_method_is_symmetric_in_its_views():
    """C becomes its transpose: the same loss, and the same gradient of every weight."""
    method, (view1, view2) = tiny_barlow(), two_views()
    swapped = deepcopy(method)
    first, second = method([view1, view2]).loss, swapped([view2, view1]).loss
    assert first.item() == pytest.approx(second.item(), rel=1e-5)
    first.backward()
    second.backward()
    for p, q in zip(method.parameters(), swapped.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4)


def test_both_branches_get_the_gradient():
    """There is no stop-gradient (70.5 instead of 71.4 % with one)."""
    views = [vectors(6, 3, seed).view(6, 3, 1, 1).requires_grad_() for seed in (0, 1)]
    without_networks(3)(views).loss.backward()
    assert all(view.grad.abs().max() > 1e-3 for view in views)


def test_each_view_is_its_own_forward_pass():
    """The backbone and the projector are called once per view, so that BatchNorm sees one view at a time."""
    method, views = tiny_barlow(), two_views()
    seen: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    mean1, mean2 = (method.backbone.net[0](view).mean((0, 2, 3)).detach() for view in views)
    method(views)
    assert len(seen) == 2
    assert torch.equal(seen[0], views[0]) and torch.equal(seen[1], views[1])
    torch.testing.assert_close(method.backbone.net[1].running_mean, 0.9 * 0.1 * mean1 + 0.1 * mean2)
    assert method.projector[1].num_batches_tracked == 2


def test_embeddings_are_the_projections_of_the_first_view_before_they_are_standardised():
    method, views = tiny_barlow(), two_views()
    copy = deepcopy(method)
    embeddings = method(views).embeddings
    torch.testing.assert_close(embeddings, copy.projector(copy.backbone(views[0])).detach())
    assert not embeddings.requires_grad
    assert (embeddings.std(0) - 1).abs().max() > 0.1


def test_everything_is_trained_and_nothing_else_is_kept():
    """One network without a predictor, a moving average or a schedule: steps change nothing but by the gradient."""
    method = tiny_barlow()
    assert {name for name, _ in method.named_children()} == {"backbone", "projector"}
    method(two_views()).loss.backward()
    optimised = {id(p) for group in method.param_groups() for p in group["params"]}
    assert optimised == {id(p) for p in method.parameters()}
    assert all(p.grad is not None for p in method.parameters())
    state, gradients = deepcopy(method.state_dict()), [p.grad.clone() for p in method.parameters()]
    for progress in (0.0, 0.5, 1.0):
        method.before_step(progress)
        method.after_step(progress)
        assert method.scheduled(progress) == {}
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(method.parameters(), gradients, strict=True))


# --- architecture and settings --------------------------------------------------------------------


def test_projector_has_three_layers_without_any_bias():
    """[Linear - BatchNorm - ReLU] twice, then Linear; what standardises is no part of it."""
    projector = tiny_barlow().projector
    assert [type(layer) for layer in projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert [tuple(projector[i].weight.shape) for i in (0, 3, 6)] == [(16, 8), (16, 16), (4, 16)]
    assert all(projector[i].bias is None for i in (0, 3, 6))
    assert all((projector[i].eps, projector[i].momentum, projector[i].affine) == (1e-5, 0.1, True) for i in (1, 4))


@pytest.mark.parametrize(
    ("norm", "linear", "layer"),
    [
        ("group", StandardizedLinear, nn.GroupNorm),
        ("layer", nn.Linear, nn.LayerNorm),
        ("none", nn.Linear, nn.Identity),
    ],
)
def test_norm_replaces_batchnorm_in_the_projector(norm: str, linear: type, layer: type):
    method = tiny_barlow(norm=norm, hidden=64)
    assert [type(module) for module in method.projector] == [linear, layer, nn.ReLU] * 2 + [nn.Linear]
    output = method(two_views())
    assert output.loss.isfinite() and output.embeddings.std(0).min() > 1e-4


def test_defaults_are_the_released_codes():
    assert methods.settings("barlow_twins") == {
        "hidden": 8192,
        "projection": 8192,
        "redundancy": 0.0051,
        "norm": "batch",
    }


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"redundancy": -1e-9}, "redundancy"),
        ({"redundancy": float("nan")}, "redundancy"),
        ({"hidden": 0}, "width"),
        ({"projection": 0}, "width"),
        ({"norm": "bach"}, "batch"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, named: str):
    with pytest.raises(OwnlatentError, match=named):
        tiny_barlow(**settings)


def test_other_numbers_of_views_and_single_images_are_refused():
    method, (view1, view2) = tiny_barlow(), two_views()
    for views in ([view1], [view1, view2, view1]):
        with pytest.raises(OwnlatentError, match="views"):
            method(views)
    with pytest.raises(OwnlatentError, match="at least 2 images"):
        method.check_batch(1)
    assert method(two_views(batch=2)).loss.isfinite()


def test_imagenet_row_has_the_published_numbers():
    """Released code and paper agree but for the decay, 1.5e-6 in the paper and 1e-6 in the code."""
    row = methods.named_recipes("barlow_twins")["imagenet"]
    recipe = edit(Recipe(method="barlow_twins"), row)
    check(recipe)
    optim = recipe.optim
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("resnet50", 224, 2048, 1000)
    assert (optim.name, optim.eta, optim.momentum) == ("lars", 1e-3, 0.9)
    assert (optim.base_lr, optim.weight_decay, optim.end_lr) == (0.2, 1.5e-6, 0.001)
    assert optim.base_lr * optim.bias_lr == pytest.approx(0.0048)
    assert optim.warmup * recipe.epochs == pytest.approx(10)
    assert not optim.decay_all and recipe.method_settings == {"hidden": 8192, "projection": 8192}
    jitter = {(v.jitter, v.brightness, v.contrast, v.saturation, v.hue, v.grayscale) for v in recipe.views}
    assert jitter == {(0.8, 0.4, 0.4, 0.2, 0.1, 0.2)}
    assert [(v.crop_scale, v.blur, v.solarize) for v in recipe.views] == [((0.08, 1), 1, 0), ((0.08, 1), 0.1, 0.2)]


@pytest.mark.parametrize("row", ["default", "small", "processor"])
def test_rows_that_apply_unasked_are_valid(row: str):
    recipe = edit(Recipe(method="barlow_twins"), methods.recipes("barlow_twins")[row])
    check(recipe)
    assert tiny_barlow(**recipe.method_settings)(two_views()).loss.isfinite()
