"""Multinomial logistic regression on frozen features: the linear probe of transfer (SimCLR, app. B.8; BYOL, app. D)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

PENALTIES = tuple(10.0**exponent for exponent in range(1, -8, -1))  # of |W|^2 / 2 beside the mean cross-entropy
FOLDS = 5
UNCHOSEN = 0.01
"""The penalty where every class has one image, so that none can be held out."""
_ONE_FOLD = 2000  # images from which on one fold decides instead of all of them
_COMPARED_BY = 10_000  # images, at most, to which penalties are fitted that are only compared
_FIRST = 50.0  # penalty times images at which the search begins; what is best does not change much with their number
_ITERATIONS = 100
_COARSE, _FINE = 1e-4, 1e-5  # change of the loss at which a fit ends: to compare penalties, and the last one
_CURVATURE = 0.1  # about p (1 - p), by which the loss curves along a direction of unit variance
Axes = tuple[Tensor, Tensor]


def linear_predict(train: Tensor, labels: Tensor, test: Tensor) -> tuple[Tensor, float]:
    """Classes (Q,) int64 of test features (Q, D) by features (N, D) with labels (N,), and the penalty that was chosen.

    Features are standardised by the training features. The penalty is chosen on a held-out fifth of the training
    images (of few images, on each fifth in turn) by fits to at most 10,000 of the others, then the classifier is
    fitted to all of them. A penalty belongs to a number of images: with fewer it is higher in proportion, which is
    the same prior of the weights.
    """
    mean = train.mean(0)
    x, queries = train - mean, test - mean
    std = x.square().mean(0).sqrt().clamp(min=1e-6)  # torch's own takes four times as long along this axis
    x, queries = x.div_(std), queries.div_(std)
    axes = _principal_axes(x)
    penalty, start = _choose(x, labels, axes)
    return _logits(_fit(x, labels, axes, penalty, start, _FINE), queries).argmax(1), penalty


def linear_accuracy(train: Tensor, train_labels: Tensor, test: Tensor, test_labels: Tensor) -> float:
    """Top-1 accuracy in [0, 1] of `linear_predict`."""
    return (linear_predict(train, train_labels, test)[0] == test_labels).double().mean().item()


def folds_of(labels: Tensor) -> Tensor:
    """A fold from 0 to 4 for each image, (N,) int64: the images of a class take turns, from the last fold on."""
    folds = torch.empty_like(labels)
    for label in labels.unique():
        mine = (labels == label).nonzero().flatten()
        folds[mine] = FOLDS - 1 - torch.arange(len(mine), device=labels.device) % FOLDS
    return folds


def _choose(x: Tensor, labels: Tensor, axes: Axes) -> tuple[float, Tensor]:
    """The penalty that classifies held-out images best, and weights to start from.

    From the usual one the search goes to weaker and to stronger ones for as long as they are better: with few images
    until two in a row are not.
    """
    of = folds_of(labels)
    nothing = x.new_zeros(int(labels.max()) + 1, x.shape[1] + 1)
    held = [of == fold for fold in range(FOLDS - 1, -1, -1) if 0 < (of == fold).sum() < len(of)]
    if not held:
        return UNCHOSEN, nothing
    held = held[:1] if len(labels) >= _ONE_FOLD else held
    kept = [_thinned(~out) for out in held]
    parts = [(x[rows], labels[rows], x[out], labels[out]) for rows, out in zip(kept, held, strict=True)]
    found: dict[int, tuple[tuple[int, float], list[Tensor]]] = {}

    def judge(place: int, starts: list[Tensor]) -> None:
        ends, right, loss = [], 0, 0.0
        for (inside, known, outside, truth), start in zip(parts, starts, strict=True):
            penalty = PENALTIES[place] * len(x) / len(inside)
            ends.append(_fit(inside, known, axes, penalty, start, _COARSE))
            logits = _logits(ends[-1], outside)
            right += int((logits.argmax(1) == truth).sum())
            loss += F.cross_entropy(logits, truth, reduction="sum").item()
        found[place] = (right, -loss), ends

    best = first = min(range(len(PENALTIES)), key=lambda place: abs(math.log(PENALTIES[place] * len(x) / _FIRST)))
    judge(first, [nothing] * len(parts))
    for step in (1, -1):
        place, worse = first + step, 0
        while 0 <= place < len(PENALTIES) and worse < min(2, len(held)):
            judge(place, found[place - step][1])  # beginning where its neighbour ended
            best, worse = (place, 0) if found[place][0] > found[best][0] else (best, worse + 1)
            place += step
    return PENALTIES[best], found[best][1][0]


def _thinned(chosen: Tensor) -> Tensor:
    """The rows that a mask chooses, or every second, third ... of them where they are more than enough."""
    rows = chosen.nonzero().flatten()
    return rows[:: -(-len(rows) // _COMPARED_BY)]


def _principal_axes(x: Tensor) -> Axes:
    """Orthonormal axes (D, R) that span the centred rows of x (N, D), and the variance along each (R,).

    Along them the loss curves by about as much as the variance, and its minimum is found in a few dozen steps whatever
    the correlation of the features. The penalty does not notice: its minimum lies in the span of the rows.
    """
    if len(x) < x.shape[1]:
        _, values, axes = torch.linalg.svd(x.double(), full_matrices=False)
        axes, variances = axes.T, values.square() / len(x)
    else:
        variances, axes = torch.linalg.eigh((x.T @ x / len(x)).double())
    kept = variances > 1e-9 * variances.max()
    return axes[:, kept].to(x.dtype), variances[kept].to(x.dtype)


def _fit(x: Tensor, labels: Tensor, axes: Axes, penalty: float, start: Tensor, tolerance: float) -> Tensor:
    """Weights (C, D + 1) for features x (N, D), the last column the offset, which is not penalised."""
    directions, variances = axes
    # In units in which the objective curves alike in every direction.
    scale = torch.cat([(_CURVATURE * variances + penalty).rsqrt(), x.new_tensor([_CURVATURE]).rsqrt()])

    def turned(weights: Tensor, onto: Tensor) -> Tensor:
        return torch.cat([weights[:, :-1] @ onto, weights[:, -1:]], 1)

    scaled = (turned(start, directions) / scale).requires_grad_()
    optimizer = torch.optim.LBFGS(
        [scaled], max_iter=_ITERATIONS, line_search_fn="strong_wolfe", tolerance_grad=1e-5, tolerance_change=tolerance
    )
    rows = torch.arange(len(x), device=x.device)

    @torch.no_grad()
    def closure() -> Tensor:
        weights = turned(scaled * scale, directions.T)
        log_p = _logits(weights, x).log_softmax(1)
        loss = -log_p[rows, labels].mean() + penalty / 2 * weights[:, :-1].square().sum()
        error = log_p.exp_()
        error[rows, labels] -= 1
        gradient = torch.cat([error.T @ x, error.sum(0).unsqueeze(1)], 1) / len(x)
        gradient[:, :-1] += penalty * weights[:, :-1]
        scaled.grad = turned(gradient, directions) * scale
        return loss

    optimizer.step(closure)
    return turned(scaled.detach() * scale, directions.T)


def _logits(weights: Tensor, x: Tensor) -> Tensor:
    return F.linear(x, weights[:, :-1], weights[:, -1])
