"""SimSiam against its equation: the expected numbers follow from the paper by hand, not from the code."""

from copy import deepcopy
from math import sqrt
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.augment.recipes import RECIPES as VIEWS
from ownlatent.errors import OwnlatentError
from ownlatent.methods.simsiam import RECIPES, SimSiam
from ownlatent.optim.create import create
from ownlatent.train.recipe import Recipe, edit
from ownlatent.train.resolve import Facts, resolve
from ownlatent.types import Views


def tiny(seed: int = 0, **settings: Any) -> SimSiam:
    """One convolution with BatchNorm as the backbone, and narrow heads, all in double precision."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    widths = {"hidden": 16, "projection": 6, "bottleneck": 4}
    return SimSiam(backbones.create(net, channels=3, image_size=8), **{**widths, **settings}).double()


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator, dtype=torch.float64)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator, dtype=torch.float64) + 0.5]


def vectors(batch: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn((batch, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def without_heads(width: int = 2, predictor: nn.Module | None = None, **settings: Any) -> SimSiam:
    """The images (B, width, 1, 1) are the projections themselves, and the predictions if there is no predictor."""
    backbone = backbones.create(nn.Flatten(), channels=width, image_size=1)
    method = SimSiam(backbone, hidden=2, projection=2, bottleneck=2, **settings)
    method.projector, method.predictor = nn.Identity(), predictor or nn.Identity()
    return method


def images(x: Tensor) -> Tensor:
    return x.unflatten(1, (-1, 1, 1))


def turned(x: Tensor, degrees: float) -> Tensor:
    """Vectors (B, 2), turned in the plane."""
    angle = torch.tensor(degrees, dtype=x.dtype).deg2rad()
    return x @ torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()]).view(2, 2)


def slow_loss(p1: Tensor, p2: Tensor, z1: Tensor, z2: Tensor) -> float:
    """Equation 4 word by word: each prediction with the other's projection, negative cosines, half of each."""
    total = 0.0
    for prediction, projection in ((p1, z2), (p2, z1)):
        for p, z in zip(prediction.tolist(), projection.tolist(), strict=True):
            product = sum(a * b for a, b in zip(p, z, strict=True))
            total -= product / sqrt(sum(a * a for a in p)) / sqrt(sum(b * b for b in z)) / 2
    return total / len(p1)


def parts(method: SimSiam, views: Views) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """p1, p2, z1, z2, each view by itself."""
    z1, z2 = (method.projector(method.backbone(view)) for view in views)
    return method.predictor(z1), method.predictor(z2), z1, z2


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("degrees", "expected"), [(0, -1.0), (60, -0.5), (90, 0.0), (180, 1.0)])
def test_loss_of_known_angles_at_any_scale(degrees: float, expected: float):
    """-1 where all agree, 0 where they are orthogonal, 1 where opposite: a mean over both directions, not a sum."""
    x = vectors(5, 2)
    lengths = torch.tensor([[0.01], [0.3], [1.0], [7.0], [500.0]], dtype=torch.float64)
    loss = without_heads()([images(x), images(lengths * turned(x, degrees))]).loss
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("second", "expected"), [(45, -0.5), (90, 0.0), (-45, -0.5), (135, 0.5)])
def test_each_prediction_meets_the_other_projection(second: float, expected: float):
    """A predictor that turns by 45 degrees, views `second` apart: -(cos(45 - second) + cos(45 + second)) / 2.

    Paired with its own projection it would always be -cos 45.
    """
    turning = nn.Linear(2, 2, bias=False).double()
    turning.weight.data = turned(torch.eye(2, dtype=torch.float64), 45).T
    x = vectors(5, 2)
    loss = without_heads(predictor=turning)([images(x), images(turned(x, second))]).loss
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_loss_equals_a_slow_reference(stop_gradient: bool):
    """The stopped gradient changes no value."""
    method, views = tiny(stop_gradient=stop_gradient), two_views()
    p1, p2, z1, z2 = parts(deepcopy(method), views)
    expected = slow_loss(p1, p2, z1, z2)
    assert abs(expected - slow_loss(p1, p2, z2, z1)) > 1e-2  # pairs of one view would give another value
    assert abs(expected - slow_loss(z1, z2, p1, p2)) < 1e-12  # which of the two is stopped does not show here
    assert method(views).loss.item() == pytest.approx(expected, rel=1e-12)


def test_loss_does_not_depend_on_the_order_of_views_or_images():
    method, (view1, view2) = tiny(), two_views()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = deepcopy(method)([view1, view2]).loss.item()
    assert deepcopy(method)([view2, view1]).loss.item() == pytest.approx(expected, rel=1e-12)
    assert deepcopy(method)([view1[order], view2[order]]).loss.item() == pytest.approx(expected, rel=1e-9)
    assert abs(method([view1, view2[order]]).loss.item() - expected) > 1e-3


def test_loss_is_float32_under_autocast():
    """Of bfloat16 projections the cosine is still that of double precision; rounded it would err by 1e-3."""
    x, y = vectors(16, 32, 0).bfloat16(), vectors(16, 32, 1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = without_heads(32)([images(x), images(y)]).loss
        assert tiny().float()([view.float() for view in two_views()]).loss.dtype == torch.float32
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(slow_loss(x.double(), y.double(), x.double(), y.double()), abs=1e-6)
    assert loss.item() != loss.bfloat16().item()  # so the example could have shown a rounding


# --- gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stop_gradient", "times"), [(True, 1), (False, 2)])
def test_gradient_in_closed_form(stop_gradient: bool, times: int):
    """Of p: -(t - (p . t) p) / (2 B |p|) with unit p and t, of length sin(angle) / (2 B |p|).

    Without a predictor the unstopped side gives the same once more: a missing detach doubles the gradient.
    """
    batch = 5
    x, y = (3 * vectors(batch, 6, 0)).requires_grad_(), vectors(batch, 6, 1).requires_grad_()
    without_heads(6, stop_gradient=stop_gradient)([images(x), images(y)]).loss.backward()
    for p, t in ((x, y), (y, x)):
        assert p.grad is not None
        length = p.detach().norm(dim=1, keepdim=True)
        p_unit, t_unit = p.detach() / length, t.detach() / t.detach().norm(dim=1, keepdim=True)
        cosine = (p_unit * t_unit).sum(1, keepdim=True)
        torch.testing.assert_close(p.grad, -times * (t_unit - cosine * p_unit) / (2 * batch * length))
        assert (p.grad * p_unit).sum(1).abs().max() < 1e-15
        sine = (1 - cosine**2).sqrt()
        torch.testing.assert_close(p.grad.norm(dim=1, keepdim=True), times * sine / (2 * batch * length))


class Answer(nn.Module):
    """A predictor that does not look at its input."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, z: Tensor) -> Tensor:
        return self.value


def test_no_gradient_reaches_what_is_predicted():
    """The images are here only what is predicted: nothing at all may come back to them, unless it is let through."""
    for stop_gradient in (True, False):
        x, y = vectors(4, 3, 0).requires_grad_(), vectors(4, 3, 1).requires_grad_()
        method = without_heads(3, Answer(vectors(4, 3, 2)), stop_gradient=stop_gradient)
        method([images(x), images(y)]).loss.backward()
        assert method.predictor.value.grad is not None and method.predictor.value.grad.abs().min() > 0
        for image in (x, y):
            assert image.grad is None if stop_gradient else image.grad.abs().sum(1).min() > 0


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_every_parameters_gradient_is_that_of_the_papers_pseudo_code(stop_gradient: bool):
    """Algorithm 1 with PyTorch's own cosine, in double precision."""
    method, views = tiny(stop_gradient=stop_gradient), two_views()
    copy = deepcopy(method)
    p1, p2, z1, z2 = parts(copy, views)
    if stop_gradient:
        z1, z2 = z1.detach(), z2.detach()
    (-(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2).backward()
    method(views).loss.backward()
    for (name, parameter), expected in zip(method.named_parameters(), copy.parameters(), strict=True):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        torch.testing.assert_close(parameter.grad, expected.grad, atol=1e-12, rtol=1e-9)


def test_stopping_the_gradient_changes_it_for_the_projector_but_not_for_the_predictor():
    gradients = []
    for stop_gradient in (True, False):
        method = tiny(stop_gradient=stop_gradient)
        method(two_views()).loss.backward()
        gradients.append((method.projector[0][0].weight.grad, method.predictor[0].weight.grad))
    (projector, predictor), (unstopped, same) = gradients
    assert (projector - unstopped).norm() > 0.1 * projector.norm()
    torch.testing.assert_close(predictor, same, atol=1e-14, rtol=1e-9)


# --- a pass and a step ----------------------------------------------------------------------------


def test_each_view_is_its_own_forward_pass_in_every_network():
    """The backbone is given view 1, then view 2; each head's BatchNorm moves twice, towards each view's own mean."""
    method, views = tiny(), two_views()
    seen: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    convolution, norm = method.backbone.net[0], method.backbone.net[1]
    mean1, mean2 = (convolution(view).mean((0, 2, 3)).detach() for view in views)
    method(views)
    assert len(seen) == 2 and all(map(torch.equal, seen, views))
    torch.testing.assert_close(norm.running_mean, 0.9 * 0.1 * mean1 + 0.1 * mean2)
    norms = [layer for layer in method.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    assert [int(layer.num_batches_tracked) for layer in norms] == [2] * 5


def test_embeddings_are_the_projections_of_the_first_view_standardised():
    """Not the predictions. The last BatchNorm leaves every dimension with mean 0 and variance close to 1."""
    method, views = tiny(), two_views(batch=32)
    _, _, z1, _ = parts(deepcopy(method), views)
    output = method(views)
    torch.testing.assert_close(output.embeddings, z1.detach())
    assert not output.embeddings.requires_grad and output.terms == {}
    assert output.embeddings.mean(0).abs().max() < 1e-12
    spread = deepcopy(method).projector[0](method.backbone(views[0])).var(0, unbiased=False)
    torch.testing.assert_close(output.embeddings.var(0, unbiased=False), (spread / (spread + 1e-5)).detach())


def test_nothing_but_the_optimiser_changes_it():
    """No target and no schedule: neither hook touches a weight, a statistic or a gradient."""
    method = tiny()
    method(two_views()).loss.backward()
    state = deepcopy(method.state_dict())
    gradients = [p.grad.clone() for p in method.parameters()]
    for progress in (0.0, 0.5, 1.0):
        method.before_step(progress)
        method.after_step(progress)
        assert method.scheduled(progress) == {}
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert all(torch.equal(p.grad, before) for p, before in zip(method.parameters(), gradients, strict=True))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_other_than_two_views_are_refused(count: int):
    with pytest.raises(OwnlatentError, match=rf"simsiam.* 2 .*not {count}"):
        tiny()([two_views()[0]] * count)


def test_one_image_is_too_few():
    tiny().check_batch(2)
    with pytest.raises(OwnlatentError, match=r"simsiam.*at least 2 images.*not 1"):
        tiny().check_batch(1)


# --- architecture and settings --------------------------------------------------------------------


def shapes(head: nn.Module) -> list[tuple[str, tuple[int, ...], bool]]:
    """Kind of layer, shape of its weight and whether it has a bias, without ReLU."""
    layers = [layer for layer in head.modules() if not isinstance(layer, nn.Sequential | nn.ReLU)]
    return [
        (type(layer).__name__, () if layer.weight is None else tuple(layer.weight.shape), layer.bias is not None)
        for layer in layers
    ]


def test_heads_are_those_of_the_released_code():
    """No bias before a BatchNorm, no scale or offset in the projector's last, a bias at the predictor's end."""
    method = tiny()
    linear, norm = "Linear", "BatchNorm1d"
    assert shapes(method.projector) == [
        *((linear, (16, 8), False), (norm, (16,), True)),
        *((linear, (16, 16), False), (norm, (16,), True)),
        *((linear, (6, 16), False), (norm, (), False)),
    ]
    assert shapes(method.predictor) == [(linear, (4, 6), False), (norm, (4,), True), (linear, (6, 4), True)]
    relus = [i for i, layer in enumerate(method.projector[0]) if isinstance(layer, nn.ReLU)]
    assert relus == [2, 5]  # behind the hidden layers, and not behind the last
    assert [type(layer) for layer in method.predictor] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [type(layer) for layer in method.projector][1:] == [nn.BatchNorm1d]


def test_defaults_are_the_papers():
    """A bottleneck of a quarter of the projection, three layers, and the predictor's rate that gave 68.1."""
    assert methods.settings("simsiam") == {
        "hidden": 2048,
        "projection": 2048,
        "bottleneck": 512,
        "projector_layers": 3,
        "constant_predictor_lr": True,
        "stop_gradient": True,
        "norm": "batch",
    }


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_projector_has_as_many_layers_as_asked(layers: int):
    """Two for CIFAR-10; the standardisation stays at the end of any."""
    method = tiny(projector_layers=layers)
    widths = [shape[1] for shape in shapes(method.projector) if shape[0] == "Linear"]
    assert widths == [*[(16, 8), (16, 16), (16, 16)][: layers - 1], (6, 16 if layers > 1 else 8)]
    assert shapes(method.projector)[-1] == ("BatchNorm1d", (), False)
    assert len(shapes(method.predictor)) == 3


@pytest.mark.parametrize(
    ("norm", "kind"), [("batch", nn.BatchNorm1d), ("group", nn.GroupNorm), ("layer", nn.LayerNorm), ("none", None)]
)
def test_norm_is_used_in_both_heads_and_at_the_projectors_end(norm: str, kind: type | None):
    method = tiny(norm=norm)
    kinds = (nn.BatchNorm1d, nn.GroupNorm, nn.LayerNorm)
    found = [[type(m) for m in head.modules() if isinstance(m, kinds)] for head in (method.projector, method.predictor)]
    assert found == ([[kind] * 3, [kind]] if kind else [[], []])
    if kind:
        assert list(method.projector[1].parameters()) == []  # without scale and offset, whatever it is
    assert method(two_views()).loss.isfinite()


@pytest.mark.parametrize("constant", [True, False])
def test_only_the_predictors_rate_may_be_held(constant: bool):
    """All parameters are trained, once; those marked, and no others, are the predictor's."""
    method = tiny(constant_predictor_lr=constant)
    optimizer = create("sgd", method.param_groups(), lr=0.1, weight_decay=1e-4)
    held = [p for group in optimizer.param_groups if group.get("constant_lr") for p in group["params"]]
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == ({id(p) for p in method.predictor.parameters()} if constant else set())
    assert sorted(map(id, trained)) == sorted(map(id, method.parameters()))
    assert all(group["lr"] == 0.1 for group in optimizer.param_groups)
    assert {p.ndim for g in optimizer.param_groups if g["weight_decay"] == 0 for p in g["params"]} == {1}


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"projector_layers": 0}, "projector has at least 1 layer, not 0"),
        ({"projector_layers": -2}, "projector has at least 1 layer, not -2"),
        ({"hidden": 0}, "at least 1, not 0"),
        ({"projection": 0}, "at least 1, not"),
        ({"bottleneck": -1}, "at least 1, not -1"),
        ({"norm": "bach"}, "no norm 'bach'.*batch"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any], told: str):
    with pytest.raises(OwnlatentError, match=told):
        tiny(**settings)


# --- recipes --------------------------------------------------------------------------------------

COMMON = {"batch_size": 512, "optim.name": "sgd", "optim.decay_all": True, "optim.warmup": 0.0}
HEADS = {"hidden": 2048, "projection": 2048, "bottleneck": 512, "constant_predictor_lr": True, "stop_gradient": True}


def test_named_recipes_are_the_published_ones():
    """ImageNet: 0.05 for 256 images, decay 1e-4 of everything, no warm-up. CIFAR-10: 0.03 and 5e-4, without blur."""
    own = {f"method.{setting}": default for setting, default in methods.settings("simsiam").items()}
    rows = {
        name: {key: value for key, value in row.items() if key not in own or own[key] != value}
        for name, row in methods.named_recipes("simsiam").items()
    }
    assert set(rows) == {"imagenet", "cifar10"}
    imagenet = {"views": "simsiam", "backbone": "resnet50", "image_size": 224, "epochs": 100}
    assert rows["imagenet"] == {**COMMON, **imagenet, "optim.base_lr": 0.05, "optim.weight_decay": 1e-4}
    cifar10 = {"views": "simsiam_small", "backbone": "resnet18", "image_size": 32, "epochs": 800}
    cifar10 |= {"method.projector_layers": 2}
    assert rows["cifar10"] == {**COMMON, **cifar10, "optim.base_lr": 0.03, "optim.weight_decay": 5e-4}
    assert "100 epochs, 68.1 %" in RECIPES["imagenet"]["about"]
    assert "800 epochs, 91.8 %" in RECIPES["cifar10"]["about"]


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize(("row", "lr", "layers", "blur"), [("imagenet", 0.1, 3, 0.5), ("cifar10", 0.06, 2, 0.0)])
def test_named_recipe_leaves_nothing_to_the_machine(row: str, lr: float, layers: int, blur: float, device: str):
    """What gave the published number is the same run wherever it is asked for, down to the widths of the heads."""
    facts = Facts(1_281_167, 3, 375, device) if row == "imagenet" else Facts(50_000, 3, 32, device)
    recipe = resolve(edit(Recipe(method="simsiam"), methods.named_recipes("simsiam")[row]), facts, {})
    optim = recipe.optim
    assert (optim.name, optim.momentum, optim.end_lr, optim.warmup) == ("sgd", 0.9, 0.0, 0.0)
    assert optim.lr == pytest.approx(lr)
    assert (optim.bias_lr, optim.decay_all, optim.end_weight_decay) == (1.0, True, optim.weight_decay)
    assert recipe.views == VIEWS["simsiam" if row == "imagenet" else "simsiam_small"]
    assert [(view.crop_scale, view.blur) for view in recipe.views] == [((0.2, 1.0), blur)] * 2
    assert recipe.method_settings == {**HEADS, "projector_layers": layers, "norm": "batch"}
