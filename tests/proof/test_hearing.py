"""Sounds of a gallery: files that play, in the place of the images they belong to, and no more than go into a page."""

import io
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from ownlatent.data.opening import open_source
from ownlatent.data.sources.sounds import Sounds
from ownlatent.proof import hearing
from ownlatent.reporting.gallery import _sounds
from ownlatent.sound.waveform import read_waveform


def pitch(waveform: np.ndarray) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(waveform))) * 16_000 / len(waveform))


def test_every_sound_plays_its_own(sound_folder: Path) -> None:
    source = open_source(sound_folder, modality="audio")
    places = [0, 20, 33]
    files = _sounds(hearing.sounds_of(source, places))
    assert list(files) == [0, 1, 2]
    for number, place in enumerate(places):
        heard = read_waveform(files[number])
        assert pitch(heard) == pytest.approx(pitch(read_waveform(source.encoded(place))), rel=0.03)


def test_without_the_reader_they_are_wav(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    files = _sounds(hearing.sounds_of(Sounds("test"), [0, 5]))
    with wave.open(io.BytesIO(files[1]), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 12_000)
        samples = np.frombuffer(file.readframes(12_000), "<i2") / 32767
    assert np.abs(samples - Sounds("test").waveform(5)).max() < 1e-4


def test_they_are_spread_over_all_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearing, "_MOST_BYTES", 40_000)
    found = hearing.sounds_of(Sounds("test"), list(range(0, 560, 10)))
    heard = found["heard"]
    assert 3 < len(heard) < 56 and heard[0] == 0 and np.ptp(np.diff(heard)) <= 1
    assert len(found["sounds"]) <= 40_000


def test_what_gives_no_waveforms_has_no_sounds() -> None:
    class Pictures:
        name, classes = "x", None

        def __len__(self) -> int:
            return 1

    assert hearing.sounds_of(Pictures(), [0]) == {}  # type: ignore[arg-type]


def test_spectrograms_have_the_lowest_frequency_at_the_bottom() -> None:
    source = Sounds("train")
    falling = next(i for i in range(len(source)) if source.title(i).startswith("drum"))
    (tile,) = hearing.spectrogram_tiles(source, [falling], 64)
    pixels = np.asarray(tile.convert("L")).astype(float)
    assert tile.size == (64, 64) and pixels[48:].mean() > pixels[:16].mean()
