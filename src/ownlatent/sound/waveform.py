"""The bytes of a sound file to a waveform of 16 kHz and one channel."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ownlatent.errors import OwnlatentError
from ownlatent.sound.spectrum import RATE

MOST_SAMPLES = 2**28  # of all channels together: a gibibyte as float32, an hour and a half of music in stereo
_LOUDEST = 1e5  # times full scale: whole numbers of 16 bits that were written as floats are still let through
_NEEDS = "sound files need two more packages: pip install 'ownlatent[audio]'"


class Facts(NamedTuple):
    """What a file's header says: samples a second, channels, samples of each."""

    rate: float
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


def check_extent(facts: Facts) -> None:
    """Raise ValueError for a rate that no sound has, and for more samples, as they are or at 16 kHz, than are taken."""
    if not 1000 <= facts.rate <= 768_000:  # also where it is no number
        raise ValueError(f"{facts.rate:g} samples a second are no rate of a sound")
    if max(facts.channels, RATE / facts.rate) * facts.samples > MOST_SAMPLES:
        raise ValueError(f"{facts.seconds / 60:,.0f} minutes are too long for one sound: cut it into parts")


def facts_of(data: bytes) -> Facts:
    """By the header of a WAV, FLAC, OGG, MP3 or AIFF file. Raises whatever libsndfile does for one that it refuses."""
    with _quiet(data), _soundfile().SoundFile(_Bytes(data)) as file:
        return Facts(file.samplerate, file.channels, file.frames)


def read_waveform(data: bytes) -> np.ndarray:
    """(samples,) float32 of 16 kHz, full scale 1: the mean of the channels, resampled once.

    A file that ends early gives what there is of it. Raises whatever libsndfile does, and ValueError for samples that
    are no numbers.
    """
    with _quiet(data):
        sounds, rate = _soundfile().read(_Bytes(data), dtype="float32", always_2d=True)
    with np.errstate(all="ignore"):  # damaged floats
        return at_16_khz(sounds.mean(1), rate)


def at_16_khz(waveform: np.ndarray, rate: float) -> np.ndarray:
    """A waveform (samples,) of any rate at that of the front end. Raises ValueError for samples that are no numbers."""
    check_extent(Facts(rate, 1, len(waveform)))
    waveform = np.ascontiguousarray(waveform, np.float32)
    if not np.isfinite(waveform).all():
        raise ValueError("samples that are no numbers")
    if len(waveform) and np.abs(waveform).max() > _LOUDEST:
        raise ValueError("samples far beyond full scale")
    if rate == RATE or not len(waveform):
        return waveform
    return _soxr().resample(waveform, rate, RATE)


def mp3(waveform: np.ndarray) -> bytes:
    """A waveform of 16 kHz as a small MP3 file, which every browser plays. Raises OwnlatentError without soundfile."""
    content = io.BytesIO()
    _soundfile().write(content, waveform, RATE, format="MP3", compression_level=0.9, bitrate_mode="CONSTANT")
    return content.getvalue()


class _Bytes(io.BytesIO):
    """Damaged files make decoders ask for places before the beginning; an exception there would be printed."""

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


_silent, _lock, _kept = 0, Lock(), -1


@contextmanager
def _quiet(data: bytes) -> Iterator[None]:
    """mpg123, by which libsndfile reads MP3, prints what it thinks of damaged files: nothing is heard of it in here.

    The first thread that comes in turns the process's standard error away, and the last one that leaves turns it back.
    """
    global _silent, _kept
    if not data.startswith((b"ID3", b"\xff")):
        yield
        return
    with _lock:
        if not _silent:
            _kept = _turned_away()
        _silent += 1
    try:
        yield
    finally:
        with _lock:
            _silent -= 1
            if not _silent and _kept >= 0:
                os.dup2(_kept, 2)
                os.close(_kept)


def _turned_away() -> int:
    """A copy of standard error, whose place the null device takes; -1 where there is no standard error."""
    try:
        kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except OSError:
        return -1
    os.dup2(nothing, 2)
    os.close(nothing)
    return kept


def _after_fork() -> None:
    """A worker that is forked while another thread decodes begins with standard error as it was."""
    global _silent, _lock
    _lock = Lock()
    if _silent and _kept >= 0:
        os.dup2(_kept, 2)
    _silent = 0


os.register_at_fork(after_in_child=_after_fork)


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: where its own copy of libsndfile is missing
        raise OwnlatentError(_NEEDS) from None
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError:
        raise OwnlatentError(_NEEDS) from None
    return soxr
