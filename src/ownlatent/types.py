"""The shapes that pass between rooms.

Letters in shape comments: B images in a batch, V views, C channels, H height, W width, D dimensions
of an embedding, N images in a data set.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:  # importing the types must not import torch: the command line names them in its help
    from torch import Tensor

Modality = Literal["image", "audio"]
"""What data are of. A sound is an image of one channel all the same: its log-mel spectrogram."""

NOUNS: dict[Modality, str] = {"image": "images", "audio": "sounds"}
"""What people call many of them."""

Size = int | tuple[int, int]
"""Side of square images in pixels; of sounds (bands, frames)."""


def height_and_width(size: Size) -> tuple[int, int]:
    """Of images of this size."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def in_words(size: Size) -> str:
    """As people are told it: 32x32 px, or 64 bands and 96 frames."""
    return f"{size}x{size} px" if isinstance(size, int) else f"{size[0]} bands and {size[1]} frames"


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
