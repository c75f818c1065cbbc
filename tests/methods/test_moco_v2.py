"""MoCo v2 against its papers: the expected numbers follow from equation 1 and the published settings by hand."""

from copy import deepcopy
from math import log
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ownlatent import backbones, methods
from ownlatent.augment.recipes import View
from ownlatent.errors import OwnlatentError
from ownlatent.methods.moco_v2 import RECIPES, MoCoV2
from ownlatent.train.recipe import Recipe, edit
from ownlatent.train.resolve import Facts, resolve
from ownlatent.types import Views

BATCH = 6


def tiny(seed: int = 0, apart: bool = True, **settings: Any) -> MoCoV2:
    """One convolution and narrow heads; `apart` moves the target, which else is the online network at the start."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    backbone = backbones.create(net, channels=3, image_size=8)
    method = MoCoV2(backbone, **{"hidden": 16, "projection": 4, "queue": 24, **settings})
    for parameter in method.target.parameters():
        parameter.data.add_(0.5 * apart * torch.randn_like(parameter))
    return method


def two_views(batch: int = BATCH, seed: int = 1) -> Views:
    """Two views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn((batch, 3, 8, 8), generator=generator)
    return [first, 2 * torch.randn((batch, 3, 8, 8), generator=generator) + 0.5]


def unit_rows(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def query(method: MoCoV2, view: Tensor) -> Tensor:
    return method.projector(method.backbone(view))


def formula(queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Equation 1; test_moco_v2_loss.py has it in loops."""
    q = unit_rows(queries)
    right = ((q * unit_rows(keys)).sum(1) / temperature).exp()
    wrong = (q @ queue.T / temperature).exp().sum(1)
    return -(right / (right + wrong)).log().mean()


def train(method: MoCoV2, steps: int, first: int = 0, lr: float = 0.5) -> list[float]:
    optimizer = torch.optim.SGD([p for group in method.param_groups() for p in group["params"]], lr=lr)
    losses = []
    for step in range(first, first + steps):
        optimizer.zero_grad()
        loss = method(two_views(seed=step)).loss
        loss.backward()
        method.before_step(step / 20)
        optimizer.step()
        method.after_step(step / 20)
        losses.append(loss.item())
    return losses


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_collapsed_method_has_the_log_of_all_candidates(symmetric: bool):
    """A symmetric loss is the mean over both queries and not their sum: it starts from log(1 + K) as well."""
    method = tiny(symmetric=symmetric, queue=12)
    for parameter in (*method.projector[-1].parameters(), *method.target.net[1][-1].parameters()):
        parameter.data.zero_()
    method.projector[-1].bias.data.copy_(torch.tensor([3.0, 0, 0, 4]))
    method.target.net[1][-1].bias.data.copy_(torch.tensor([0.3, 0, 0, 0.4]))
    method.queue.keys.copy_(torch.tensor([0.6, 0, 0, 0.8]))
    assert method(two_views()).loss.item() == pytest.approx(log(13), abs=1e-5)


def test_loss_and_keys_are_float32_under_autocast():
    """A key that was brought to length 1 in bfloat16 would miss it by 1e-3."""
    method = tiny()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert method(two_views()).loss.dtype == torch.float32
    torch.testing.assert_close(method.queue.keys.norm(dim=1), torch.ones(24), atol=1e-6, rtol=0)


# --- one step -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.07, 0.2])
@pytest.mark.parametrize("symmetric", [False, True])
def test_queries_of_one_view_find_keys_of_the_other_among_those_of_earlier_batches(symmetric: bool, temperature: float):
    """View 1 is the query, view 2 the key; symmetric: also the reverse, and neither waits for the other yet."""
    method, views = tiny(symmetric=symmetric, temperature=temperature), two_views()
    copy, queue = deepcopy(method), method.queue.keys.clone()
    q1, q2 = (query(copy, view).detach() for view in views)
    k1, k2 = (unit_rows(copy.target(view)) for view in views)

    def value(pairs: list, waiting: Tensor) -> float:
        return sum(formula(q, k, waiting, temperature).item() for q, k in pairs) / len(pairs)

    if symmetric:
        expected = value([(q1, k2), (q2, k1)], queue)
        wrong = [
            value([(q1, k1), (q2, k2)], queue),
            value([(q1, k2), (q2, k1)], torch.cat([k2, k1, queue[12:]])),
            2 * expected,
        ]
    else:
        expected = value([(q1, k2)], queue)
        wrong = [value([(q1, k1)], queue), value([(q2, k1)], queue), value([(q1, k2)], torch.cat([k2, queue[6:]]))]
    assert min(abs(expected - other) for other in wrong) > 1e-3  # the example can tell these apart
    output = method(views)
    assert output.loss.item() == pytest.approx(expected, abs=1e-5)
    assert list(output.terms) == ["found"]
    torch.testing.assert_close(output.embeddings, q1)  # of the first view
    assert not output.embeddings.requires_grad


def test_found_is_the_mean_over_both_queries():
    """Angles in degrees, heads that change nothing, every waiting key at 45.

    As queries 0 finds 10, and 90 is nearer to 45 than to 140; 10 finds 0, and 140 finds 90: (1/2 + 1) / 2.
    """
    views = [torch.tensor([[torch.pi * a / 180] for a in angles]) for angles in ([0, 90], [10, 140])]
    backbone = backbones.create(nn.Flatten(), channels=2, image_size=1)
    method = MoCoV2(backbone, hidden=2, projection=2, queue=8, symmetric=True)
    method.projector, method.target = nn.Identity(), nn.Flatten()
    method.queue.keys.fill_(0.5**0.5)
    output = method([torch.cat([a.cos(), a.sin()], 1).view(2, 2, 1, 1) for a in views])
    assert output.terms["found"].item() == 0.75


def test_gradients_are_those_of_the_formula_also_of_two_passes_before_one_step():
    """The queue changes in place at every pass; a backward that comes later must see it as it was."""
    method = tiny(symmetric=True)
    copy, queue = deepcopy(method), method.queue.keys.clone()
    passes, expected = [two_views(seed=5), two_views(seed=6)], []
    for view1, view2 in passes:
        k1, k2 = copy.target(view1), copy.target(view2)
        expected += [formula(query(copy, v), k, queue, 0.2) / 2 for v, k in ((view1, k2), (view2, k1))]
        queue = torch.cat([unit_rows(k1), unit_rows(k2), queue[12:]])
    sum(expected).backward()
    sum(method(views).loss for views in passes).backward()
    pairs = zip(method.named_parameters(), copy.parameters(), strict=True)
    for (name, actual), wanted in pairs:
        if name.startswith("target"):
            assert actual.grad is None and not actual.requires_grad
        else:
            torch.testing.assert_close(actual.grad, wanted.grad, atol=1e-6, rtol=1e-4)


def test_target_and_queue_are_not_optimised():
    method = tiny()
    optimised = [id(p) for group in method.param_groups() for p in group["params"]]
    assert sorted(optimised) == sorted(id(p) for m in (method.backbone, method.projector) for p in m.parameters())
    assert not method.queue.keys.requires_grad


@pytest.mark.parametrize("symmetric", [False, True])
def test_keys_of_each_batch_replace_the_oldest(symmetric: bool):
    """A queue of 24: four batches of 6, or two of twice as many, go round once, and then the first is replaced."""
    method = tiny(symmetric=symmetric)
    copy, waiting = deepcopy(method), method.queue.keys.tolist()
    for seed in range(7):
        views = two_views(seed=seed)
        keys = [unit_rows(copy.target(view)) for view in (views if symmetric else views[1:])]
        method(views)
        waiting = (waiting + torch.cat(keys).tolist())[-24:]
        actual = torch.tensor(sorted(method.queue.keys.tolist()))
        torch.testing.assert_close(actual, torch.tensor(sorted(waiting)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("symmetric", [False, True])
def test_each_view_is_its_own_pass(symmetric: bool):
    """Without `symmetric` the backbone sees view 1 alone and the target view 2 alone; with it both see both."""
    method, (view1, view2) = tiny(symmetric=symmetric), two_views()
    seen: dict[str, list[Tensor]] = {"online": [], "target": []}
    for name, network in (("online", method.backbone), ("target", method.target.net[0])):
        network.register_forward_pre_hook(lambda _, inputs, name=name: seen[name].append(inputs[0].clone()))
    method([view1, view2])
    expected = (
        {"online": [view1, view2], "target": [view2, view1]} if symmetric else {"online": [view1], "target": [view2]}
    )
    for name, passes in expected.items():
        assert len(seen[name]) == len(passes)
        assert all(torch.equal(a, b) for a, b in zip(seen[name], passes, strict=True))


def test_training_equals_the_published_order_of_events():
    """There the target moves before the keys are made and not after the step: the same, and at the start nothing.

    theta <- SGD; target <- tau target + (1 - tau) theta, parameters only; the queue drops its oldest six keys.
    """
    method = tiny(apart=False, tau=0.5)
    online, waiting = deepcopy(nn.Sequential(method.backbone, method.projector)), method.queue.keys.clone()
    target, expected = deepcopy(online), []
    optimizer = torch.optim.SGD(online.parameters(), lr=0.5)
    for step in range(6):
        view1, view2 = two_views(seed=step)
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), online.parameters(), strict=True):
                slow.copy_(0.5 * slow + 0.5 * fast)
            keys = target(view2)
        loss = formula(online(view1), keys, waiting, 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        waiting = torch.cat([waiting, unit_rows(keys)])[6:]
        expected.append(loss.item())
    assert train(method, steps=6) == pytest.approx(expected, abs=1e-4)  # six steps let float32's rounding grow


def test_tau_is_constant_and_only_the_step_moves_the_target():
    method = tiny(tau=0.9)
    start, buffers = [p.clone() for p in method.target.parameters()], deepcopy(dict(method.target.named_buffers()))
    method(two_views()).loss.backward()
    method.before_step(0.5)
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), start, strict=True))
    assert method.target.training and not torch.equal(
        method.target.net[0].net[1].running_mean, buffers["net.0.net.1.running_mean"]
    )
    buffers = deepcopy(dict(method.target.named_buffers()))
    for progress in (0.0, 0.4, 1.0):
        assert method.scheduled(progress) == {"tau": 0.9}
        method.after_step(progress)
    online = [*method.backbone.parameters(), *method.projector.parameters()]
    for target, theta, xi in zip(method.target.parameters(), online, start, strict=True):
        torch.testing.assert_close(target - theta, 0.9**3 * (xi - theta), atol=1e-6, rtol=1e-5)
    assert all(torch.equal(value, buffers[name]) for name, value in method.target.named_buffers())


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_tau_zero_copies_and_tau_one_keeps(tau: float):
    method = tiny(tau=tau)
    start = [p.clone() for p in method.target.parameters()]
    train(method, steps=3)
    wanted = start if tau else [*method.backbone.parameters(), *method.projector.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), wanted, strict=True))


# --- the queue ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"symmetric": True}, {"splits": 2}])
def test_state_dict_in_the_middle_of_a_round_continues_identically(settings: dict[str, Any]):
    """Keys, their place, and the target with its statistics: another method goes on as the first would have."""
    first, second = tiny(seed=0, **settings), tiny(seed=1, **settings)
    train(first, steps=3 if not settings.get("symmetric") else 1)
    assert first.queue.place > 0  # so that it matters
    second.load_state_dict(deepcopy(first.state_dict()))
    losses = []
    for method in (first, second):
        torch.manual_seed(7)  # of the shuffling
        losses.append(train(method, steps=5, first=3))
    assert losses[0] == losses[1]
    assert all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "batch"),
    [
        ({"queue": 20}, 6),
        ({"queue": 4}, 6),
        ({"queue": 18, "symmetric": True}, 6),
        ({"queue": 30, "symmetric": True}, 12),
    ],
)
def test_queue_that_is_no_multiple_of_what_a_batch_adds_is_refused(settings: dict[str, Any], batch: int):
    """Before training, with a length that would do; a symmetric loss adds twice as many."""
    method, added = tiny(**settings), batch * (2 if settings.get("symmetric") else 1)
    with pytest.raises(
        OwnlatentError, match=rf"--method.queue {settings['queue']} .* {added} keys .*--batch-size"
    ) as refusal:
        method.check_batch(batch)
    with pytest.raises(OwnlatentError, match="multiple"):
        method(two_views(batch))
    remedy = int(str(refusal.value).split("give --method.queue ")[1].split(",")[0])
    assert remedy % added == 0 < remedy
    tiny(**{**settings, "queue": remedy}).check_batch(batch)


def test_smallest_batch_that_the_class_names_is_accepted_and_works():
    """A batch that `check_batch` refuses for every setting is none that `min_batch` may allow."""
    method = tiny()
    method.check_batch(method.min_batch)
    assert method(two_views(method.min_batch)).loss.isfinite()


# --- architecture and settings --------------------------------------------------------------------


def test_projector_is_the_papers():
    """Linear with bias, ReLU, Linear with bias, and no normalisation (an Identity stands in its place)."""
    method = tiny(hidden=16, projection=4, queue=24)
    layers = [layer for layer in method.projector if not isinstance(layer, nn.Identity)]
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert (layers[0].in_features, layers[0].out_features, layers[2].out_features) == (8, 16, 4)
    assert layers[0].bias is not None and layers[2].bias is not None
    assert method.queue.keys.shape == (24, 4)
    assert not hasattr(method, "predictor")


def test_target_starts_as_a_copy_of_backbone_and_projector():
    method = tiny(apart=False)
    online = [*method.backbone.parameters(), *method.projector.parameters()]
    assert all(torch.equal(p, q) for p, q in zip(method.target.parameters(), online, strict=True))


def test_defaults_are_the_papers():
    assert methods.settings("moco_v2") == {
        **{"hidden": 2048, "projection": 128, "queue": 65_536, "tau": 0.999, "temperature": 0.2},
        **{"symmetric": False, "splits": 1},
    }


@pytest.mark.parametrize(
    ("setting", "values", "sentence"),
    [
        ("tau", [-0.01, 1.01, float("nan")], r"tau must lie in \[0, 1\]"),
        ("temperature", [0.0, -1.0, float("nan")], "temperature must be greater than 0"),
        ("queue", [0, -4], "queue"),
        ("splits", [0, -1], "splits"),
        ("hidden", [0], "hidden"),
        ("projection", [0], "projection"),
    ],
)
def test_settings_out_of_range_are_refused(setting: str, values: list, sentence: str):
    for value in values:
        with pytest.raises(OwnlatentError, match=sentence):
            tiny(**{setting: value})


def test_one_view_and_three_are_refused():
    for count in (1, 3):
        with pytest.raises(OwnlatentError, match=r"moco_v2 .*views"):
            tiny()([*two_views(), *two_views()][:count])


def resolved(side: int, device: str, images: int, changes: dict[str, Any]) -> Recipe:
    facts = Facts(num_images=images, channels=3, side=side, device=device)
    return resolve(edit(Recipe(method="moco_v2"), changes), facts, {})


def test_imagenet_recipe_is_the_published_one():
    """SGD 0.03 at 256 images, decay 1e-4 of everything, no warm-up, K 65,536, tau 0.999, one query view: 67.5 %."""
    assert "200 epochs" in RECIPES["imagenet"]["about"] and "67.5" in RECIPES["imagenet"]["about"]
    recipe = resolved(375, "cuda", 1_281_167, methods.named_recipes("moco_v2")["imagenet"])
    assert (recipe.backbone, recipe.image_size, recipe.batch_size, recipe.epochs) == ("resnet50", 224, 256, 200)
    optim = recipe.optim
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.03, 0.9, 1e-4)
    assert (optim.decay_all, optim.warmup, optim.end_lr, optim.end_weight_decay) == (True, 0.0, 0.0, 1e-4)
    # The paper's, as above, and BatchNorm in eight parts with shuffled keys, for the eight GPUs that it had.
    assert recipe.method_settings == {**methods.settings("moco_v2"), "splits": 8}
    view = View(crop_scale=(0.2, 1.0), saturation=0.4, blur=0.5, blur_sigma=(0.1, 2.0))
    assert (view.flip, view.jitter, view.brightness, view.contrast, view.hue) == (0.5, 0.8, 0.4, 0.4, 0.1)
    assert (view.grayscale, view.solarize) == (0.2, 0.0)
    assert recipe.views == (view, view)


@pytest.mark.parametrize("images", [300, 1000, 50_000])
@pytest.mark.parametrize(("side", "device"), [(32, "cpu"), (32, "cuda"), (224, "cpu"), (224, "cuda")])
def test_usual_settings_fit_the_usual_batch(side: int, device: str, images: int):
    """What nobody asked for must not be refused: the demo's symmetric loss, 4096 keys and tau 0.99 for CIFAR-10."""
    recipe = resolved(side, device, images, {})
    settings = recipe.method_settings
    assert (settings["queue"], settings["tau"], settings["symmetric"]) == (4096, 0.99, True)
    assert settings["hidden"] == (512 if device == "cpu" else 2048)
    assert recipe.views is not None and recipe.views[0].crop_scale[0] == (0.08 if side == 32 else 0.2)
    assert recipe.batch_size is not None
    tiny(queue=settings["queue"], symmetric=settings["symmetric"]).check_batch(recipe.batch_size)
