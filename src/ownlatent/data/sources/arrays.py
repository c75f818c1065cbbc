"""Images that are one array: a NumPy file, or an array or tensor in memory."""

import logging
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownlatent.data.labels import number_labels, read_classes
from ownlatent.data.pixels import channel_axis, conform, to_tensor
from ownlatent.data.probe import format_of_images
from ownlatent.errors import OwnlatentError
from ownlatent.machine import memory
from ownlatent.types import Sample

log = logging.getLogger("ownlatent")

_IMAGES = ("images", "x")
_PAIRS = (("images", "labels"), ("image", "label"), ("x", "y"), ("X", "y"))  # train_images and train_labels, ...
_DAMAGE = (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error)  # what NumPy raises
_REMEDY = "store them together, as np.savez(FILE, images=images, labels=labels)"


class Arrays:
    """N images in one array, handed out as uint8 or uint16 (C, H, W).

    array: (N, H, W), (N, C, H, W) or (N, H, W, C), uint8, uint16 or floats from 0 to 1, which become uint16
    one image at a time, or uint8 where they are 8-bit images divided by 255. labels: (N,) whole numbers or
    words. names: what the numbers mean. full_scale: the value that stands for 1 in floats kept as uint16,
    else None.

    Raises OwnlatentError if these are not images, or if a label is missing.
    """

    def __init__(
        self, array: np.ndarray | Tensor, name: str = "array", labels: Any = None, names: list[str] | None = None
    ):
        self.name = name
        self.classes: list[str] | None = None
        self._labels: np.ndarray | None = None
        self._array = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
        self._axis = _channels_on(self._array.shape, name)
        if labels is not None:
            self._labels, self.classes = number_labels(_checked(labels, len(self), name), names, name, _REMEDY)
        self.format = format_of_images(self._image, len(self), name)
        self.full_scale = 65535.0 if self.format.depth == 16 and self._array.dtype.kind == "f" else None

    def __len__(self) -> int:
        return len(self._array)

    def __getitem__(self, index: int) -> Sample:
        image = conform(self._image(index), self.format)
        return Sample(image, None if self._labels is None else int(self._labels[index]), self.title(index))

    def title(self, index: int) -> str:
        return f"{self.name}[{range(len(self))[index]}]"

    def stack(self, first: int, stop: int) -> tuple[Tensor, list[int] | None] | None:
        if self._array.dtype not in (np.uint8, np.uint16):
            return None  # each image is looked at by itself
        images = self._array[first:stop]
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2) if self._axis == 2 else images
        labels = None if self._labels is None else self._labels[first:stop].tolist()
        return torch.from_numpy(np.array(images, order="C")), labels

    def _image(self, index: int) -> Tensor:
        image = self._array[range(len(self))[index]]
        return to_tensor(image[None] if image.ndim == 2 else image, self._axis)

    def __getstate__(self) -> dict[str, Any]:
        # NumPy would write out what a mapped file holds; the worker process maps it again instead.
        if isinstance(self._array, np.memmap) and self._array.filename is not None:
            return {**self.__dict__, "_array": Path(self._array.filename)}
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if isinstance(self._array, Path):
            self._array = _load(self._array)


def open_arrays(path: Path, labelled: bool = False) -> Arrays:
    """The images in a .npy file, which is mapped and may be larger than memory, or in a .npz file.

    Of a .npz file, `images`, `x` or the first array with the shape of images is read, and the labels
    that go with it (`labels`, `y`, or train_labels with train_images) only if labelled.
    """
    content = _load(path)
    if isinstance(content, np.ndarray):
        if labelled:
            raise OwnlatentError(f"{path} has no labels: {_REMEDY}")
        return Arrays(content, str(path))
    with content:
        shapes = _shapes(path)
        images = _images_in(shapes, path)
        labels = None
        if labelled:
            # First the partner of the very name: of train_images it is train_labels.
            wanted = [images.replace(a, b) for a, b in _PAIRS if a in images] + [b for _, b in _PAIRS]
            found = next((name for name in wanted if name in shapes and name != images), None)
            if found is None:
                raise OwnlatentError(f"{path} has no labels (it holds {', '.join(shapes)}): {_REMEDY}")
            labels = _read(content, found, path)
        return Arrays(_read(content, images, path), str(path), labels, read_classes(path.parent))


def _load(path: Path) -> Any:
    """A .npy file as a mapped array, a .npz file as an open archive. Raises OwnlatentError."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as error:
        raise _unreadable(str(path), error) from error


def _read(content: Any, name: str, path: Path) -> np.ndarray:
    try:
        return content[name]
    except _DAMAGE as error:
        raise _unreadable(f"{name} in {path}", error) from error


def _unreadable(what: str, error: Exception) -> OwnlatentError:
    reason = getattr(error, "strerror", None) or "it is damaged, cut off or holds Python objects"
    return OwnlatentError(f"{what} cannot be read as NumPy arrays ({reason}): save it again")


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], int]]:
    """Shape and bytes of each array in a .npz file, by their headers."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            if not entry.endswith(".npy"):
                continue
            try:
                with archive.open(entry) as file:
                    version = np.lib.format.read_magic(file)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(file)
            except _DAMAGE as error:
                raise _unreadable(f"{entry} in {path}", error) from error
            found[entry.removesuffix(".npy")] = (shape, int(np.prod(shape, dtype=object)) * dtype.itemsize)
    return found


def _images_in(shapes: dict[str, tuple[tuple[int, ...], int]], path: Path) -> str:
    """The name of the array of a .npz file that holds the images. Raises OwnlatentError."""
    likely = sorted((name for name in shapes if len(shapes[name][0]) in (3, 4)), key=lambda name: -len(shapes[name][0]))
    named = [name for name in _IMAGES if name in shapes] or likely
    if not named:
        held = ", ".join(f"{name} {shape}" for name, (shape, _) in shapes.items()) or "nothing"
        raise OwnlatentError(f"{path} holds no images (but {held}): call an array (N, H, W, C) `images`")
    if len(likely) > 1:
        log.info("data       of the arrays %s in %s, %s is read", ", ".join(likely), path, named[0])
    if shapes[named[0]][1] > memory() // 2:
        raise OwnlatentError(
            f"{named[0]} in {path} is larger than half of the memory: save it as a .npy file, which need not fit"
        )
    return named[0]


def _channels_on(shape: tuple[int, ...], name: str) -> int:
    """The axis of an image (C, H, W) or (H, W, C) on which its channels lie. Raises OwnlatentError."""
    if len(shape) not in (3, 4) or 0 in shape:
        raise OwnlatentError(
            f"{name} has the shape {shape}, which are no images: give (N, H, W), (N, C, H, W) or (N, H, W, C)"
        )
    if len(shape) == 3:
        for channels, *sides in ((shape[2], *shape[:2]), shape):
            if channels in (1, 3, 4) and min(sides) > 4:
                raise OwnlatentError(f"{name} has the shape {shape} of one image: give many of them, (N, H, W, C)")
        return 0
    axis = channel_axis(shape[1:])
    if axis is None:
        raise OwnlatentError(
            f"the shape {shape} of {name} does not tell which axis holds the channels: give images that are larger, in "
            "pixels, than their number of channels"
        )
    return axis


def _checked(labels: Any, count: int, name: str) -> list[Any]:
    """Labels as a plain list, (N,) or (N, 1). Raises OwnlatentError."""
    array = np.asarray(labels)
    if array.shape not in ((count,), (count, 1)):
        raise OwnlatentError(f"{name} has {count} images and labels of shape {array.shape}: give one label for each")
    if array.dtype.kind not in "iubUS":
        raise OwnlatentError(f"the labels of {name} are {array.dtype}: give whole numbers or words")
    flat = array.ravel()
    return (np.char.decode(flat) if array.dtype.kind == "S" else flat).tolist()
