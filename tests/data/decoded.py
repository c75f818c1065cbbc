"""Decoded images as a source, for the tests of what takes any source."""

from collections.abc import Sequence

from torch import Tensor

from ownlatent.data.decode import Unreadable
from ownlatent.types import Sample


class Decoded:
    """Images of any sizes; None cannot be read; labels are their numbers if there are classes.

    asked: the numbers that were asked for, in this process.
    """

    name = "arrays"

    def __init__(self, images: Sequence[Tensor | None], classes: list[str] | None = None):
        self.images, self.classes = images, classes
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        self.asked.append(index)
        image = self.images[index]
        if image is None:
            raise Unreadable("nothing there")
        return Sample(image, index if self.classes else None, self.title(index))

    def title(self, index: int) -> str:
        return f"array {index}"
