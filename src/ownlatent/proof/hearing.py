"""The sounds of a gallery as small files that a browser plays, and as pictures."""

import io
import wave
from collections.abc import Callable, Iterator, Sequence

import matplotlib
import numpy as np
from PIL import Image

from ownlatent.data.decode import Unreadable
from ownlatent.data.source import EncodedSource, Source
from ownlatent.errors import OwnlatentError
from ownlatent.sound.front_end import as_seen
from ownlatent.sound.spectrum import RATE
from ownlatent.sound.waveform import mp3, read_waveform

_MOST_BYTES = 4 * 2**20  # of all sounds together, so that a report can still be sent to somebody
_MOST_SECONDS = 3  # of each


def sounds_of(source: Source, places: Sequence[int]) -> dict[str, np.ndarray]:
    """Arrays of a gallery: "heard" (H,) numbers among `places`, "sound_ends" (H,), and "sounds", their files' bytes.

    MP3 where the reader of sounds is there, else WAV; as many of them, spread over all, as go into 4 MiB. Nothing for
    a source that cannot give waveforms.
    """
    get = _waveforms(source)
    if get is None or not len(places):
        return {}
    try:
        first = _file_of(get(places[0]))
        count = min(len(places), max(1, int(0.8 * _MOST_BYTES / len(first))))
        chosen = np.linspace(0, len(places) - 1, count).round().astype(int)
        files, size = [], 0
        for number in chosen:
            files.append(_file_of(get(places[number])))
            size += len(files[-1])
            if size > _MOST_BYTES:
                files.pop()
                break
    except (Unreadable, ValueError, OwnlatentError):
        return {}
    return {
        "heard": chosen[: len(files)].astype(np.int32),
        "sound_ends": np.cumsum([len(file) for file in files]).astype(np.int64),
        "sounds": np.frombuffer(b"".join(files), np.uint8),
    }


def spectrogram_tiles(source: Source, places: Sequence[int], side: int) -> Iterator[Image.Image]:
    """Each sound's whole spectrogram as a square of `side` pixels, the lowest frequency at the bottom."""
    colours = (matplotlib.colormaps["magma"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
    for place in places:
        shown = as_seen(source[place].image[0].numpy().astype(np.float32) / 65535)
        picture = Image.fromarray(colours[(255 * shown).astype(np.uint8)])
        yield picture.resize((side, side), Image.Resampling.BOX if shown.shape[1] > side else Image.Resampling.BILINEAR)


def _waveforms(source: Source) -> Callable[[int], np.ndarray] | None:
    if isinstance(source, EncodedSource):
        return lambda place: read_waveform(source.encoded(place))
    return getattr(source, "waveform", None)


def _file_of(waveform: np.ndarray) -> bytes:
    waveform = waveform[: _MOST_SECONDS * RATE]
    try:
        return mp3(waveform)
    except OwnlatentError:
        content = io.BytesIO()
        with wave.open(content, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes((waveform.clip(-1, 1) * 32767).astype("<i2").tobytes())
        return content.getvalue()
