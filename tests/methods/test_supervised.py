"""Training with labels against cross-entropy written out by hand."""

from copy import deepcopy
from math import exp, log
from typing import Any

import pytest
import torch
from torch import nn

from ownlatent import backbones, methods
from ownlatent.errors import OwnlatentError
from ownlatent.methods.supervised import Supervised
from ownlatent.optim.create import create
from ownlatent.train.recipe import Recipe, edit
from ownlatent.types import Views

LABELS = torch.tensor([2, 0, 1, 1, 3, 2])


def tiny_supervised(seed: int = 0, **settings: Any) -> Supervised:
    """One convolution with BatchNorm as the backbone."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    return Supervised(backbones.create(net, channels=3, image_size=8), **{"classes": 4, **settings})


def on_vectors(width: int, **settings: Any) -> Supervised:
    """The image is the feature vector: what the classifier gives can be said by hand."""
    method = Supervised(backbones.create(nn.Flatten(), channels=width, image_size=1), **settings)
    nn.init.zeros_(method.classifier.weight)
    nn.init.zeros_(method.classifier.bias)
    return method


def some_views(count: int = 1, batch: int = 6, seed: int = 1) -> Views:
    """Views of different mean and spread, so that mixing them up cannot go unseen."""
    generator = torch.Generator().manual_seed(seed)
    return [(n + 1) * torch.randn((batch, 3, 8, 8), generator=generator) + n / 2 for n in range(count)]


def softmax(row: list[float]) -> list[float]:
    powers = [exp(x - max(row)) for x in row]
    return [power / sum(powers) for power in powers]


def smooth(label: int, classes: int, smoothing: float) -> list[float]:
    """(1 - s) onehot + s / C."""
    return [(1 - smoothing) * (c == label) + smoothing / classes for c in range(classes)]


def slow_loss(logits: list[list[float]], labels: list[int], smoothing: float) -> float:
    """The cross-entropy of smoothed labels, image by image, in double precision."""
    total = 0.0
    for row, label in zip(logits, labels, strict=True):
        given = softmax(row)
        total -= sum(y * log(p) for y, p in zip(smooth(label, len(row), smoothing), given, strict=True))
    return total / len(labels)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "smoothing"), [(2, 0.0), (10, 0.1), (1000, 0.1)])
def test_a_classifier_that_knows_nothing_costs_ln_c(classes: int, smoothing: float):
    """-sum_c y_c ln(1 / C) = ln C, for sharp and smoothed labels."""
    method = on_vectors(3, classes=classes, smoothing=smoothing)
    loss = method([torch.randn(5, 3, 1, 1)], torch.arange(5) % classes).loss
    assert loss.item() == pytest.approx(log(classes), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.1, 0.4])
def test_least_loss_is_the_entropy_of_the_smoothed_label(smoothing: float):
    """Reached where the softmax is the label itself, 1 - s + s / C; being surer than that costs again."""
    y = smooth(0, 4, smoothing)
    entropy = -(y[0] * log(y[0]) + 3 * y[1] * log(y[1]))
    method = on_vectors(3, classes=4, smoothing=smoothing)
    image, label = [torch.randn(5, 3, 1, 1)], torch.zeros(5).long()
    method.classifier.bias.data = torch.tensor(y).log()
    output = method(image, label)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(entropy, abs=1e-6)
    torch.testing.assert_close(method.classifier.bias.grad, torch.zeros(4), atol=1e-7, rtol=0)
    method.classifier.bias.data[0] += 5
    assert method(image, label).loss.item() > entropy + 0.05


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_and_gradient_equal_a_slow_reference(smoothing: float):
    """dL/dW = mean over images and views of (softmax - y) f^T, dL/db without the f, in double precision."""
    method, views = tiny_supervised(smoothing=smoothing), some_views(2)
    method.classifier.weight.data.mul_(10)  # surer answers, on which smoothing shows
    copy = deepcopy(method)
    features = torch.cat([copy.backbone(view) for view in views])
    logits = copy.classifier(features).double().tolist()
    labels = [*LABELS.tolist(), *LABELS.tolist()]
    output = method(views, LABELS)
    output.loss.backward()
    assert output.loss.item() == pytest.approx(slow_loss(logits, labels, smoothing), abs=1e-6)
    if smoothing:
        assert abs(output.loss.item() - slow_loss(logits, labels, 0.0)) > 1e-3
    weight = torch.zeros(4, 8).double()
    bias = torch.zeros(4).double()
    for row, label, f in zip(logits, labels, features.detach().double(), strict=True):
        for c, (p, y) in enumerate(zip(softmax(row), smooth(label, 4, smoothing), strict=True)):
            weight[c] += (p - y) * f / 12
            bias[c] += (p - y) / 12
    torch.testing.assert_close(method.classifier.weight.grad.double(), weight, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(method.classifier.bias.grad.double(), bias, atol=1e-6, rtol=1e-5)


def test_gradient_of_the_backbone_is_that_of_cross_entropy():
    """Through an independent formula: -log_softmax at the label, with the smoothed part beside it."""
    method, views = tiny_supervised(smoothing=0.2), some_views(2)
    copy = deepcopy(method)
    method(views, LABELS).loss.backward()
    log_p = torch.cat([copy.classifier(copy.backbone(view)) for view in views]).log_softmax(1)
    right = log_p.gather(1, torch.cat([LABELS, LABELS]).unsqueeze(1)).mean()
    (-0.8 * right - 0.2 * log_p.mean()).backward()
    for ours, other in zip(method.backbone.parameters(), copy.backbone.parameters(), strict=True):
        assert ours.grad is not None and ours.grad.abs().sum() > 0
        torch.testing.assert_close(ours.grad, other.grad, atol=1e-6, rtol=1e-4)


def test_loss_is_the_mean_over_views_and_every_view_has_the_same_labels():
    method, views = tiny_supervised(), some_views(3)
    single = [deepcopy(method)([view], LABELS).loss.item() for view in views]
    assert max(single) - min(single) > 1e-2  # the views are not alike
    assert method(views, LABELS).loss.item() == pytest.approx(sum(single) / 3, abs=1e-6)


def test_labels_belong_to_their_images():
    method, views = tiny_supervised(), some_views(2)
    expected = deepcopy(method)(views, LABELS).loss.item()
    order = torch.tensor([3, 5, 0, 1, 4, 2])
    together = deepcopy(method)([view[order] for view in views], LABELS[order]).loss.item()
    assert together == pytest.approx(expected, abs=1e-5)
    assert abs(deepcopy(method)(views, LABELS[order]).loss.item() - expected) > 1e-2


def test_loss_is_computed_in_float32_under_autocast():
    """The classifier may round its products to bfloat16; the softmax over them may not (about 1e-2)."""
    method, views = tiny_supervised(classes=64), some_views(2)
    seen: list[torch.Tensor] = []
    method.classifier.register_forward_hook(lambda *a: seen.append(a[2].detach()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = method(views, LABELS).loss
    assert loss.dtype == torch.float32
    logits = torch.cat(seen).double().tolist()
    assert loss.item() == pytest.approx(slow_loss(logits, [*LABELS.tolist()] * 2, 0.1), abs=1e-6)
    assert loss.item() != loss.bfloat16().item()  # so the example could have shown a rounding


def test_loss_of_a_network_in_bfloat16_is_float32():
    """Also where the weights themselves are of half precision, without autocast."""
    method, views = tiny_supervised().bfloat16(), [view.bfloat16() for view in some_views(2)]
    seen: list[torch.Tensor] = []
    method.classifier.register_forward_hook(lambda *a: seen.append(a[2].detach()))
    loss = method(views, LABELS).loss
    assert loss.dtype == torch.float32
    expected = slow_loss(torch.cat(seen).double().tolist(), [*LABELS.tolist()] * 2, 0.1)
    assert loss.item() == pytest.approx(expected, abs=1e-6)


# --- forward --------------------------------------------------------------------------------------


def test_accuracy_is_the_share_of_right_answers_over_all_views():
    """The image names the class that is answered: right in 3 of 4 images of one view and 1 of 4 of the other."""
    method = on_vectors(4, classes=4)
    method.classifier.weight.data = torch.eye(4)
    labels = torch.tensor([0, 1, 2, 3])
    views = [torch.eye(4)[[0, 1, 2, 0]].view(4, 4, 1, 1), torch.eye(4)[[0, 2, 3, 1]].view(4, 4, 1, 1)]
    output = method(views, labels)
    assert set(output.terms) == {"accuracy"}
    assert output.terms["accuracy"].item() == 0.5
    assert method(views[:1], labels).terms["accuracy"].item() == 0.75
    assert not output.terms["accuracy"].requires_grad


def test_embeddings_are_the_features_of_the_first_view():
    """There is no projector: the classifier stands on the features themselves."""
    method, views = tiny_supervised(), some_views(2)
    copy = deepcopy(method)
    embeddings = method(views, LABELS).embeddings
    torch.testing.assert_close(embeddings, copy.backbone(views[0]).detach())
    assert not embeddings.requires_grad


def test_each_view_is_its_own_forward_pass():
    method, views = tiny_supervised(), some_views(3)
    seen: list[torch.Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    method(views, LABELS)
    assert len(seen) == 3
    assert all(torch.equal(a, b) for a, b in zip(seen, views, strict=True))
    assert method.backbone.net[1].num_batches_tracked == 3


def test_it_says_that_it_wants_labels_and_refuses_to_go_without():
    method = tiny_supervised()
    assert method.uses_labels
    assert [name for name in methods.names() if methods.get(name).uses_labels] == ["supervised"]
    with pytest.raises(OwnlatentError, match="labels"):
        method(some_views())


def test_one_view_is_enough_and_none_is_refused():
    assert tiny_supervised()(some_views(1), LABELS).loss.isfinite()
    with pytest.raises(OwnlatentError, match="at least 1"):
        tiny_supervised()([], LABELS)


# --- parameters, settings, recipes ----------------------------------------------------------------


def test_everything_is_trained_and_biases_are_not_decayed():
    method = tiny_supervised()
    decayed, rest = method.param_groups()
    assert {id(p) for p in decayed["params"]} == {id(method.backbone.net[0].weight), id(method.classifier.weight)}
    assert {id(p) for p in decayed["params"] + rest["params"]} == {id(p) for p in method.parameters()}
    assert not rest["decay"]


def test_it_has_no_schedule_and_changes_nothing_around_a_step():
    method = tiny_supervised()
    method(some_views(), LABELS).loss.backward()
    state, gradients = deepcopy(method.state_dict()), [p.grad.clone() for p in method.parameters()]
    method.before_step(0.0)
    method.after_step(0.0)
    assert all(torch.equal(value, state[name]) for name, value in method.state_dict().items())
    assert all(torch.equal(p.grad, g) for p, g in zip(method.parameters(), gradients, strict=True))
    assert method.scheduled(0.5) == {}


def test_classifier_is_one_linear_layer_with_a_bias():
    classifier = tiny_supervised(classes=7).classifier
    assert type(classifier) is nn.Linear
    assert classifier.weight.shape == (7, 8) and classifier.bias.shape == (7,)


def test_defaults():
    """A smoothing of 0.1 as in the supervised baselines of the papers; the classes come from the data."""
    assert methods.settings("supervised") == {"classes": 0, "smoothing": 0.1, "hidden": 0}


@pytest.mark.parametrize("classes", [0, 1, -3])
def test_fewer_than_two_classes_are_refused(classes: int):
    with pytest.raises(OwnlatentError, match="two classes"):
        tiny_supervised(classes=classes)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 2.0, float("nan")])
def test_smoothing_out_of_range_is_refused(smoothing: float):
    """At 1 nothing of the label would be left."""
    with pytest.raises(OwnlatentError, match="smoothing"):
        tiny_supervised(smoothing=smoothing)


def test_imagenet_row_is_byols_baseline():
    """76.4 %: 200 epochs, five of them of warm-up, SGD with momentum 0.9, decay 1e-4, smoothing 0.1, one view."""
    recipe = edit(Recipe(method="supervised"), methods.named_recipes("supervised")["imagenet"])
    optim = recipe.optim
    assert (recipe.backbone, recipe.image_size, recipe.epochs) == ("resnet50", 224, 200)
    assert (optim.name, optim.momentum, optim.weight_decay) == ("sgd", 0.9, 1e-4)
    assert optim.warmup * recipe.epochs == pytest.approx(5)
    assert {**methods.settings("supervised"), **recipe.method_settings}["smoothing"] == 0.1
    assert len(recipe.views) == 1
    view = recipe.views[0]
    assert (view.jitter, view.grayscale, view.blur, view.solarize) == (0, 0, 0, 0)
    assert (view.crop_scale, view.flip) == ((0.08, 1.0), 0.5)


def test_imagenet_row_has_nesterovs_momentum_or_says_that_it_has_not():
    """The published 76.4 % was trained with it; a row that leaves it out has to say so."""
    row = methods.recipes("supervised")["imagenet"]
    optimizer = create(row["optim.name"], tiny_supervised().param_groups(), lr=0.1, weight_decay=1e-4)
    words = (row["about"] + (Supervised.__doc__ or "")).lower()
    assert optimizer.defaults["nesterov"] or "nesterov" in words
