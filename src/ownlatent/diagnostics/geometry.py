"""How the embeddings lie on the sphere, and how their dimensions depend on each other."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of the unit embeddings (N, D) of two views of the same images, from 0 to 4.

    Row i of both is image i (Wang and Isola 2020, eq. 1 with alpha 2). 0: the views cannot be told apart.
    """
    return (_unit(first) - _unit(second)).square().sum(1).mean()


@torch.no_grad()
def uniformity(embeddings: Tensor) -> Tensor:
    """ln of the mean of exp(-2 |x - y|^2) over pairs of unit embeddings (N, D): 0 for one point, about -4 for spread.

    Pairs are of two different rows (Wang and Isola 2020, eq. 2 with t = 2). On a uniform sphere it is -3.51 in 16
    dimensions, -3.97 in 256, and tends to -4.
    """
    distances = F.pdist(_unit(embeddings))
    return (-2 * distances.square()).exp().mean().log()


@torch.no_grad()
def mean_correlation(embeddings: Tensor) -> Tensor:
    """Mean absolute correlation of two different dimensions of the embeddings (N, D), from 0 to 1.

    A dimension that is constant correlates with nothing. Chance alone gives about 0.8 / sqrt(N).
    """
    centred = embeddings.float() - embeddings.float().mean(0)
    unit = F.normalize(centred, dim=0)
    correlations = (unit.T @ unit).abs()
    d = len(correlations)
    return (correlations.sum() - correlations.diagonal().sum()) / (d * (d - 1))


@torch.no_grad()
def relative_distance(weights: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """|a - b| / |a| of two lists of tensors of the same shapes, each taken as one vector: 0 when they are equal."""
    apart = torch.stack(torch._foreach_norm(torch._foreach_sub(list(weights), list(others)))).norm()
    return apart / torch.stack(torch._foreach_norm(list(weights))).norm().clamp(min=1e-12)


def _unit(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.float(), dim=1)
