"""A linear layer on frozen features, trained by SGD on cropped and flipped images: the papers' probe on ImageNet."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ownlatent.evaluation.linear import FOLDS, folds_of
from ownlatent.optim.schedules import cosine

RATES = (0.01, 0.1, 1.0, 10.0, 30.0)
"""Learning rates for batches of 256, of which a held-out fifth chooses: the papers' go from 0.001 to 30."""


def sgd_predict(
    copies: Sequence[Tensor],
    labels: Tensor,
    plain: Tensor,
    test: Tensor,
    *,
    epochs: int = 100,
    batch_size: int = 256,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> tuple[Tensor, float]:
    """Classes (Q,) int64 of test features (Q, D), and the learning rate (of a batch of 256) that was chosen.

    copies: features (N, D) of the training images, of each copy with another crop and flip; epoch e takes copy
    e modulo their number. plain: those of the images as they are, on a held-out fifth of which the rate is chosen;
    then the layer is trained on all of them. SGD with momentum, cosine to zero, no standardisation (MoCo, SimSiam).
    """
    held = folds_of(labels) == FOLDS - 1
    if held.any() and not held.all():
        layers = _train(copies, labels, ~held, RATES, epochs, batch_size, momentum, weight_decay, seed)
        right = [(_logits(layer, plain[held]).argmax(1) == labels[held]).sum().item() for layer in layers]
        rate = RATES[right.index(max(right))]
    else:
        rate = 1.0
    everyone = torch.ones_like(held)
    (layer,) = _train(copies, labels, everyone, (rate,), epochs, batch_size, momentum, weight_decay, seed)
    return _logits(layer, test).argmax(1), rate


def _train(
    copies: Sequence[Tensor],
    labels: Tensor,
    used: Tensor,
    rates: Sequence[float],
    epochs: int,
    batch_size: int,
    momentum: float,
    weight_decay: float,
    seed: int,
) -> Tensor:
    """A layer (C, D + 1) for each rate, stacked, all trained on the same batches of the images `used` at once."""
    rows = used.nonzero().flatten()
    n, width, classes = len(rows), copies[0].shape[1], int(labels.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    layer = 0.01 * torch.randn(classes, width + 1, generator=generator).to(labels.device)
    layer[:, -1] = 0
    layers = layer.repeat(len(rates), 1, 1)
    velocity = torch.zeros_like(layers)
    size = min(batch_size, n)
    peak = torch.tensor(rates, device=labels.device).view(-1, 1, 1) * size / 256
    per_epoch = n // size
    for step in range(epochs * per_epoch):
        epoch, position = divmod(step, per_epoch)
        if position == 0:
            order = rows[torch.randperm(n, generator=generator).to(labels.device)]
            x, y = copies[epoch % len(copies)][order], labels[order]
        batch = slice(position * size, (position + 1) * size)
        velocity.mul_(momentum).add_(_gradient(layers, x[batch], y[batch]))
        if weight_decay:
            velocity[..., :-1].add_(layers[..., :-1], alpha=weight_decay)
        layers -= cosine(step / (epochs * per_epoch), 1.0, 0.0) * peak * velocity
    return layers


def _gradient(layers: Tensor, x: Tensor, labels: Tensor) -> Tensor:
    """Gradient (L, C, D + 1) of the mean cross-entropy of each of L layers."""
    count, classes, _ = layers.shape
    logits = x @ layers[..., :-1].flatten(0, 1).T + layers[..., -1].flatten()
    error = logits.view(len(x), count, classes).softmax(2)
    error[torch.arange(len(x), device=x.device), :, labels] -= 1
    error = error.flatten(1) / len(x)
    gradient = torch.cat([error.T @ x, error.sum(0).unsqueeze(1)], 1)
    return gradient.view(count, classes, -1)


def _logits(layer: Tensor, x: Tensor) -> Tensor:
    return x @ layer[:, :-1].T + layer[:, -1]
