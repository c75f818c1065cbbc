"""How many directions do the embeddings use?"""

import torch
from torch import Tensor

_EPS = 1e-7  # RankMe's, which keeps the logarithm of a vanished singular value finite


@torch.no_grad()
def singular_values(embeddings: Tensor) -> Tensor:
    """Of the embeddings (N, D) as they are, not centred: min(N, D) values in float64, largest first."""
    x = embeddings.double()
    gram = x.T @ x if len(x) >= x.shape[1] else x @ x.T  # the smaller one; half the digits are plenty for a rank
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def effective_rank(embeddings: Tensor) -> Tensor:
    """RankMe: exp of the entropy of the singular values' shares, from 1 to min(N, D) (Garrido et al. 2023, eq. 2).

    embeddings: (N, D), not centred, so that a common direction lowers it. Few embeddings cannot have a high rank: N
    should be several times D. 1 for a single direction, D for D equally strong ones.
    """
    values = singular_values(embeddings)
    shares = values / values.sum().clamp(min=_EPS) + _EPS
    return torch.special.entr(shares).sum().exp()
