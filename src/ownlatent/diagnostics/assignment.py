"""Soft assignments to prototypes: do they say something, and not always the same?"""

import torch
from torch import Tensor


@torch.no_grad()
def entropy_of_mean(assignments: Tensor) -> Tensor:
    """Entropy of the mean of assignments (N, K), rows that sum to 1: 0 if one prototype takes all, ln K if all are used."""
    return torch.special.entr(assignments.float().mean(0)).sum()


@torch.no_grad()
def mean_entropy(assignments: Tensor) -> Tensor:
    """Mean entropy of the single assignments (N, K): 0 if each is sure, ln K if each says nothing."""
    return torch.special.entr(assignments.float()).sum(1).mean()
