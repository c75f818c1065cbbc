"""The linear probe against scikit-free arithmetic: separable, random and hand-made features."""

import pytest
import torch
import torch.nn.functional as F

from ownlatent.errors import OwnlatentError
from ownlatent.evaluate.linear import _fit, _held_out, linear_accuracy


def clusters(per_class: int, spread: float, seed: int, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes around the corners of a simplex."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat(per_class)
    corners = torch.eye(3, width)
    return corners[labels] + spread * torch.randn((len(labels), width), generator=generator), labels


def test_separable_classes_are_separated():
    result = linear_accuracy(*clusters(50, 0.1, 0), *clusters(200, 0.1, 1))
    assert result["top1"] == 1.0
    assert (result["protocol"], result["num_train"], result["num_test"]) == ("linear", 150, 600)


def test_overlapping_classes_come_near_the_best_possible():
    """Equal Gaussians: the best rule takes the nearest corner, and logistic regression contains it."""
    train, test = clusters(2000, 0.6, 0), clusters(2000, 0.6, 1)
    nearest = torch.cdist(test[0], torch.eye(3, 5)).argmin(1)
    best = (nearest == test[1]).double().mean().item()
    error = (best * (1 - best) / len(test[1])) ** 0.5
    assert 0.5 < best < 0.9
    assert linear_accuracy(*train, *test)["top1"] == pytest.approx(best, abs=3 * error)


def test_labels_without_a_relation_to_the_features_give_chance():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn((600, 20), generator=generator), torch.randn((900, 20), generator=generator)
    labels = torch.arange(3).repeat(200), torch.arange(3).repeat(300)
    assert linear_accuracy(train, labels[0], test, labels[1])["top1"] == pytest.approx(1 / 3, abs=0.06)


def test_scale_and_offset_of_features_do_not_matter():
    """They are standardised: features of an encoder may lie anywhere."""
    train, test = clusters(60, 0.5, 0), clusters(60, 0.5, 1)
    plain = linear_accuracy(*train, *test)
    scale, offset = torch.tensor([1e-2, 1.0, 1e3, 7.0, 0.3]), torch.tensor([5.0, -3.0, 1e3, 0.0, 1.0])
    moved = linear_accuracy(train[0] * scale + offset, train[1], test[0] * scale + offset, test[1])
    assert moved["top1"] == pytest.approx(plain["top1"], abs=0.01) and moved["penalty"] == plain["penalty"]


def test_a_constant_feature_is_harmless():
    train, test = clusters(60, 0.1, 0), clusters(60, 0.1, 1)
    train, test = ((torch.cat([x, torch.ones(len(x), 1)], 1), y) for x, y in (train, test))
    assert linear_accuracy(*train, *test)["top1"] == 1.0


def test_the_fit_is_the_minimum_of_its_objective():
    """Mean cross-entropy plus penalty / 2 times the squared weights, without those of the offset: gradient zero."""
    x, labels = clusters(40, 0.5, 0)
    x = x.double()
    weights = _fit(x, labels, 0.1, torch.zeros(3, 6, dtype=torch.double)).requires_grad_()
    loss = F.cross_entropy(x @ weights[:, :-1].T + weights[:, -1], labels) + 0.05 * (weights[:, :-1] ** 2).sum()
    loss.backward()
    assert weights.grad is not None and weights.grad.abs().max() < 1e-4


def test_the_penalty_is_chosen_without_the_test_images():
    train, test = clusters(50, 0.5, 0), clusters(50, 0.5, 1)
    first = linear_accuracy(*train, *test)
    shuffled = linear_accuracy(*train, test[0], test[1][torch.randperm(len(test[1]))])
    assert first["penalty"] == shuffled["penalty"] and first["top1"] > shuffled["top1"]


def test_a_fifth_of_each_class_is_held_out():
    labels = torch.tensor([0] * 10 + [1] * 4 + [2] * 15)
    held = _held_out(labels)
    assert [int(held[labels == c].sum()) for c in range(3)] == [2, 0, 3]


def test_too_few_labels_are_refused():
    x, labels = clusters(4, 0.1, 0)
    with pytest.raises(OwnlatentError, match="a class with 5 labelled training images"):
        linear_accuracy(x, labels, x, labels)
