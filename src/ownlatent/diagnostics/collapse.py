"""Does every image still have an embedding of its own?"""

import torch.nn.functional as F
from torch import Tensor


def relative_std(embeddings: Tensor) -> Tensor:
    """Mean per-dimension standard deviation of the unit embeddings (N, D), times sqrt(D): about 0 to 1.

    0 when all embeddings point the same way, 1 when they spread evenly over the sphere (SimSiam,
    section 4.1). It sees collapse to a point only: embeddings in a thin subspace can keep a high value.
    """
    unit = F.normalize(embeddings.float(), dim=1)
    return unit.std(0).mean() * embeddings.shape[1] ** 0.5
