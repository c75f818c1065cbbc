"""What a source of images is."""

from collections.abc import Sequence
from typing import Protocol

from ownlatent.types import Sample


class Unreadable(Exception):
    """One image that cannot be read: it is skipped, counted and listed, and the work goes on."""


class Source(Protocol):
    """A sequence of Samples. `source[i]` decodes image i, or raises Unreadable with the reason."""

    @property
    def name(self) -> str: ...

    @property
    def classes(self) -> Sequence[str] | None:
        """Class names in the order of the labels, or None where no labels are known."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


def name_of(source: Source, index: int) -> str:
    """What a person would call image `index` of a source, without decoding it."""
    paths = getattr(source, "paths", None)
    return paths[index] if paths else f"{source.name}[{index}]"
