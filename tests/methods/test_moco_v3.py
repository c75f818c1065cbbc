"""MoCo v3 against its algorithm 1: the expected numbers follow from the formula and the published settings by hand."""

from copy import deepcopy
from itertools import pairwise
from math import cos, pi
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.augment.recipes import View
from ownlatent.errors import OwnlatentError
from ownlatent.methods.moco_v3 import RECIPES, MoCoV3
from ownlatent.train.recipe import Recipe, edit
from ownlatent.train.resolve import Facts, resolve
from ownlatent.types import Views


def tiny(seed: int = 0, apart: bool = True, **settings: Any) -> MoCoV3:
    """One convolution and narrow heads; `apart` moves the target, which else is the online network at the start."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    backbone = backbones.create(net, channels=3, image_size=8)
    method = MoCoV3(backbone, **{"hidden": 16, "projection": 4, **settings})
    for parameter in method.target.parameters():
        parameter.data.add_(0.5 * apart * torch.randn_like(parameter))
    return method


def two_views(batch: int = 6, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def formula(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Algorithm 1's ctr; test_moco_v3_loss.py has it in loops."""
    q, k = (x / x.norm(dim=1, keepdim=True) for x in (queries, keys))
    likelihood = (q @ k.T / temperature).exp()
    return -2 * temperature * (likelihood.diagonal() / likelihood.sum(1)).log().mean()


def online(method: MoCoV3) -> list[Tensor]:
    """What the target follows, in its order."""
    return [*method.backbone.parameters(), *method.projector.parameters()]


def train(method: MoCoV3, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([p for group in method.param_groups() for p in group["params"]], lr=0.5)
    losses = []
    for step in range(steps):
        optimizer.zero_grad()
        loss = method(two_views(seed=step)).loss
        loss.backward()
        method.before_step(step / steps)
        optimizer.step()
        method.after_step(step / steps)
        losses.append(loss.item())
    return losses


# --- one step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_method_pairs_each_prediction_with_the_other_views_keys(temperature: float):
    """ctr(q1, k2) + ctr(q2, k1): predictions of one view, the target's projections of the other, summed."""
    method, views = tiny(temperature=temperature), two_views()
    copy = deepcopy(method)
    z1, z2 = (copy.projector(copy.backbone(view)).detach() for view in views)
    q1, q2 = copy.predictor(z1).detach(), copy.predictor(z2).detach()
    k1, k2 = (copy.target(view) for view in views)

    def value(*pairs: tuple[Tensor, Tensor]) -> float:
        return sum(formula(q, k, temperature).item() for q, k in pairs)

    expected = value((q1, k2), (q2, k1))
    wrong = [value((q1, k1), (q2, k2)), value((z1, k2), (z2, k1)), value((k2, q1), (k1, q2)), value((q1, k2))]
    assert min(abs(expected - other) for other in wrong) > 1e-2  # the example can tell these apart
    output, swapped = deepcopy(method)(views), deepcopy(method)(views[::-1])
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    assert swapped.loss.item() == pytest.approx(expected, abs=1e-5)
    assert list(output.terms) == ["found"]
    torch.testing.assert_close(output.embeddings, z1)
    assert not output.embeddings.requires_grad


def test_found_is_the_mean_over_both_queries():
    """Angles in degrees, heads that change nothing: how often the nearest key of the other view is the own one.

    0 finds 10, but 90 is nearest to 110, and 200 to 140; 10 finds 0, 140 finds 90, but so does 110: (1/3 + 2/3) / 2.
    """
    views = [torch.tensor([[pi * a / 180] for a in angles]) for angles in ([0, 90, 200], [10, 140, 110])]
    method = MoCoV3(backbones.create(nn.Flatten(), channels=2, image_size=1), hidden=2, projection=2)
    method.projector, method.predictor, method.target = nn.Identity(), nn.Identity(), nn.Flatten()
    output = method([torch.cat([a.cos(), a.sin()], 1).view(3, 2, 1, 1) for a in views])
    assert output.terms["found"].item() == pytest.approx(1 / 2)


def test_gradients_are_those_of_the_formula_and_none_reaches_the_target():
    method, views = tiny(temperature=0.2), two_views()
    copy = deepcopy(method)
    q1, q2 = (copy.predictor(copy.projector(copy.backbone(view))) for view in views)
    k1, k2 = (copy.target(view) for view in views)
    (formula(q1, k2, 0.2) + formula(q2, k1, 0.2)).backward()
    method(views).loss.backward()
    for (name, actual), wanted in zip(method.named_parameters(), copy.parameters(), strict=True):
        if name.startswith("target"):
            assert actual.grad is None and not actual.requires_grad
        else:
            torch.testing.assert_close(actual.grad, wanted.grad, atol=2e-6, rtol=1e-4)


def test_loss_is_float32_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tiny()(two_views()).loss.dtype == torch.float32


def test_target_is_not_optimised_and_the_rest_is():
    method = tiny()
    optimised = [id(p) for group in method.param_groups() for p in group["params"]]
    assert sorted(optimised) == sorted(map(id, [*online(method), *method.predictor.parameters()]))
    assert len(list(method.target.parameters())) == len(online(method))  # no predictor on that side


def test_each_view_is_its_own_pass():
    """Online and target see each view once and alone, so that BatchNorm's statistics are per view."""
    method, views = tiny(), two_views()
    seen: dict[str, list[Tensor]] = {"online": [], "target": []}
    for name, network in (("online", method.backbone), ("target", method.target.net[0])):
        network.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].clone()))
    method(views)
    for passes in seen.values():
        assert len(passes) == 2
        assert {i for one in passes for i in (0, 1) if torch.equal(one, views[i])} == {0, 1}
    assert method.predictor[0][1].num_batches_tracked == 2


# --- the moving average ---------------------------------------------------------------------------


@pytest.mark.parametrize("tau", [0.99, 0.996])
def test_schedule_of_tau(tau: float):
    """1 - (1 - m)(1 + cos(pi t / T)) / 2: from tau over (1 + tau) / 2 to 1, always rising."""
    taus = [tiny(tau=tau).scheduled(k / 20)["tau"] for k in range(21)]
    assert (taus[0], taus[20]) == (pytest.approx(tau, abs=1e-15), 1)
    assert taus[10] == pytest.approx((1 + tau) / 2, abs=1e-15)
    assert all(later > earlier for earlier, later in pairwise(taus))
    assert taus[5] == pytest.approx(1 - (1 - tau) * (1 + cos(pi / 4)) / 2, abs=1e-12)


def test_training_equals_the_published_order_of_events():
    """There the target moves between the queries and the keys of the next step; here after the optimiser.

    Momentum of parameters only, by the schedule at the step that has just been made.
    """
    method, steps = tiny(apart=False, tau=0.5, temperature=0.2), 5
    net, predictor = deepcopy(nn.Sequential(method.backbone, method.projector)), deepcopy(method.predictor)
    target, expected, tau = deepcopy(net), [], 1.0
    optimizer = torch.optim.SGD([*net.parameters(), *predictor.parameters()], lr=0.5)
    for step in range(steps):
        view1, view2 = two_views(seed=step)
        q1, q2 = predictor(net(view1)), predictor(net(view2))
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
                slow.copy_(tau * slow + (1 - tau) * fast)
            k1, k2 = target(view1), target(view2)
        tau = 1 - 0.5 * (1 + cos(pi * step / steps)) / 2
        loss = formula(q1, k2, 0.2) + formula(q2, k1, 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        expected.append(loss.item())
    assert train(method, steps) == pytest.approx(expected, abs=1e-4)  # five steps let float32's rounding grow


def test_only_after_step_moves_the_target_and_never_its_statistics():
    method = tiny(tau=0.9)
    start, buffers = [p.clone() for p in method.target.parameters()], deepcopy(dict(method.target.named_buffers()))
    method(two_views()).loss.backward()
    method.before_step(0.5)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), start, strict=True))
    assert method.target.training  # its own statistics come from its own passes
    after = deepcopy(dict(method.target.named_buffers()))
    assert not any(torch.equal(value, buffers[name]) for name, value in after.items())
    method.after_step(0.5)
    for target, theta, xi in zip(method.target.parameters(), online(method), start, strict=True):
        torch.testing.assert_close(target - theta, 0.95 * (xi - theta), atol=1e-6, rtol=1e-5)
    assert all(torch.equal(value, after[name]) for name, value in method.target.named_buffers())


def test_tau_one_keeps_the_target_bit_for_bit():
    method = tiny(tau=1.0)
    start = [p.clone() for p in method.target.parameters()]
    train(method, steps=3)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), start, strict=True))
    method.tau = 0.0  # at the beginning of the run: a copy
    method.after_step(0.0)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), online(method), strict=True))


# --- architecture and settings --------------------------------------------------------------------


def layers(head: nn.Module) -> list[nn.Module]:
    return [m for m in head.modules() if not isinstance(m, nn.Sequential)]


LINEAR, RELU, NORM, PLAIN = "linear without bias", "relu", "norm", "norm without scale and offset"


def described(head: nn.Module) -> list[tuple]:
    names: list[tuple] = []
    for layer in layers(head):
        if isinstance(layer, nn.Linear):
            assert layer.bias is None
            names.append((LINEAR, layer.in_features, layer.out_features))
        elif isinstance(layer, nn.BatchNorm1d):
            assert (layer.eps, layer.momentum) == (1e-5, 0.1)
            names.append((NORM if layer.affine else PLAIN, layer.num_features))
        else:
            assert isinstance(layer, nn.ReLU)
            names.append((RELU,))
    return names


def test_heads_of_resnets_are_those_of_the_released_code():
    """Two layers each, no biases; the projector ends in BatchNorm without scale and offset, the predictor does not."""
    method = tiny()
    hidden = [(LINEAR, 8, 16), (NORM, 16), (RELU,), (LINEAR, 16, 4)]
    assert described(method.projector) == [*hidden, (PLAIN, 4)]
    assert described(method.predictor) == [(LINEAR, 4, 16), *hidden[1:]]


def test_heads_of_vision_transformers_are_those_of_the_released_code():
    """Three layers in the projector, and a plain BatchNorm at the end of the predictor as well."""
    method = tiny(projector_layers=3, predictor_norm=True)
    first, middle, last = (LINEAR, 8, 16), [(NORM, 16), (RELU,)], (LINEAR, 16, 4)
    assert described(method.projector) == [first, *middle, (LINEAR, 16, 16), *middle, last, (PLAIN, 4)]
    assert described(method.predictor) == [(LINEAR, 4, 16), *middle, last, (PLAIN, 4)]
    assert described(tiny(projector_layers=1).projector) == [(LINEAR, 8, 4), (PLAIN, 4)]


@pytest.mark.parametrize(
    ("norm", "kind"),
    [("batch", nn.BatchNorm1d), ("group", nn.GroupNorm), ("layer", nn.LayerNorm), ("none", nn.Identity)],
)
def test_norm_chooses_what_normalises_both_heads(norm: str, kind: type):
    method = tiny(norm=norm, predictor_norm=True)
    for head in (method.projector, method.predictor):
        found = [m for m in layers(head) if not isinstance(m, nn.Linear | nn.ReLU)]
        assert [type(m) for m in found] == [kind, kind]
        assert list(found[1].parameters()) == []
    assert method(two_views()).loss.isfinite()


def test_target_starts_as_a_copy_of_backbone_and_projector():
    method = tiny(apart=False)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), online(method), strict=True))


def test_defaults_are_those_of_resnet50():
    assert methods.settings("moco_v3") == {
        **{"hidden": 4096, "projection": 256, "projector_layers": 2, "predictor_norm": False},
        **{"tau": 0.99, "temperature": 1.0, "norm": "batch"},
    }


@pytest.mark.parametrize(
    ("setting", "values", "sentence"),
    [
        ("tau", [-0.01, 1.01, float("nan")], r"tau must lie in \[0, 1\]"),
        ("temperature", [0.0, -1.0, float("nan")], "temperature must be greater than 0"),
        ("projector_layers", [0, -1], "projector_layers at least 1"),
        ("norm", ["bach"], "the nearest is batch"),
        ("hidden", [0], "hidden"),
        ("projection", [0], "projection"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, values: list, sentence: str):
    for value in values:
        with pytest.raises(OwnlatentError, match=sentence):
            tiny(**{setting: value})


def test_one_image_one_view_and_three_views_are_refused():
    """One image has no negatives, and BatchNorm makes a constant of it."""
    with pytest.raises(OwnlatentError, match=r"moco_v3 .* at least 2 images"):
        tiny().check_batch(1)
    tiny().check_batch(2)
    for count in (1, 3):
        with pytest.raises(OwnlatentError, match=r"moco_v3 .*views"):
            tiny()([*two_views(), *two_views()][:count])


def resolved(side: int, device: str, images: int, changes: dict[str, Any]) -> Recipe:
    facts = Facts(num_images=images, channels=3, side=side, device=device)
    return resolve(edit(Recipe(method="moco_v3"), changes), facts, {})


def test_imagenet_recipe_is_the_published_one():
    """LARS 0.3 at 256 images (4.8 for 4096), decay 1e-6, ten epochs of warm-up, tau 0.99, temperature 1: 72.8 %."""
    recipe = resolved(375, "cuda", 1_281_167, methods.named_recipes("moco_v3")["imagenet"])
    assert "300 epochs" in RECIPES["imagenet"]["about"] and "72.8" in RECIPES["imagenet"]["about"]
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("resnet50", 224, 4096, 300)
    optim = recipe.optim
    assert (optim.name, optim.momentum, optim.eta, optim.weight_decay, optim.decay_all) == (
        "lars",
        0.9,
        1e-3,
        1e-6,
        False,
    )
    assert (optim.lr, optim.end_lr) == (pytest.approx(4.8), 0.0)
    assert optim.warmup == pytest.approx(10 / 300, abs=1e-4)
    assert recipe.method_settings == methods.settings("moco_v3")
    view = View(crop_scale=(0.2, 1.0), brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, jitter=0.8, grayscale=0.2)
    rest = {"flip": 0.5, "blur_sigma": (0.1, 2.0)}
    assert recipe.views == tuple(
        View(**{**vars(view), **rest, "blur": blur, "solarize": solarize})
        for blur, solarize in ((1.0, 0.0), (0.1, 0.2))
    )


def test_vision_transformer_recipe_is_the_published_one():
    """AdamW 1.5e-4 at 256 images, decay 0.1, 40 epochs of warm-up, temperature 0.2, crops from 0.08: 73.2 %."""
    recipe = resolved(375, "cuda", 1_281_167, methods.named_recipes("moco_v3")["imagenet_vit"])
    assert "300 epochs" in RECIPES["imagenet_vit"]["about"] and "73.2" in RECIPES["imagenet_vit"]["about"]
    assert (recipe.backbone, recipe.image_size) == ("vit_small_patch16_224", 224)
    assert (recipe.batch_size, recipe.epochs) == (4096, 300)
    optim = recipe.optim
    assert (optim.name, optim.lr, optim.weight_decay) == ("adamw", pytest.approx(2.4e-3), 0.1)
    assert optim.warmup == pytest.approx(40 / 300, abs=1e-4)
    changed = {"projector_layers": 3, "predictor_norm": True, "temperature": 0.2}
    assert recipe.method_settings == {**methods.settings("moco_v3"), **changed}
    assert recipe.views is not None and [view.crop_scale for view in recipe.views] == [(0.08, 1.0)] * 2
    assert [(view.blur, view.solarize) for view in recipe.views] == [(1.0, 0.0), (0.1, 0.2)]


def test_long_runs_have_a_slower_target():
    """0.996 for 1000 epochs, 0.99 for up to 300."""
    taus = [resolved(224, "cuda", 50_000, {"epochs": epochs}).method_settings["tau"] for epochs in (100, 300, 1000)]
    assert taus == [0.99, 0.99, 0.996]
