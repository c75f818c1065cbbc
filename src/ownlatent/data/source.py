"""What a source of images is, and how a name becomes one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ownlatent.errors import OwnlatentError
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


def open_source(name: str | Path, *, labelled: bool = False) -> Source:
    """A source by name: `photos:train` and `photos:test` are built in, anything else is a folder of images.

    labelled: the labels are wanted (class subfolders); without it they are not even looked for.
    Raises OwnlatentError if there is nothing to read.
    """
    text = str(name)
    if text.startswith("photos:"):
        from ownlatent.data.photos import SPLITS, Photos

        split = text.removeprefix("photos:")
        if split not in SPLITS:
            raise OwnlatentError(f"the built-in photographs have the parts {' and '.join(SPLITS)}, not {split!r}")
        return Photos(split)
    from ownlatent.data.folder import Folder

    return Folder(Path(name), labelled=labelled)


def name_of(source: Source, index: int) -> str:
    """What a person would call image `index` of a source, without decoding it."""
    paths = getattr(source, "paths", None)
    return paths[index] if paths else f"{source.name}[{index}]"
