"""Sources made of something else: a data set of the user's own, or several sources one after the other."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ownlatent.data.decode import Format, Unreadable, decode
from ownlatent.data.labels import NAMES, Label, number_labels
from ownlatent.data.pixels import conform, to_image
from ownlatent.data.probe import format_of_images, merged
from ownlatent.data.source import EncodedSource, Source
from ownlatent.data.sources.items import Items
from ownlatent.errors import OwnlatentError
from ownlatent.types import Sample

_IMAGES = ("image", "img", "images", "pixel_values", "jpg", "png")


class Wrapped(Items):
    """A map-style data set of any library: __len__, and __getitem__ that returns an image or one with more.

    An item is an image (Pillow, array or tensor), a tuple that begins with one, or a dictionary with
    one under `image`. Items are read one at a time: such data sets need not be safe for threads.

    labelled: the label is the tuple's second entry, or the dictionary's `label`. All items are read for
    them once, unless it is one of torchvision's that holds them apart. Numbers are named by `classes`.
    full_scale: the value that stands for 1 in floats kept as uint16, else None.

    Raises OwnlatentError if no item holds an image or, if asked for, a label is missing.
    """

    def __init__(self, data: Any, name: str | None = None, labelled: bool = False):
        super().__init__(data, name, "images")
        self.classes: list[str] | None = None
        self._labels: np.ndarray | None = None
        self.format: Format | None = None
        if labelled:
            labels = _known_labels(data) or [self.label_of(index, _label_in) for index in range(len(data))]
            names = _class_names(data)
            named = all(isinstance(label, int) and label < len(names) for label in labels)
            remedy = "its items must be tuples (image, label) or dictionaries with `image` and `label`"
            self._labels, self.classes = number_labels(labels, names if named else None, self.name, remedy)
        floats = set()

        def fetch(index: int) -> Tensor:
            value = _image_in(self.item(index))
            image = to_image(value)
            floats.add(_holds_floats(value))
            return image

        self.format = format_of_images(fetch, len(data), self.name)
        self.full_scale = 65535.0 if self.format.depth == 16 and True in floats else None

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        assert self.format is not None
        image = conform(to_image(_image_in(self.item(index))), self.format)
        return Sample(image, None if self._labels is None else int(self._labels[index]), self.title(index))


def _image_in(item: Any) -> Any:
    if isinstance(item, Mapping):
        found = next((item[name] for name in _IMAGES if name in item), None)
        if found is None:
            raise Unreadable(f"an item has {', '.join(map(str, item))} and no `image`")
        return found
    return item[0] if isinstance(item, (tuple, list)) and item else item


def _holds_floats(image: Any) -> bool:
    if isinstance(image, Tensor):
        return image.is_floating_point()
    return getattr(image, "mode", "") == "F" or getattr(getattr(image, "dtype", None), "kind", "") == "f"


def _class_names(data: Any) -> list[str]:
    """What a data set says that its numbers mean; nothing where its `classes` are no list of names."""
    classes = getattr(data, "classes", None)
    if isinstance(classes, np.ndarray):
        classes = classes.tolist()
    if not isinstance(classes, (list, tuple, Mapping)):
        return []
    return [str(each[0]) if isinstance(each, (tuple, list)) and each else str(each) for each in classes]


def _label_in(item: Any) -> Label:
    """A number or a word. Raises Unreadable if it is anything else."""
    if isinstance(item, Mapping):
        value = next((item[name] for name in NAMES if name in item), None)
    else:
        value = item[1] if isinstance(item, (tuple, list)) and len(item) > 1 else None
    if isinstance(value, (np.generic, np.ndarray, Tensor)):
        try:
            value = value.item()
        except (ValueError, RuntimeError):
            raise Unreadable("it is an array of several numbers") from None
    if value is not None and not isinstance(value, (int, str)):
        raise Unreadable(f"it is a {type(value).__name__} and neither a whole number nor a word")
    return value


def _known_labels(data: Any) -> list[Label] | None:
    """All labels of one of torchvision's data sets, where it holds them apart from the images and unchanged."""
    if not type(data).__module__.startswith("torchvision.") or getattr(data, "target_transform", None) is not None:
        return None
    if getattr(data, "transforms", None) is not None and data.transform is None:  # one that may change labels too
        return None
    for key in ("targets", "labels", "_labels"):
        values = np.asarray(getattr(data, key, None))
        if values.shape == (len(data),) and values.dtype.kind in "iu":
            return values.tolist()
    return None


def join(sources: Sequence[Source]) -> Source:
    """Several sources as one, the images of the first one first. Raises OwnlatentError if they do not go together."""
    if len(sources) == 1:
        return sources[0]
    if all(isinstance(source, EncodedSource) for source in sources):
        return JoinedFiles(sources)
    return Joined(sources)


class Joined:
    """Several sources one after the other, all of them with labels of the same classes or all without.

    Gray images among coloured ones become colour, as they do within a folder. full_scale is that of
    the sources of 16 bits where it is one. Raises OwnlatentError where the images or the classes do not
    go together.
    """

    def __init__(self, sources: Sequence[Source]):
        self._sources = list(sources)
        self.name = ", ".join(source.name for source in sources)
        self._first = np.cumsum([0, *map(len, sources)])
        classes = [None if source.classes is None else list(source.classes) for source in sources]
        for source, these in zip(sources, classes, strict=True):
            if these != classes[0]:
                raise OwnlatentError(
                    f"{sources[0].name} and {source.name} do not have the same classes: give sources of one data set, "
                    "or leave out the labels"
                )
        self.classes: Sequence[str] | None = classes[0]
        formats = [_format_of(source) for source in sources]
        self.format = merged(set(formats), self.name)
        # Those of 8 bits are stretched to 16, to 65535, which is where floats end too.
        pairs = zip(sources, formats, strict=True)
        scales = {getattr(source, "full_scale", None) for source, format in pairs if format.depth == 16}
        self.full_scale: float | None = scales.pop() if len(scales) == 1 else None

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getitem__(self, index: int) -> Sample:
        source, place = self._at(index)
        sample = source[place]
        return Sample(conform(sample.image, self.format), sample.label, self.title(index))

    def title(self, index: int) -> str:
        source, place = self._at(index)
        return f"{source.name}: {source.title(place)}"

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(title, reason) of what the sources could not list."""
        return [
            (f"{source.name}: {title}", reason)
            for source in self._sources
            for title, reason in getattr(source, "skipped", ())
        ]

    def _at(self, index: int) -> tuple[Source, int]:
        index = range(len(self))[index]
        number = int(np.searchsorted(self._first, index, side="right")) - 1
        return self._sources[number], index - int(self._first[number])


class JoinedFiles(Joined, EncodedSource):
    """Several sources of image files, which can still be decoded at a reduced size."""

    def encoded(self, index: int) -> bytes:
        source, place = self._at(index)
        assert isinstance(source, EncodedSource)
        return source.encoded(place)

    def label(self, index: int) -> int | None:
        source, place = self._at(index)
        assert isinstance(source, EncodedSource)
        return source.label(place)

    def __getitem__(self, index: int) -> Sample:
        return Sample(decode(self.encoded(index), self.format), self.label(index), self.title(index))


def _format_of(source: Source) -> Format:
    known = getattr(source, "format", None)
    return known or format_of_images(lambda index: source[index].image, len(source), source.name)
