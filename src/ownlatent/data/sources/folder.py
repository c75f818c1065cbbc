"""A folder of image or sound files, flat or nested."""

import os
import re
import stat
from pathlib import Path

import numpy as np

from ownlatent.data.decode import SEARCHED, Unreadable
from ownlatent.data.index.listing import list_images, reason_of
from ownlatent.data.probe import format_of_files
from ownlatent.data.source import EncodedSource
from ownlatent.errors import OwnlatentError
from ownlatent.types import NOUNS, Modality

_LARGEST = 2 << 30  # bytes of a file; what is larger is no image, and there may be no memory for it
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Folder(EncodedSource):
    """Every image, or every sound, below a folder, in the order of the bytes of their relative paths.

    labelled: each image's class is the subfolder of `root` that it lies in, and a folder without
    at least two such classes is refused. skipped: (title, reason) of the folders that could not be
    read; an image that cannot be read is Unreadable when it is asked for.

    Raises OwnlatentError if the folder is missing or cannot be read, holds no image that can be
    read or, if asked for, no classes.
    """

    def __init__(self, root: Path, labelled: bool = False, modality: Modality = "image"):
        self.name, self.root, what = printable(os.fsencode(root)), root, NOUNS[modality]
        try:
            self.listing = list_images(root, modality)
        except FileNotFoundError:
            raise OwnlatentError(f"there is no folder {self.name}: give the path of a folder of {what}") from None
        except NotADirectoryError:
            raise OwnlatentError(f"{self.name} is not a folder: give the folder that holds the {what}") from None
        except OSError as error:
            raise OwnlatentError(
                f"the folder {self.name} cannot be read ({error.strerror}): give one that you may read"
            ) from None
        self.skipped = [(printable(folder.rstrip(b"/")), reason) for folder, reason in self.listing.skipped]
        if not len(self):
            but = " ({} cannot be read: {})".format(*self.skipped[0]) if self.skipped else ""
            raise OwnlatentError(
                f"no {what[:-1]} in {self.name}{but}: give a folder that holds, at any depth, files ending in "
                + ", ".join(sorted(SEARCHED[modality]))
            )
        self.classes = None
        if labelled:
            self.classes, self._class_of = self._find_classes()
        self.format = format_of_files(self)

    def __len__(self) -> int:
        return len(self.listing)

    @property
    def paths(self) -> list[str]:
        """All relative paths, made anew: for looking at a small folder, not for a million files."""
        return [os.fsdecode(self.listing.relative(index)) for index in range(len(self))]

    def title(self, index: int) -> str:
        return printable(self.listing.relative(index))

    def label(self, index: int) -> int | None:
        return int(self._class_of[self.listing.folder_of[index]]) if self.classes else None

    def encoded(self, index: int) -> bytes:
        path = self.listing.path(index)
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                raise Unreadable("not a regular file")
            if status.st_size > _LARGEST:
                raise Unreadable(f"larger than {_LARGEST >> 30} GiB")
            # Not to wait for anything, should a pipe have taken the file's place since.
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                return file.read(status.st_size) or b""
        except OSError as error:
            raise Unreadable(reason_of(error, path)) from None
        except MemoryError:
            raise Unreadable("too large for the memory") from None

    def _find_classes(self) -> tuple[list[str], np.ndarray]:
        """Names of the classes, and the class of each folder of the listing, int32."""
        used = np.unique(self.listing.folder_of)  # not every folder holds images
        firsts = [self.listing.folder(int(folder)).split(b"/")[0] for folder in used]
        classes = sorted(set(firsts))
        if len(classes) < 2 or b"" in classes:
            raise OwnlatentError(
                f"{self.name} has no class subfolders for all its images: put each class in a folder of its own"
            )
        numbers = {name: number for number, name in enumerate(classes)}
        class_of = np.full(self.listing.num_folders, -1, np.int32)
        class_of[used] = [numbers[first] for first in firsts]
        return [printable(name) for name in classes], class_of


def printable(path: bytes) -> str:
    r"""A path as it can be shown on one line: what is no UTF-8, or would move the cursor, as an escape.

    >>> print(printable(b"caf\xe9\n.png"))
    caf\xe9\n.png
    """
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], path.decode("utf-8", "backslashreplace"))
