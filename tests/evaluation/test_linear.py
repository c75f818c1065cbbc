"""The linear probe: against another optimiser, and on separable, random and hand-made features."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from ownlatent.evaluation.linear import UNCHOSEN, _fit, _principal_axes, folds_of, linear_accuracy, linear_predict


def clusters(per_class: int, spread: float, seed: int, width: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Three classes around the corners of a simplex."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(3).repeat(per_class)
    corners = torch.eye(3, width)
    return corners[labels] + spread * torch.randn((len(labels), width), generator=generator), labels


def test_separable_classes_are_separated():
    assert linear_accuracy(*clusters(50, 0.1, 0), *clusters(200, 0.1, 1)) == 1.0


def test_overlapping_classes_come_near_the_best_possible():
    """Equal Gaussians: the best rule takes the nearest corner, and logistic regression contains it."""
    train, test = clusters(2000, 0.6, 0), clusters(2000, 0.6, 1)
    nearest = torch.cdist(test[0], torch.eye(3, 5)).argmin(1)
    best = (nearest == test[1]).double().mean().item()
    error = (best * (1 - best) / len(test[1])) ** 0.5
    assert 0.5 < best < 0.9
    assert linear_accuracy(*train, *test) == pytest.approx(best, abs=3 * error)


def test_labels_without_a_relation_to_the_features_give_chance():
    generator = torch.Generator().manual_seed(0)
    train, test = torch.randn((600, 20), generator=generator), torch.randn((900, 20), generator=generator)
    labels = torch.arange(3).repeat(200), torch.arange(3).repeat(300)
    assert linear_accuracy(train, labels[0], test, labels[1]) == pytest.approx(1 / 3, abs=0.06)


def test_scale_and_offset_of_features_do_not_matter():
    """They are standardised: features of an encoder may lie anywhere."""
    train, test = clusters(60, 0.5, 0), clusters(60, 0.5, 1)
    plain, penalty = linear_predict(*train, test[0])
    scale, offset = torch.tensor([1e-2, 1.0, 1e3, 7.0, 0.3]), torch.tensor([5.0, -3.0, 1e3, 0.0, 1.0])
    moved, again = linear_predict(train[0] * scale + offset, train[1], test[0] * scale + offset)
    assert (moved == plain).double().mean() > 0.98 and penalty == again


def test_features_that_say_nothing_are_harmless():
    """A constant one has no variance, two equal ones leave an axis without any."""
    train, test = clusters(60, 0.1, 0), clusters(60, 0.1, 1)
    train, test = ((torch.cat([x, torch.ones(len(x), 1), x[:, :2]], 1), y) for x, y in (train, test))
    assert linear_accuracy(*train, *test) == 1.0


@pytest.mark.parametrize("penalty", [1.0, 1e-3, 1e-6])
@pytest.mark.parametrize(("images", "width"), [(150, 12), (30, 80)])
def test_the_fit_is_the_minimum_that_another_optimiser_finds(penalty: float, images: int, width: int):
    """Mean cross-entropy plus penalty / 2 times the squared weights: scipy in double precision, in the given axes."""
    draws = torch.Generator().manual_seed(0)
    mixed = torch.randn((width, width), generator=draws).double() * torch.logspace(0, -2, width).double()
    x = torch.randn((images, width), generator=draws).double() @ mixed
    x = (x - x.mean(0)) / x.std(0, correction=0)
    labels = (torch.arange(images) % 3 + (x[:, 0] > 0)) % 3

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = torch.from_numpy(flat.reshape(3, width + 1).copy()).requires_grad_()
        loss = F.cross_entropy(x @ weights[:, :-1].T + weights[:, -1], labels)
        loss = loss + penalty / 2 * (weights[:, :-1] ** 2).sum()
        loss.backward()
        assert weights.grad is not None
        return loss.item(), weights.grad.numpy().ravel()

    options = {"maxiter": 20000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-10}
    best = minimize(objective, np.zeros(3 * (width + 1)), jac=True, method="L-BFGS-B", options=options).fun
    start = torch.zeros(3, width + 1, dtype=torch.double)
    weights = _fit(x, labels, _principal_axes(x), penalty, start, 1e-7)
    assert objective(weights.numpy().ravel())[0] == pytest.approx(best, rel=2e-3, abs=1e-5)  # a step of 1e-7 ends it


def test_axes_are_orthonormal_and_carry_the_variance():
    for images, width in ((100, 8), (6, 40)):
        x = torch.randn((images, width), generator=torch.Generator().manual_seed(0))
        x = x - x.mean(0)
        axes, variances = _principal_axes(x)
        torch.testing.assert_close(axes.T @ axes, torch.eye(axes.shape[1]), atol=1e-5, rtol=0)
        torch.testing.assert_close((x @ axes).square().mean(0), variances, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(variances.sum(), x.square().sum() / images, atol=1e-4, rtol=1e-4)


def test_the_penalty_is_chosen_on_images_that_are_held_out():
    """Noise in many dimensions: what fits the images best by heart is not what classifies others."""
    train, test = clusters(40, 0.7, 0, width=100), clusters(200, 0.7, 1, width=100)
    _, penalty = linear_predict(*train, test[0])
    assert 1e-3 < penalty <= 10


def test_the_images_of_each_class_take_turns_in_five_folds():
    labels = torch.tensor([0] * 10 + [1] * 4 + [2])
    folds = folds_of(labels)
    assert folds[:10].tolist() == [4, 3, 2, 1, 0] * 2 and folds[10:].tolist() == [4, 3, 2, 1, 4]


def test_one_image_of_each_class_is_enough():
    """None can be held out, so the penalty is the one that is set for that."""
    x, labels = torch.eye(3, 5), torch.arange(3)
    predicted, penalty = linear_predict(x, labels, clusters(20, 0.1, 0)[0])
    assert penalty == UNCHOSEN and torch.equal(predicted, clusters(20, 0.1, 0)[1])
