"""Training with labels: it learns, starts from what it is given, and leaves that alone."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from ownlatent import backbones
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.labelled import Labelled
from ownlatent.data.resident import Resident
from ownlatent.train.budget import Budget
from ownlatent.train.classify import DECAYS, RATES, Choice, Classifier, choose, predict, train_classifier, usual_choice
from ownlatent.train.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(batch_size=16, precision="32", accelerator="cpu", workers=0, backbone="resnet10_w16")


def encoder(seed: int = 0) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(backbones.create("resnet10_w16", channels=3, image_size=16), 16, (0.5,) * 3, (0.25,) * 3)


def stripes(per_class: int, seed: int) -> Resident:
    """Stripes of two directions in noise, which crops and flips keep."""
    draws = torch.Generator().manual_seed(seed)
    labels = torch.arange(2).repeat(per_class)
    wave = 60 * torch.sin(torch.arange(20) * 1.6)
    wave = torch.stack([wave.expand(20, 20), wave.expand(20, 20).T])[labels].unsqueeze(1)
    noise = 30 * torch.randn((2 * per_class, 3, 20, 20), generator=draws)
    return Resident((128 + wave + noise).clamp(0, 255).to(torch.uint8), labels, ("lying", "standing"))


def trained(start: Encoder, rows: Tensor, steps: int = 150, head: str = "linear") -> Classifier:
    data = stripes(40, 0)
    assert data.labels is not None
    return train_classifier(start, data, data.labels, rows, RECIPE, Budget(steps), head, Choice(0.2, 5e-4), CPU)


def trained_on(data: Resident, rows: Tensor) -> Classifier:
    assert data.labels is not None
    return train_classifier(encoder(), data, data.labels, rows, RECIPE, Budget(150), "linear", Choice(0.2, 5e-4), CPU)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_it_learns_and_leaves_its_start_alone(head: str):
    start, test = encoder(), stripes(40, 1)
    before = deepcopy(start.state_dict())
    predicted = predict(trained(start, torch.arange(80), head=head), Labelled(test), CPU)
    assert (predicted == test.labels).double().mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())


def test_it_begins_with_the_weights_that_it_is_given():
    """In a moment of training they hardly move."""
    start = encoder(3)
    after = trained(start, torch.arange(80), steps=1).encoder
    for name, value in start.backbone.named_parameters():
        moved = dict(after.backbone.named_parameters())[name]
        assert (moved - value).norm() < 0.5 * (encoder(4).backbone.get_parameter(name) - value).norm() + 0.1


def test_batchnorm_learns_its_statistics_also_from_an_encoder_that_was_only_used():
    """A loaded encoder is in evaluation mode; training must not stay in it."""
    start = encoder().eval()
    after = trained(start, torch.arange(80), steps=20).encoder
    moved = [name for name, value in start.state_dict().items() if not torch.equal(value, after.state_dict()[name])]
    assert any(name.endswith("running_mean") for name in moved)


def test_one_that_diverges_is_not_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ownlatent.train.classify.RATES", {"sgd": (1e30, 0.2)})
    data = stripes(20, 0)
    args = (Labelled(data), data.labels, torch.arange(40), RECIPE, Budget(300), "linear", CPU)
    assert choose(encoder(), *args).base_lr == 0.2


def test_gray_and_deep_images():
    """The encoder takes one channel, the images are 16 bits deep and in three."""
    start = Encoder(backbones.create("resnet10_w16", channels=1, image_size=16), 16, (0.5,), (0.25,), 4095.0)
    data = stripes(40, 0)
    deep = Resident((data.images.float() * 16).to(torch.uint16), data.labels, data.classes)
    classifier = train_classifier(
        start, deep, data.labels, torch.arange(80), RECIPE, Budget(150), "linear", Choice(0.2, 5e-4), CPU
    )
    assert (predict(classifier, Labelled(deep), CPU) == data.labels).double().mean() > 0.9


def test_only_the_rows_are_trained_on():
    """Outside them every label is wrong; trained on all, it would be right on half of the images at most."""
    data, test = stripes(40, 0), stripes(40, 1)
    data.labels[40:] = 1 - data.labels[40:]
    predicted = predict(trained_on(data, torch.arange(40)), Labelled(test), CPU)
    assert (predicted == test.labels).double().mean() > 0.9
    outside = predict(trained_on(data, torch.arange(40, 80)), Labelled(test), CPU)
    assert (outside == test.labels).double().mean() < 0.1


def test_two_images_of_two_classes_are_enough():
    predicted = predict(trained(encoder(), torch.tensor([0, 1]), steps=5), Labelled(stripes(3, 1)), CPU)
    assert set(predicted.tolist()) <= {0, 1}


def test_rate_and_decay_come_from_those_that_are_tried():
    data = stripes(20, 0)
    chosen = choose(encoder(), Labelled(data), data.labels, torch.arange(40), RECIPE, Budget(150), "linear", CPU)
    assert chosen.base_lr in RATES["sgd"] and chosen.weight_decay in DECAYS["sgd"]


def test_one_image_of_each_class_leaves_nothing_to_choose_by():
    data = stripes(20, 0)
    assert choose(
        encoder(), Labelled(data), data.labels, torch.tensor([0, 1]), RECIPE, Budget(9), "linear", CPU
    ) == usual_choice(RECIPE)
