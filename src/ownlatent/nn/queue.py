"""The keys of past batches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ownlatent.errors import OwnlatentError


class Queue(nn.Module):
    """The last `length` keys (length, width), unit vectors; random ones at first. The oldest are replaced.

    `length` must be a multiple of the number of keys that are put in at a time.
    """

    keys: Tensor
    place: Tensor

    def __init__(self, length: int, width: int):
        super().__init__()
        self.register_buffer("keys", F.normalize(torch.randn(length, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def put(self, keys: Tensor) -> None:
        """Replace the oldest len(keys) keys. Raises OwnlatentError if the length is no multiple of that."""
        length, n = len(self.keys), len(keys)
        if length % n:
            raise OwnlatentError(
                f"a queue of {length} keys is no multiple of the {n} that a batch adds: make it {-(-length // n) * n}"
            )
        rows = (self.place + torch.arange(n, device=self.place.device)) % length
        self.keys[rows] = keys.to(self.keys.dtype)
        self.place.add_(n).remainder_(length)
