"""SimCLR against its equation: the expected numbers follow from the paper by hand, not from the code."""

from collections.abc import Callable
from copy import deepcopy
from math import exp, inf, log, nan, sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.augment.recipes import RECIPES as VIEWS
from ownlatent.errors import OwnlatentError
from ownlatent.losses import unit
from ownlatent.methods import simclr
from ownlatent.methods.simclr import RECIPES, SimCLR, nt_xent
from ownlatent.optim.create import create
from ownlatent.train.recipe import Recipe, edit
from ownlatent.train.resolve import Facts, resolve
from ownlatent.types import Views

Rows = list[list[float]]


def tiny(seed: int = 0, **settings: Any) -> SimCLR:
    """One convolution with BatchNorm as the backbone, and a narrow head, all in double precision."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    settings = {"hidden": 16, "projection": 6, "temperature": 0.5, **settings}
    return SimCLR(backbones.create(net, channels=3, image_size=8), **settings).double()


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator, dtype=torch.float64)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator, dtype=torch.float64) + 0.5]


def vectors(batch: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn((batch, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def angles(*degrees: float) -> Tensor:
    """Unit vectors in the plane."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def slow_nt_xent(z1: Rows, z2: Rows, temperature: float) -> float:
    """Equation 1 word by word: the mean of l(i, j) over all 2 N views and their partners."""
    z, n = z1 + z2, len(z1)

    def s(i: int, k: int) -> float:
        product = sum(a * b for a, b in zip(z[i], z[k], strict=True))
        return product / sqrt(sum(a * a for a in z[i])) / sqrt(sum(b * b for b in z[k]))

    total = 0.0
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        others = sum(exp(s(i, k) / temperature) for k in range(2 * n) if k != i)
        total -= log(exp(s(i, partner) / temperature) / others)
    return total / (2 * n)


def differences(loss: Callable[[Rows], float], rows: Rows, step: float = 1e-6) -> Tensor:
    """The gradient of a plain function of rows, by central differences."""
    gradient = torch.zeros(len(rows), len(rows[0]), dtype=torch.float64)
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            row[j] = value + step
            above = loss(rows)
            row[j] = value - step
            gradient[i, j] = (above - loss(rows)) / (2 * step)
            row[j] = value
    return gradient


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "temperature", "expected"),
    [(1, 0.5, 0.0), (4, 0.5, 1.945910), (256, 0.5, 6.236370), (256, 0.1, 6.236370), (4096, 0.1, 9.010791)],
)
def test_collapsed_loss_is_the_log_of_the_other_views(n: int, temperature: float, expected: float):
    """log(2 N - 1): oneself is not among the choices, the partner is; the released code's sum would be twice it.

    To ten roundings of float32; log(2 N) would be off by 1e-4 or more.
    """
    same = torch.tensor([[3.0, -4.0]])
    loss, _ = nt_xent(same.expand(n, 2), 5 * same.expand(n, 2), temperature)
    assert loss.item() == pytest.approx(expected, abs=1e-5)
    assert expected == pytest.approx(log(2 * n - 1), abs=1e-6)


@pytest.mark.parametrize(("n", "temperature", "expected"), [(4, 0.5, 0.594438), (256, 0.1, 0.022890), (256, 1.0, None)])
def test_loss_of_found_partners_among_orthogonal_views(n: int, temperature: float, expected: float | None):
    """log(1 + (2 N - 2) exp(-1 / t)): as many negatives of the same view as of the other."""
    z = torch.eye(n, dtype=torch.float64)
    loss, found = nt_xent(z, 3 * z, temperature)
    formula = log(1 + (2 * n - 2) * exp(-1 / temperature))
    assert loss.item() == pytest.approx(formula, rel=1e-12)
    assert formula == pytest.approx(expected or formula, abs=1e-6)
    assert found.item() == 1


def test_loss_of_opposite_partners_among_orthogonal_views():
    """log(1 + (2 N - 2) exp(1 / t)), and no view finds its partner."""
    z = torch.eye(4, dtype=torch.float64)
    loss, found = nt_xent(z, -z, 0.5)
    assert loss.item() == pytest.approx(log(1 + 6 * exp(2)), rel=1e-12)
    assert found.item() == 0


def test_negatives_of_the_same_view_count():
    """All first views alike, second views orthogonal to them and to each other; two kinds of anchor, by hand.

    A first view has N - 1 others at cosine 1 and N at 0; a second view has all 2 N - 1 at 0.
    """
    n, t = 3, 0.5
    z = torch.eye(n + 1, dtype=torch.float64)
    loss, _ = nt_xent(z[:1].expand(n, n + 1), z[1:], t)
    expected = (log((n - 1) * exp(1 / t) + n) + log(2 * n - 1)) / 2
    assert loss.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_and_both_gradients_equal_a_slow_reference(temperature: float):
    """Both branches, and every view as a query, as a partner and as a negative: nothing is stopped."""
    z1, z2 = vectors(4, 5, 2).requires_grad_(), vectors(4, 5, 3).requires_grad_()
    loss, found = nt_xent(z1, z2, temperature)
    loss.backward()
    rows1, rows2 = z1.tolist(), z2.tolist()
    assert loss.item() == pytest.approx(slow_nt_xent(rows1, rows2, temperature), rel=1e-12)
    assert not found.requires_grad
    for gradient, expected in (
        (z1.grad, differences(lambda rows: slow_nt_xent(rows, rows2, temperature), rows1)),
        (z2.grad, differences(lambda rows: slow_nt_xent(rows1, rows, temperature), rows2)),
    ):
        torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=0)


def test_gradient_is_orthogonal_to_each_projection():
    """Because its length does not matter; a missing normalisation of one side would show here."""
    z1, z2 = (5 * vectors(4, 5, 2)).requires_grad_(), vectors(4, 5, 3).requires_grad_()
    nt_xent(z1, z2, 0.5)[0].backward()
    for z in (z1, z2):
        assert z.grad is not None and z.grad.norm(dim=1).min() > 1e-4
        assert (z.grad * z.detach()).sum(1).abs().max() < 1e-14


def test_loss_sees_neither_lengths_nor_the_order_of_images_or_views():
    z1, z2, order = vectors(6, 4, 4), vectors(6, 4, 5), torch.tensor([3, 0, 5, 1, 4, 2])
    expected, found = nt_xent(z1, z2, 0.3)
    length = torch.linspace(0.1, 10, 6, dtype=torch.float64).unsqueeze(1)
    for same in ((z2, z1), (z1[order], z2[order]), (length * z1, z2 / length)):
        loss, share = nt_xent(*same, 0.3)
        assert (loss.item(), share.item()) == (pytest.approx(expected.item(), rel=1e-12), found.item())
    assert abs(nt_xent(z1, z2[order], 0.3)[0].item() - expected.item()) > 0.1  # but who is whose partner matters


def test_loss_at_infinite_temperature_forgets_the_projections():
    z1, z2 = vectors(6, 4, 4), vectors(6, 4, 5)
    assert nt_xent(z1, z2, 1e9)[0].item() == pytest.approx(log(11), abs=1e-8)


def test_share_of_views_that_find_their_partner():
    """Second views exchanged between two of four images: their four views find another's, the other four their own."""
    z = angles(0, 90, 180, 270)
    assert nt_xent(z, z[[0, 1, 3, 2]], 0.1)[1].item() == 0.5
    one_way = nt_xent(angles(0, 90), angles(10, 40), 0.1)  # 90 is nearest to 40, but 40 to 10
    assert one_way[1].item() == 0.75


def test_loss_of_two_processes_is_that_of_one(monkeypatch: pytest.MonkeyPatch):
    """Each compares its own views with everybody's; itself and the partner lie at places that the rank decides."""
    z1, z2 = vectors(6, 4, 4), vectors(6, 4, 5)
    expected = [value.item() for value in nt_xent(z1, z2, 0.3)]
    shares: list[list[float]] = []
    for rank in (0, 1):
        mine = torch.arange(3 * rank, 3 * rank + 3)
        everyone = {tuple(unit(z)[mine].flatten().tolist()): unit(z) for z in (z1, z2)}
        monkeypatch.setattr(simclr, "gather", lambda x, all=everyone: all[tuple(x.flatten().tolist())])
        monkeypatch.setattr(simclr, "own", lambda n, device=None, mine=mine: mine)
        shares.append([value.item() for value in nt_xent(z1[mine], z2[mine], 0.3)])
    assert abs(shares[0][0] - shares[1][0]) > 1e-3
    assert [sum(values) / 2 for values in zip(*shares, strict=True)] == pytest.approx(expected, rel=1e-6)


def test_value_and_gradient_under_autocast_are_those_in_float32():
    """Bit for bit; the same product in bfloat16 moves the third digit."""
    results = []
    for autocast in (False, True):
        z1, z2 = vectors(16, 32, 0).float().requires_grad_(), vectors(16, 32, 1).float().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss, _ = nt_xent(z1, z2, 0.1)
            z = unit(torch.cat([z1, z2]).detach())
            bare = F.cross_entropy((z @ z.T / 0.1).fill_diagonal_(-inf), torch.arange(32).roll(16))
        loss.backward()
        results.append((loss, z1.grad, z2.grad))
        assert (abs(bare.item() - loss.item()) > 1e-4) == autocast
    for plain, cast in zip(*results, strict=True):
        assert cast is not None and cast.dtype == torch.float32 and torch.equal(plain, cast)


def test_bfloat16_projections_are_widened():
    z1, z2 = vectors(16, 32, 0).bfloat16(), vectors(16, 32, 1).bfloat16()
    loss, _ = nt_xent(z1, z2, 0.1)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_nt_xent(z1.tolist(), z2.tolist(), 0.1), rel=1e-6)


# --- gradients and a step -------------------------------------------------------------------------


def test_method_is_the_loss_of_each_views_own_pass():
    """Value and every parameter's gradient, by PyTorch's cross-entropy over all cosines, in double precision."""
    method, views = tiny(), two_views()
    copy = deepcopy(method)
    z = torch.cat([copy.projector(copy.backbone(view)) for view in views])
    logits = F.cosine_similarity(z.unsqueeze(1), z.unsqueeze(0), dim=2) / 0.5
    choices = logits[~torch.eye(12, dtype=torch.bool)].view(12, 11)  # without oneself, which shifts what comes after
    partner = torch.tensor([5, 6, 7, 8, 9, 10, 0, 1, 2, 3, 4, 5])
    expected = F.cross_entropy(choices, partner)
    expected.backward()
    together = deepcopy(method)
    mixed = together.projector(together.backbone(torch.cat(views))).tolist()
    assert abs(slow_nt_xent(mixed[:6], mixed[6:], 0.5) - expected.item()) > 1e-3  # one pass of both would show

    output = method(views)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-12)
    for (name, parameter), other in zip(method.named_parameters(), copy.parameters(), strict=True):
        if parameter.requires_grad:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
            torch.testing.assert_close(parameter.grad, other.grad, atol=1e-12, rtol=1e-9)


def test_each_view_is_its_own_forward_pass_in_both_networks():
    """The backbone is given view 1, then view 2; every BatchNorm moves twice, towards each view's own mean."""
    method, views = tiny(), two_views()
    seen: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    convolution, norm = method.backbone.net[0], method.backbone.net[1]
    mean1, mean2 = (convolution(view).mean((0, 2, 3)).detach() for view in views)
    method(views)
    assert len(seen) == 2 and all(map(torch.equal, seen, views))
    torch.testing.assert_close(norm.running_mean, 0.9 * 0.1 * mean1 + 0.1 * mean2)
    norms = [layer for layer in method.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert [int(layer.num_batches_tracked) for layer in norms] == [2] * 3


def test_output_holds_the_first_views_projections_and_the_share_found():
    method, views = tiny(), two_views()
    copy = deepcopy(method)
    z1, z2 = (copy.projector(copy.backbone(view)).detach() for view in views)
    output = method(views)
    torch.testing.assert_close(output.embeddings, z1)
    assert not output.embeddings.requires_grad
    z = unit(torch.cat([z1, z2]))
    nearest = (z @ z.T).fill_diagonal_(-1).argmax(1)
    share = (nearest == torch.arange(12).roll(6)).double().mean().item()
    assert set(output.terms) == {"found"} and not output.terms["found"].requires_grad
    assert output.terms["found"].item() == pytest.approx(share)


def test_nothing_but_the_optimiser_changes_it():
    """No target and no schedule: neither hook touches a weight or a statistic."""
    method = tiny()
    state = deepcopy(method.state_dict())
    for progress in (0.0, 0.5, 1.0):
        method.before_step(progress)
        method.after_step(progress)
        assert method.scheduled(progress) == {}
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())


def test_the_last_offset_is_none_at_all():
    """The released head ends in a BatchNorm with a scale but no offset: ours has one, which stays 0 in training."""
    method = tiny()
    scale, offset = method.projector[1].weight, method.projector[1].bias
    optimizer = create("sgd", method.param_groups(), lr=0.5, weight_decay=0.1, decay_all=True)
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(p) for p in method.parameters()} - {id(offset)}
    for seed in range(3):
        optimizer.zero_grad()
        method(two_views(seed=seed)).loss.backward()
        optimizer.step()
    assert offset.grad is None and offset.abs().max() == 0
    assert (scale - 1).abs().min() > 1e-6


def test_biases_and_norms_are_not_decayed():
    decayed, plain = tiny().param_groups()
    assert (decayed["decay"], plain["decay"]) == (True, False)
    assert {p.ndim for p in decayed["params"]} == {2, 4}
    assert [len(p) for p in plain["params"]] == [8, 8, 16, 16, 6]  # the backbone's and the hidden norm, the last scale


@pytest.mark.parametrize("count", [0, 1, 3])
def test_other_than_two_views_are_refused(count: int):
    with pytest.raises(OwnlatentError, match=rf"simclr.* 2 .*not {count}"):
        tiny()([two_views()[0]] * count)


def test_one_image_is_too_few():
    tiny().check_batch(2)
    with pytest.raises(OwnlatentError, match=r"simclr.*at least 2 images.*not 1"):
        tiny().check_batch(1)


# --- architecture and settings --------------------------------------------------------------------


def test_defaults_are_the_papers():
    expected = {"hidden": 2048, "projection": 128, "layers": 2, "temperature": 0.1, "norm": "batch"}
    assert methods.settings("simclr") == expected


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_head_is_that_of_the_released_code(layers: int):
    """Linear without bias and BatchNorm, `layers` times, and a ReLU behind each but the last; SimCLR v2 has three."""
    method = tiny(layers=layers)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.ReLU] * (layers - 1) + [nn.Linear]
    assert [type(layer) for layer in method.projector[0]] == kinds
    assert [type(layer) for layer in method.projector] == [type(method.projector[0]), nn.BatchNorm1d]
    linear = [layer for layer in method.projector.modules() if isinstance(layer, nn.Linear)]
    shapes = [(16, 8), (16, 16), (16, 16)][: layers - 1]
    assert [tuple(layer.weight.shape) for layer in linear] == [*shapes, (6, 16 if layers > 1 else 8)]
    assert all(layer.bias is None for layer in linear)
    norms = [layer for layer in method.projector.modules() if isinstance(layer, nn.BatchNorm1d)]
    assert [layer.weight.requires_grad for layer in norms] == [True] * layers
    assert [layer.bias.requires_grad for layer in norms] == [True] * (layers - 1) + [False]


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm1d), ("group", nn.GroupNorm), ("layer", nn.LayerNorm), ("none", None)]
)
def test_norm_is_used_throughout_the_head(norm: str, kind: type | None):
    method = tiny(norm=norm)
    kinds = (nn.BatchNorm1d, nn.GroupNorm, nn.LayerNorm)
    found = [layer for layer in method.projector.modules() if isinstance(layer, kinds)]
    assert [type(layer) for layer in found] == ([kind] * 2 if kind else [])
    assert [layer.bias.requires_grad for layer in found] == ([True, False] if kind else [])
    assert method(two_views()).loss.isfinite()


def test_temperature_divides_the_cosines():
    """Collapsed it would not show; here a colder loss of the same weights is another one, as the slow loss has it."""
    for temperature in (0.07, 2.0):
        method = tiny(temperature=temperature)
        copy = deepcopy(method)
        z1, z2 = (copy.projector(copy.backbone(view)).tolist() for view in two_views())
        assert method(two_views()).loss.item() == pytest.approx(slow_nt_xent(z1, z2, temperature), rel=1e-12)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"temperature": -0.1}, "temperature must be greater than 0"),
        ({"temperature": nan}, "temperature must be greater than 0"),
        ({"layers": 0}, "layers at least 1"),
        ({"hidden": 0}, "at least 1, not 0"),
        ({"projection": -1}, "at least 1, not 16, -1"),
        ({"norm": "bach"}, r"no norm 'bach'.*batch"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], told: str):
    with pytest.raises(OwnlatentError, match=told):
        tiny(**settings)


# --- recipes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_imagenet_recipe_is_the_published_one_on_any_machine(device: str):
    """Batch 4096, 0.3 for 256 images and so 4.8, ten epochs of warm-up in a thousand, decay 1e-6 but of no norm."""
    assert set(methods.named_recipes("simclr")) == {"imagenet"}
    assert "1000 epochs, 69.3 %" in RECIPES["imagenet"]["about"]
    recipe = edit(Recipe(method="simclr"), methods.named_recipes("simclr")["imagenet"])
    recipe = resolve(recipe, Facts(1_281_167, 3, 375, device), {})
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("resnet50", 224, 4096, 1000)
    optim = recipe.optim
    assert (optim.name, optim.momentum, optim.eta, optim.end_lr) == ("lars", 0.9, 1e-3, 0.0)
    assert (optim.weight_decay, optim.end_weight_decay, optim.decay_all) == (1e-6, 1e-6, False)
    assert (optim.lr, optim.warmup, optim.bias_lr) == (pytest.approx(4.8), 10 / 1000, 1.0)
    assert recipe.views == VIEWS["simclr"]
    assert [(view.hue, view.blur, view.solarize) for view in recipe.views] == [(0.2, 0.5, 0.0)] * 2
    assert recipe.method_settings == methods.settings("simclr")
