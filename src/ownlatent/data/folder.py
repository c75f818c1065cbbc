"""A folder of image files, flat or nested."""

import os
from pathlib import Path

from ownlatent.data.decode import EXTENSIONS, channels_of, decode
from ownlatent.data.source import Unreadable
from ownlatent.errors import OwnlatentError
from ownlatent.types import Sample

_PROBED = 64  # files looked at to tell whether a folder is grayscale


class Folder:
    """Every image below a folder, in the order of the paths, as uint8 (C, H, W) of its own size.

    labelled: each image's class is the subfolder of `root` that it lies in, and a folder without
    at least two such classes is refused. channels: 1 if every file in a sample is grayscale, else 3.

    Raises OwnlatentError if the folder is missing, holds no image or, if asked for, no classes.
    """

    def __init__(self, root: Path, labelled: bool = False):
        if not root.exists():
            raise OwnlatentError(f"there is no folder {root}: give the path of a folder of images")
        if not root.is_dir():
            raise OwnlatentError(f"{root} is not a folder: give the folder that holds the images")
        self.name, self.root = str(root), root
        self.paths = _list(root)
        if not self.paths:
            raise OwnlatentError(
                f"no image in {root}: give a folder that holds, at any depth, files ending in "
                + ", ".join(sorted(EXTENSIONS))
            )
        self.classes: list[str] | None = None
        self._labels: dict[str, int] = {}
        if labelled:
            self.classes = sorted({p.split(os.sep)[0] for p in self.paths if os.sep in p})
            loose = sum(os.sep not in p for p in self.paths)
            if len(self.classes) < 2 or loose:
                raise OwnlatentError(
                    f"{root} has no class subfolders for all its images: put each class in a folder of its own"
                )
            self._labels = {name: label for label, name in enumerate(self.classes)}
        self.channels = self._probe_channels()

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        path = self.paths[index]
        label = self._labels[path.split(os.sep)[0]] if self.classes else None
        return Sample(decode(self.root / path, self.channels), label, path)

    def _probe_channels(self) -> int:
        """1 if a sample of the files is all gray; raises if none of all the files can be read."""
        every = max(1, len(self.paths) // _PROBED)
        found = 0
        for path in self.paths[::every]:
            try:
                if channels_of(self.root / path) == 3:
                    return 3
                found += 1
            except Unreadable:
                continue
        if found:
            return 1
        for path in self.paths:
            try:
                return channels_of(self.root / path)
            except Unreadable as error:
                last = error
        raise OwnlatentError(
            f"none of the {len(self.paths)} image files in {self.root} can be read ({last}): are they complete?"
        )


def _list(root: Path) -> list[str]:
    """Relative paths of all files with an image's ending, sorted; hidden ones are passed over.

    Links to folders are followed, each folder once, so that a loop of links ends.
    """
    found = []
    seen = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        identity = os.stat(folder)
        if (identity.st_dev, identity.st_ino) in seen:
            folders.clear()
            continue
        seen.add((identity.st_dev, identity.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        here = os.path.relpath(folder, root)
        for name in files:
            if name.startswith(".") or os.path.splitext(name)[1].lower() not in EXTENSIONS:
                continue
            found.append(name if here == "." else os.path.join(here, name))
    return sorted(found)
