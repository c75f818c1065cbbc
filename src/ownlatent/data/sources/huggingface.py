"""Data sets of Hugging Face, of images or sounds: from the hub by name, or as an object of their package `datasets`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ownlatent.data.decode import Unreadable
from ownlatent.data.labels import find_column, number_labels
from ownlatent.data.probe import format_of_files
from ownlatent.data.reasons import brief
from ownlatent.data.source import EncodedSource
from ownlatent.data.sources.parquet import COLUMNS, KINDS
from ownlatent.errors import OwnlatentError
from ownlatent.types import NOUNS, Modality


def open_hub(given: str, labelled: bool = False, modality: Modality = "image") -> EncodedSource:
    """`OWNER/NAME` or `OWNER/NAME:PART` on the hub, by the package `datasets`; without a part, `train`.

    What is not yet in that package's own cache is downloaded. Raises OwnlatentError.
    """
    name, _, part = given.partition(":")
    datasets = _datasets()
    try:
        data = datasets.load_dataset(name, split=part or "train")
    except Exception as error:  # of the network, of the hub, of the data set: there is no common kind
        raise OwnlatentError(
            f"hf:{given} cannot be loaded ({brief(error)}): check the name, the part and the network"
        ) from error
    return HuggingFace(data, f"hf:{given}", labelled, modality)


class HuggingFace(EncodedSource):
    """The images of a `datasets.Dataset`, or of the part `train` of several; they are decoded here.

    labelled: the labels are in its column `label`, or in its only column of classes. Raises OwnlatentError
    if it has no images that can be read or, if asked for, no labels.
    """

    def __init__(self, data: Any, name: str = "datasets.Dataset", labelled: bool = False, modality: Modality = "image"):
        datasets = _datasets()
        if isinstance(data, Mapping):
            if "train" not in data:
                raise OwnlatentError(
                    f"{name} has the parts {', '.join(data)}: give one, as in data[{next(iter(data))!r}]"
                )
            data = data["train"]
        if not isinstance(data, datasets.Dataset):
            raise OwnlatentError(f"{name} can only be read from its beginning: load it without streaming=True")
        self.name = name
        data = data.with_format(None)  # the user's own transforms would get in the way
        self._column = _image_column(data.features, name, modality)
        self._images = data.select_columns([self._column])
        if type(data.features[self._column]).__name__ == KINDS[modality]:
            undecoded = getattr(datasets, KINDS[modality])(decode=False)
            self._images = self._images.cast_column(self._column, undecoded)
        if not len(self):
            raise OwnlatentError(f"{name} has no rows: give a data set that holds {NOUNS[modality]}")
        self._labels: np.ndarray | None = None
        if labelled:
            others = [column for column in data.features if column != self._column]
            column = find_column({other: hasattr(data.features[other], "names") for other in others}, name)
            names = getattr(data.features[column], "names", None)
            values = list(data[column])
            if not all(isinstance(value, (int, str, type(None))) for value in values):
                raise OwnlatentError(f"the column `{column}` of {name} holds no classes: give whole numbers or words")
            self._labels, self.classes = number_labels(values, names, name, f"fill in its column `{column}`")
        self.format = format_of_files(self)

    def __len__(self) -> int:
        return len(self._images)

    def encoded(self, index: int) -> bytes:
        image = self._images[range(len(self))[index]][self._column]
        if isinstance(image, Mapping):
            image = image["bytes"] if image["bytes"] is not None else self._content(image["path"])
        if image is None:
            raise Unreadable("its row holds no image")
        return image

    def title(self, index: int) -> str:
        return f"{self.name}[{range(len(self))[index]}]"

    def label(self, index: int) -> int | None:
        return None if self._labels is None else int(self._labels[index])

    def _content(self, path: str | None) -> bytes | None:
        try:
            return Path(path).read_bytes() if path else None
        except OSError as error:
            raise Unreadable(brief(error)) from None


def _datasets() -> Any:
    try:
        import datasets
    except ImportError:
        raise OwnlatentError("data sets of Hugging Face need one more package: pip install datasets") from None
    return datasets


def _image_column(features: Mapping[str, Any], name: str, modality: Modality) -> str:
    """The column of images. Raises OwnlatentError if it is none or could be several."""
    images = [column for column, feature in features.items() if type(feature).__name__ == KINDS[modality]]
    found = images or [
        c for c, feature in features.items() if getattr(feature, "dtype", "") in ("binary", "large_binary")
    ]
    named = [column for column in COLUMNS[modality] if column in found]
    if len(found) == 1 or named:
        return (named or found)[0]
    noun = NOUNS[modality]
    what = (
        f"several columns of {noun} ({', '.join(found)})" if found else f"no column of {noun} but {', '.join(features)}"
    )
    raise OwnlatentError(f"{name} has {what}: rename the one to use to `{modality}`")
