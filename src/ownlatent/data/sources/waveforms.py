"""Sounds that a program holds: waveforms, and data sets that give them as torchaudio's or Hugging Face's do."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ownlatent.data.decode import Format, Unreadable
from ownlatent.data.labels import NAMES, Label, number_labels
from ownlatent.data.reasons import brief
from ownlatent.data.sources.items import Items
from ownlatent.errors import OwnlatentError
from ownlatent.sound.front_end import as_picture
from ownlatent.sound.spectrum import RATE
from ownlatent.sound.waveform import at_16_khz
from ownlatent.types import Sample


class Waveforms(Items):
    """A sequence of waveforms: an array (N, samples), a list, or a map-style data set.

    An item is a waveform (samples,) or (channels, samples), of floats at full scale 1 or of whole numbers, at 16 kHz;
    or (waveform, rate, ...), as torchaudio's data sets give it; or a dictionary with `array` and `sampling_rate`,
    which may lie under `audio`, as Hugging Face's have it.

    labelled: the label is the item's third entry, or the dictionary's `label`. Raises OwnlatentError if the first item
    holds no waveform or, if asked for, labels are missing.
    """

    format = Format(1, 16, sound=True)

    def __init__(self, data: Any, labelled: bool = False):
        super().__init__(data, None, "sounds")
        self.classes: Sequence[str] | None = None
        self._labels: np.ndarray | None = None
        try:
            self.waveform(0)
        except Unreadable as error:
            raise OwnlatentError(f"{self.title(0)} is no sound: {error}") from error
        if labelled:
            names = getattr(data, "classes", None)
            remedy = "its items must be tuples (waveform, rate, label) or dictionaries with `audio` and `label`"
            labels = [self.label_of(index, _label_in) for index in range(len(data))]
            self._labels, self.classes = number_labels(labels, names, self.name, remedy)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        picture = torch.from_numpy(as_picture(self.waveform(index))).unsqueeze(0)
        return Sample(picture, None if self._labels is None else int(self._labels[index]), self.title(index))

    def waveform(self, index: int) -> np.ndarray:
        """(samples,) float32 of 16 kHz. Raises Unreadable."""
        values, rate = _waveform_in(self.item(index))
        try:
            array = values.detach().cpu().float().numpy() if _is_float_tensor(values) else np.asarray(values)
        except (TypeError, ValueError) as error:
            raise Unreadable(f"no waveform: {brief(error)}") from error
        if array.ndim not in (1, 2) or not array.size or array.dtype.kind not in "fiu":
            raise Unreadable(f"{array.dtype} of shape {tuple(array.shape)} is no waveform: give (samples,)")
        if array.ndim == 2 and array.shape[0] > array.shape[1]:
            raise Unreadable(f"a waveform of {array.shape[0]} channels: give (channels, samples), not the reverse")
        if array.dtype.kind == "u":
            array = array.astype(np.float32) / np.iinfo(array.dtype).max * 2 - 1
        elif array.dtype.kind == "i":
            array = array.astype(np.float32) / -float(np.iinfo(array.dtype).min)
        try:
            return at_16_khz(array if array.ndim == 1 else array.mean(0), rate)
        except ValueError as error:
            raise Unreadable(str(error)) from error


def _is_float_tensor(values: Any) -> bool:
    """NumPy does not know all of torch's."""
    return isinstance(values, Tensor) and values.is_floating_point()


def _waveform_in(item: Any) -> tuple[Any, float]:
    """The waveform of an item, and its rate."""
    if isinstance(item, Mapping):
        held = item.get("audio", item)
        if not isinstance(held, Mapping):
            return _waveform_in(held)
        if "array" not in held:
            raise Unreadable(f"an item has {', '.join(map(str, held))} and no `array`")
        return held["array"], _rate(held.get("sampling_rate", RATE))
    if (
        isinstance(item, (tuple, list))
        and len(item) > 1
        and isinstance(item[1], (int, float))
        and not isinstance(item[0], (int, float))
    ):
        return item[0], _rate(item[1])
    return item, RATE


def _rate(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise Unreadable(f"{value!r} is no rate of a sound") from error


def _label_in(item: Any) -> Label:
    if isinstance(item, Mapping):
        found = next((item[name] for name in NAMES if name in item), None)
    else:
        found = item[2] if isinstance(item, (tuple, list)) and len(item) > 2 else None
    return found if found is None or isinstance(found, str) else int(found)
