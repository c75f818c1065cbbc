"""The shapes that pass between rooms.

Letters in shape comments: B images in a batch, V views, C channels, H height, W width, D dimensions
of an embedding, N images in a data set.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # importing the types must not import torch: the command line names them in its help
    from torch import Tensor

Views = list["Tensor"]
"""V tensors (B, C, H, W), normalised floats; view 0 and view 1 show the same images, differently."""


@dataclass
class Output:
    """What a method returns for one batch of views.

    loss: scalar with a gradient. terms: named detached scalars that explain the loss.
    embeddings: projections of the first view (B, D), detached: what collapse is measured on.
    """

    loss: "Tensor"
    embeddings: "Tensor"
    terms: "dict[str, Tensor]" = field(default_factory=dict)


class Sample(NamedTuple):
    """One decoded image: uint8 or uint16 (C, H, W), its class number if known, and a name a person can find."""

    image: "Tensor"
    label: int | None
    name: str
