"""Does the predictor act along the axes of what it predicts from?"""

import torch
from torch import Tensor

_KEPT = 1e-3  # share of the largest variance below which an axis carries nothing


@torch.no_grad()
def eigen_alignment(projections: Tensor, predictions: Tensor) -> Tensor:
    """Mean |cos(W u, u)| over the principal axes u of the projections, weighted by their variance: from 0 to 1.

    projections, predictions: (N, D) of the same images. W is the linear map that takes one to the other best, for a
    linear predictor the predictor itself. Near 1 the two share their axes, as they come to do in a run that learns
    (Tian et al. 2021, section 3.2).
    """
    z, p = projections.double(), predictions.double()
    correlation = z.T @ z / len(z)
    values, axes = torch.linalg.eigh(correlation)
    kept = values > _KEPT * values.max()
    values, axes = values[kept], axes[:, kept]
    # W u = (p^T z / N) u / s for an axis u with eigenvalue s: least squares, restricted to what the data span.
    mapped = (p.T @ z / len(z)) @ axes / values
    cosines = torch.nn.functional.cosine_similarity(mapped, axes, dim=0).abs()
    return (values * cosines).sum() / values.sum()
