"""What a source of images is."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from ownlatent.data.decode import Format, Unreadable, decode
from ownlatent.types import Sample

_Read = TypeVar("_Read")


class Source(Protocol):
    """A sequence of Samples. `source[i]` decodes image i, or raises Unreadable with the reason.

    All images of a source have one number of channels and one depth (uint8 or uint16); their sizes
    may differ. A source is picklable, cheap to copy into a worker process, and safe to read from
    several threads at once.
    """

    @property
    def name(self) -> str:
        """What a person would call the source."""

    @property
    def classes(self) -> Sequence[str] | None:
        """Class names in the order of the labels, or None where no labels are known or wanted."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    def title(self, index: int) -> str:
        """What a person would call image `index`, without decoding it."""


@runtime_checkable
class Stacked(Protocol):
    """A source that holds its images side by side in memory, where many cost no more than one."""

    def stack(self, first: int, stop: int) -> tuple[Tensor, Sequence[int] | None] | None:
        """Images `first` to `stop` (n, C, H, W) as `source[i]` gives each, with their labels; None if it has not these.

        They may be the source's own memory: not to be written to.
        """


class EncodedSource(ABC):
    """A source of image files, on disk or inside other files: whoever says where the bytes are has a source.

    format is what its images are decoded to. Training needs only parts of an image and not at full
    size: it asks for the bytes, and decodes no more than it needs.
    """

    name: str
    classes: Sequence[str] | None = None
    format: Format

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def encoded(self, index: int) -> bytes:
        """The content of image file `index`. Raises Unreadable."""

    @abstractmethod
    def title(self, index: int) -> str:
        """What a person would call image `index`, without reading it."""

    def label(self, index: int) -> int | None:
        """The class of image `index`, or None where no labels are known or wanted."""
        return None

    def __getitem__(self, index: int) -> Sample:
        return Sample(decode(self.encoded(index), self.format), self.label(index), self.title(index))


def is_of_sounds(source: Source) -> bool:
    """Whether the images of a source are spectrograms."""
    return bool(getattr(getattr(source, "format", None), "sound", False))


def first_readable(source: Source, index: int, skipped: dict[str, str], read: Callable[[int], _Read]) -> _Read | None:
    """What `read` gives for the first place from `index` on that it does not find Unreadable; None if there is none.

    skipped: gets the title of each that was passed over, with the reason.
    """
    for offset in range(len(source)):
        candidate = (index + offset) % len(source)
        try:
            return read(candidate)
        except Unreadable as error:
            skipped[source.title(candidate)] = str(error)
    return None
