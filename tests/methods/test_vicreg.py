"""VICReg against its equations: the expected numbers follow from the paper by hand, not from the code."""

from copy import deepcopy
from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods import vicreg
from ownlatent.methods.vicreg import VICReg, vicreg_terms
from ownlatent.nn.norm import StandardizedLinear
from ownlatent.train.ranges import check
from ownlatent.train.recipe import Recipe, edit
from ownlatent.types import Views

EPS = 1e-4
"""Within the square root, section 4.1."""


def tiny_vicreg(seed: int = 0, **settings) -> VICReg:
    """One convolution with BatchNorm as the backbone, and a narrow expander."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return VICReg(backbones.create(net, channels=3, image_size=8), **{"hidden": 16, "projection": 4, **settings})


def loss_of(z1: Tensor, z2: Tensor, **settings) -> float:
    """The whole objective, by the method, of embeddings (B, D) that no network changes."""
    width = z1.shape[1]
    method = VICReg(backbones.create(nn.Flatten(), channels=width, image_size=1), hidden=2, projection=2, **settings)
    method.projector = nn.Identity()
    return method([z.view(-1, width, 1, 1) for z in (z1, z2)]).loss.item()


def terms_of(z1: Tensor, z2: Tensor) -> list[float]:
    return [term.item() for term in vicreg_terms(z1, z2)]


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def vectors(batch: int, width: int, seed: int = 0) -> Tensor:
    """Features of spreads around 1, so that the hinge holds some of them and not the others."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(0.4, 2.0, width, dtype=torch.float64)
    return spread * torch.randn((batch, width), generator=generator, dtype=torch.float64) + 0.3


def hadamard() -> Tensor:
    """(8, 7) of +-1: columns of mean 0, unbiased variance 8 / 7, orthogonal to each other."""
    rows = [[(-1.0) ** (i & j).bit_count() for j in range(1, 8)] for i in range(8)]
    return torch.tensor(rows, dtype=torch.float64)


def slow_terms(z1: list[list[float]], z2: list[list[float]]) -> tuple[float, float, float]:
    """s, (v + v') / 2 and c + c' word by word, in Python's double precision."""
    n, d = len(z1), len(z1[0])
    invariance = sum((z1[k][j] - z2[k][j]) ** 2 for k in range(n) for j in range(d)) / (n * d)
    variance = covariance = 0.0
    for z in (z1, z2):
        mean = [sum(row[j] for row in z) / n for j in range(d)]
        for i in range(d):
            for j in range(d):
                cov = sum((row[i] - mean[i]) * (row[j] - mean[j]) for row in z) / (n - 1)
                if i == j:
                    variance += max(0.0, 1 - sqrt(cov + EPS)) / d
                else:
                    covariance += cov**2 / d
    return invariance, variance / 2, covariance


# --- the loss -------------------------------------------------------------------------------------


def test_equal_uncorrelated_features_of_enough_spread_cost_nothing():
    """The unbiased standard deviation is 1.069, above the hinge."""
    assert terms_of(hadamard(), hadamard()) == pytest.approx([0, 0, 0], abs=1e-30)  # 1e-16, squared
    assert loss_of(hadamard(), hadamard()) == pytest.approx(0, abs=1e-30)


@pytest.mark.parametrize("width", [3, 7])
def test_zeros_cost_the_whole_hinge_halved_as_in_the_released_code(width: int):
    """1 - sqrt(1e-4) = 0.99 for each view: 25 (0.99 + 0.99) / 2 = 24.75, and not the paper's 49.5."""
    zeros = torch.zeros(8, width)
    assert terms_of(zeros, zeros) == pytest.approx([0, 0.99, 0], abs=1e-6)
    assert loss_of(zeros, zeros) == pytest.approx(24.75, abs=1e-5)


def test_a_shift_between_the_views_costs_its_square_and_nothing_else():
    """0.1 everywhere is a mean square of 0.01: 25 * 0.01. A sum over the seven features would give 1.75."""
    assert terms_of(hadamard(), hadamard() + 0.1) == pytest.approx([0.01, 0, 0], abs=1e-12)
    assert loss_of(hadamard(), hadamard() + 0.1) == pytest.approx(0.25, abs=1e-10)


def test_equal_columns_cost_their_covariances_in_each_view():
    """(d - 1) (8 / 7)^2 = 7.8367 per view for d = 7; summed over the views and not halved, 15.6735."""
    column = hadamard()[:, :1].expand(8, 7)
    assert terms_of(column, column) == pytest.approx([0, 0, 15.6735], abs=1e-4)
    assert terms_of(column, column)[2] == pytest.approx(2 * 6 * (8 / 7) ** 2, rel=1e-12)
    assert loss_of(column, column) == pytest.approx(15.6735, abs=1e-4)


def test_each_view_has_its_own_variance_and_covariance():
    """One view spread and uncorrelated, the other constant or with equal columns: one half of everything."""
    h, zeros = hadamard(), torch.zeros(8, 7, dtype=torch.float64)
    column = h[:, :1].expand(8, 7)
    for constant_first in (True, False):
        pair = (zeros, h) if constant_first else (h, zeros)
        assert terms_of(*pair) == pytest.approx([1, 0.495, 0], abs=1e-12)
        assert loss_of(*pair) == pytest.approx(25 + 25 * 0.495, abs=1e-10)
    distance = 6 * 2 / 7  # six of seven columns are orthogonal to the first: a mean square of 2
    assert terms_of(column, h) == pytest.approx([distance, 0, 6 * (8 / 7) ** 2], abs=1e-10)
    assert terms_of(h, column) == pytest.approx([distance, 0, 6 * (8 / 7) ** 2], abs=1e-10)


def test_variance_is_unbiased_and_the_hinge_is_on_the_standard_deviation():
    """Half of H: 1 - sqrt(0.25 * 8 / 7 + eps) = 0.4654; 0.4999 by the biased variance, 0.7142 without the root."""
    half = hadamard() / 2
    expected = 1 - sqrt(0.25 * 8 / 7 + EPS)
    assert terms_of(half, half) == pytest.approx([0, expected, 0], abs=1e-12)
    assert expected == pytest.approx(0.4654, abs=1e-4)


def test_hinge_has_exactly_no_gradient_above_one():
    """A spread of more than 1 is enough: nothing pulls further, nor back."""
    z1, z2 = (2 * hadamard()).requires_grad_(), torch.cat([2 * hadamard()[:, :6], hadamard()[:, 6:] / 2], 1)
    z2.requires_grad_()
    vicreg_terms(z1, z2)[1].backward()
    assert not z1.grad.any()
    assert not z2.grad[:, :6].any() and z2.grad[:, 6].abs().min() > 1e-3


def test_gradient_of_the_hinge_in_closed_form():
    """-(z - mean) / ((n - 1) sqrt(var + eps)) / d below 1, halved: it drives the values of a feature apart."""
    z1, z2 = (hadamard() / 2).requires_grad_(), hadamard()
    vicreg_terms(z1, z2)[1].backward()
    torch.testing.assert_close(z1.grad, -(hadamard() / 2) / (7 * sqrt(0.25 * 8 / 7 + EPS)) / 7 / 2)


def test_constant_features_are_a_stationary_point():
    """With the epsilon in the root the gradient there is 0 and not infinite or undefined."""
    z1, z2 = (torch.full((6, 5), 3.0, requires_grad=True) for _ in range(2))
    sum(vicreg_terms(z1, z2)).backward()
    assert not z1.grad.any() and not z2.grad.any()


def test_uncorrelated_features_get_no_gradient_from_the_covariance():
    """Nor does the diagonal of the matrix, the variances, which are left out."""
    z1, z2 = hadamard().requires_grad_(), (3 * hadamard()).requires_grad_()
    vicreg_terms(z1, z2)[2].backward()
    for z in (z1, z2):
        torch.testing.assert_close(z.grad, torch.zeros(8, 7, dtype=torch.float64), atol=1e-14, rtol=0)


def test_offset_sign_and_order_matter_to_the_distance_alone():
    """Variance and covariance belong to one view: its offset, signs, images' and features' order are free there."""
    z1, z2 = vectors(9, 4, 0), vectors(9, 4, 1)
    expected = terms_of(z1, z2)
    assert min(expected) > 0.05
    signs, columns, rows = torch.tensor([1.0, -1.0, -1.0, 1.0]), [2, 0, 3, 1], [4, 0, 8, 1, 3, 7, 5, 2, 6]
    for change in (lambda z: z + 7, lambda z: signs * z, lambda z: z[:, columns], lambda z: z[rows]):
        one, both = terms_of(change(z1), z2), terms_of(change(z1), change(z2))
        assert one[1:] == pytest.approx(expected[1:], rel=1e-9)
        assert abs(one[0] - expected[0]) > 1e-2
        assert both == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("term", [0, 1, 2])
def test_loss_and_gradient_equal_a_slow_reference(term: int):
    """Value by loops; the gradient, for both views, by central differences of that value."""
    z1, z2 = vectors(5, 3, 2).requires_grad_(), (1.5 * vectors(5, 3, 3)).requires_grad_()
    value = vicreg_terms(z1, z2)[term]
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


def test_statistics_are_over_the_images_of_all_processes_and_the_distance_over_the_own(
    monkeypatch: pytest.MonkeyPatch,
):
    """With the other half from elsewhere, variance and covariance, with their own gradient, are the whole batch's."""
    z1, z2 = vectors(8, 3, 4), vectors(8, 3, 5) + 0.5
    whole1, whole2 = z1.clone().requires_grad_(), z2.clone().requires_grad_()
    _, variance, covariance = vicreg_terms(whole1, whole2)
    (variance + covariance).backward()
    half1, half2 = z1[:4].clone().requires_grad_(), z2[:4].clone().requires_grad_()
    elsewhere = {id(half1): z1[4:], id(half2): z2[4:]}
    monkeypatch.setattr(vicreg, "gather", lambda x: torch.cat([x, elsewhere[id(x)]]))
    terms = vicreg_terms(half1, half2)
    (terms[1] + terms[2]).backward()
    own_distance = (z1[:4] - z2[:4]).square().mean().item()
    assert abs(own_distance - (z1 - z2).square().mean().item()) > 1e-2
    expected = [own_distance, variance.item(), covariance.item()]
    assert [t.item() for t in terms] == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close([half1.grad, half2.grad], [whole1.grad[:4], whole2.grad[:4]])


def test_loss_is_computed_in_float32_under_autocast():
    """A covariance in bfloat16 would err by about 1e-2; float32 errs by 1e-6."""
    z1, z2 = vectors(16, 8, 0).bfloat16(), vectors(16, 8, 1).bfloat16()
    expected = slow_terms(z1.tolist(), z2.tolist())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = vicreg_terms(z1, z2)
        single = vicreg_terms(z1.float(), z2.float())
        assert tiny_vicreg()(two_views()).loss.dtype == torch.float32
    for found in (terms, single):
        assert all(t.dtype == torch.float32 for t in found)
        assert [t.item() for t in found] == pytest.approx(expected, rel=1e-5)
        assert all(t.item() != t.bfloat16().item() for t in found)  # so the example could have shown a rounding


# --- the method -----------------------------------------------------------------------------------


def test_method_weighs_and_names_the_three_terms():
    """The terms are bare; the loss is their sum weighted by lambda, mu and nu, each by its own."""
    method, views = tiny_vicreg(invariance=2.0, variance=3.0, covariance=5.0), two_views()
    copy = deepcopy(method)
    expected = slow_terms(*(copy.projector(copy.backbone(view)).tolist() for view in views))
    assert min(expected) > 1e-2
    output = method(views)
    assert output.loss.item() == pytest.approx(2 * expected[0] + 3 * expected[1] + 5 * expected[2], rel=1e-4)
    found = {name: term.item() for name, term in output.terms.items()}
    names = ("invariance", "variance", "covariance")
    assert found == pytest.approx(dict(zip(names, expected, strict=True)), rel=1e-4)
    assert not any(term.requires_grad for term in output.terms.values())


@pytest.mark.parametrize("kept", ["invariance", "variance", "covariance"])
def test_weights_of_zero_leave_terms_out(kept: str):
    """The paper's ablations: a weight multiplies its term and no other."""
    weights = {"invariance": 0.0, "variance": 0.0, "covariance": 0.0, kept: 4.0}
    output = tiny_vicreg(**weights)(two_views())
    assert output.loss.item() == pytest.approx(4 * output.terms[kept].item(), rel=1e-6)
    assert output.loss.item() > 0


def test_method_is_symmetric_in_its_views():
    method, (view1, view2) = tiny_vicreg(), two_views()
    swapped = deepcopy(method)
    first, second = method([view1, view2]).loss, swapped([view2, view1]).loss
    assert first.item() == pytest.approx(second.item(), rel=1e-5)
    first.backward()
    second.backward()
    for p, q in zip(method.parameters(), swapped.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4)


def test_each_view_is_its_own_forward_pass():
    """The backbone and the expander are called once per view, so that BatchNorm sees one view at a time."""
    method, views = tiny_vicreg(), two_views()
    seen: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    mean1, mean2 = (method.backbone.net[0](view).mean((0, 2, 3)).detach() for view in views)
    method(views)
    assert len(seen) == 2
    assert torch.equal(seen[0], views[0]) and torch.equal(seen[1], views[1])
    torch.testing.assert_close(method.backbone.net[1].running_mean, 0.9 * 0.1 * mean1 + 0.1 * mean2)
    assert method.projector[1].num_batches_tracked == 2


def test_embeddings_are_those_of_the_first_view_neither_centred_nor_normalised():
    method, views = tiny_vicreg(), two_views()
    copy = deepcopy(method)
    embeddings = method(views).embeddings
    torch.testing.assert_close(embeddings, copy.projector(copy.backbone(views[0])).detach())
    assert not embeddings.requires_grad
    assert embeddings.mean(0).abs().max() > 1e-2 and (embeddings.norm(dim=1) - 1).abs().max() > 1e-2


def test_everything_is_trained_and_nothing_else_is_kept():
    """One network without a predictor, a moving average or a schedule: steps change nothing but by the gradient."""
    method = tiny_vicreg()
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


def test_expander_has_three_layers_and_no_bias_in_the_last():
    """[Linear with bias - BatchNorm - ReLU] twice, then Linear without; nothing normalises after it."""
    expander = tiny_vicreg().projector
    assert [type(layer) for layer in expander] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    assert [tuple(expander[i].weight.shape) for i in (0, 3, 6)] == [(16, 8), (16, 16), (4, 16)]
    assert [expander[i].bias is None for i in (0, 3, 6)] == [False, False, True]
    assert all((expander[i].eps, expander[i].momentum, expander[i].affine) == (1e-5, 0.1, True) for i in (1, 4))


@pytest.mark.parametrize(
    ("norm", "linear", "layer"),
    [
        ("group", StandardizedLinear, nn.GroupNorm),
        ("layer", nn.Linear, nn.LayerNorm),
        ("none", nn.Linear, nn.Identity),
    ],
)
def test_norm_replaces_batchnorm_in_the_expander(norm: str, linear: type, layer: type):
    method = tiny_vicreg(norm=norm, hidden=64)
    assert [type(module) for module in method.projector] == [linear, layer, nn.ReLU] * 2 + [nn.Linear]
    output = method(two_views())
    assert output.loss.isfinite() and output.embeddings.std(0).min() > 1e-4


def test_defaults_are_the_papers():
    weights = {"invariance": 25, "variance": 25, "covariance": 1}
    assert methods.settings("vicreg") == {"hidden": 8192, "projection": 8192, **weights, "norm": "batch"}


@pytest.mark.parametrize("value", [-1e-9, float("nan")])
@pytest.mark.parametrize("weight", ["invariance", "variance", "covariance"])
def test_weights_below_zero_are_refused(weight: str, value: float):
    with pytest.raises(OwnlatentError, match=weight):
        tiny_vicreg(**{weight: value})


@pytest.mark.parametrize(
    ("settings", "named"), [({"hidden": 0}, "width"), ({"projection": 0}, "width"), ({"norm": "bach"}, "batch")]
)
def test_other_settings_out_of_range_are_refused(settings: dict, named: str):
    with pytest.raises(OwnlatentError, match=named):
        tiny_vicreg(**settings)


def test_other_numbers_of_views_and_single_images_are_refused():
    method, (view1, view2) = tiny_vicreg(), two_views()
    for views in ([view1], [view1, view2, view1]):
        with pytest.raises(OwnlatentError, match="views"):
            method(views)
    with pytest.raises(OwnlatentError, match="at least 2 images"):
        method.check_batch(1)
    assert method(two_views(batch=2)).loss.isfinite()


def test_imagenet_row_has_the_published_numbers():
    """1000 epochs as in the released code, whose views are BYOL's pair; 0.3 would be the rate of 100 epochs."""
    recipe = edit(Recipe(method="vicreg"), methods.named_recipes("vicreg")["imagenet"])
    check(recipe)
    optim = recipe.optim
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("resnet50", 224, 2048, 1000)
    assert (optim.name, optim.eta, optim.momentum) == ("lars", 1e-3, 0.9)
    assert (optim.base_lr, optim.weight_decay, optim.end_lr, optim.bias_lr) == (0.2, 1e-6, 0.001, None)
    assert optim.warmup * recipe.epochs == pytest.approx(10)
    assert not optim.decay_all and recipe.method_settings == {"hidden": 8192, "projection": 8192}
    assert [(v.crop_scale, v.blur, v.solarize) for v in recipe.views] == [((0.08, 1), 1, 0), ((0.08, 1), 0.1, 0.2)]


@pytest.mark.parametrize("row", ["default", "small", "processor"])
def test_rows_that_apply_unasked_are_valid(row: str):
    recipe = edit(Recipe(method="vicreg"), methods.recipes("vicreg")[row])
    check(recipe)
    assert tiny_vicreg(**recipe.method_settings)(two_views()).loss.isfinite()
