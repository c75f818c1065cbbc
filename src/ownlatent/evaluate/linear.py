"""Multinomial logistic regression on frozen features: the linear probe of transfer (SimCLR, app. B.8; BYOL, app. D)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ownlatent.errors import OwnlatentError

_PENALTIES = tuple(10.0**exponent for exponent in range(1, -8, -1))  # of |W|^2 / 2 beside the mean cross-entropy
_HELD_OUT = 5  # every fifth image of each class chooses the penalty
_ITERATIONS = 100


def linear_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> dict:
    """Top-1 accuracy in [0, 1] with its whole protocol, as one entry of results.json.

    train, test: features (N, D), which are standardised by the training features. The penalty is chosen on a
    fifth of the training images that is held out, then the classifier is fitted to all of them and
    the test images are looked at once. Raises OwnlatentError if no class has the five images for that.
    """
    mean, std = train.mean(0), train.std(0).clamp(min=1e-6)
    train, test = (train - mean) / std, (test - mean) / std
    classes = int(train_labels.max()) + 1
    held = _held_out(train_labels)
    if not held.any():
        raise OwnlatentError(f"the linear probe needs a class with {_HELD_OUT} labelled training images: give more")
    weights = torch.zeros(classes, train.shape[1] + 1, device=train.device)
    penalty, best, chosen = _PENALTIES[0], -1.0, weights
    for candidate in _PENALTIES:  # from the strongest, each beginning where the last one ended
        weights = _fit(train[~held], train_labels[~held], candidate, weights)
        accuracy = _accuracy(weights, train[held], train_labels[held])
        if accuracy > best:
            penalty, best, chosen = candidate, accuracy, weights
    weights = _fit(train, train_labels, penalty, chosen)
    return {
        "protocol": "linear",
        "penalty": penalty,
        "split": "train-test",
        "num_train": len(train),
        "num_test": len(test),
        "top1": _accuracy(weights, test, test_labels),
    }


def _held_out(labels: Tensor) -> Tensor:
    """Every fifth image of each class: (N,) bool; of a class with fewer, none."""
    held = torch.zeros_like(labels, dtype=torch.bool)
    for label in labels.unique():
        held[(labels == label).nonzero().flatten()[_HELD_OUT - 1 :: _HELD_OUT]] = True
    return held


def _fit(x: Tensor, labels: Tensor, penalty: float, start: Tensor) -> Tensor:
    """Weights (C, D + 1), the last column the offset, which is not penalised."""
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([weights], max_iter=_ITERATIONS, line_search_fn="strong_wolfe", tolerance_change=1e-7)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(_logits(weights, x), labels) + penalty / 2 * weights[:, :-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return weights.detach()


def _logits(weights: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weights[:, :-1], weights[:, -1])


def _accuracy(weights: Tensor, x: Tensor, labels: Tensor) -> float:
    return (_logits(weights, x).argmax(1) == labels).double().mean().item()
