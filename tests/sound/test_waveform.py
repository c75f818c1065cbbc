"""Sound files of every kind, as other programs write them."""

import io

import numpy as np
import pytest
import soundfile

from ownlatent.data.decode import Format, Unreadable, decode, inspect, size_of
from ownlatent.errors import OwnlatentError
from ownlatent.sound import waveform as module
from ownlatent.sound.spectrum import RATE
from ownlatent.sound.waveform import at_16_khz, facts_of, mp3, read_waveform

SOUND = Format(1, 16, sound=True)


def sine(pitch: float = 440, seconds: float = 0.5, rate: int = RATE, loud: float = 0.5) -> np.ndarray:
    return loud * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


def as_file(samples: np.ndarray, rate: int = RATE, **how: str) -> bytes:
    content = io.BytesIO()
    soundfile.write(content, samples, rate, **{"format": "WAV", **how})
    return content.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype", "apart"),
    [
        ("WAV", "PCM_U8", 1 / 64),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "PCM_32", 1e-7),
        ("WAV", "FLOAT", 1e-7),
        ("WAV", "DOUBLE", 1e-7),
        ("AIFF", "PCM_16", 1e-4),
        ("FLAC", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
    ],
)
def test_depths_are_read_to_their_precision(format: str, subtype: str, apart: float) -> None:
    read = read_waveform(as_file(sine(), format=format, subtype=subtype))
    assert read.dtype == np.float32
    assert np.abs(read - sine()).max() <= apart


@pytest.mark.parametrize(("format", "subtype"), [("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")])
def test_compressed_sounds_are_read(format: str, subtype: str) -> None:
    read = read_waveform(as_file(sine(seconds=1), format=format, subtype=subtype))
    assert abs(len(read) - RATE) < 0.1 * RATE
    spectrum = np.abs(np.fft.rfft(read))
    assert abs(np.argmax(spectrum) * RATE / len(read) - 440) < 5
    assert inspect(as_file(sine(seconds=1), format=format, subtype=subtype)) == SOUND


def test_several_channels_become_their_mean() -> None:
    left, right = sine(300), sine(1000)
    read = read_waveform(as_file(np.stack([left, right], axis=1), subtype="FLOAT"))
    assert np.allclose(read, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_rate_is_resampled(rate: int) -> None:
    read = read_waveform(as_file(sine(rate=rate), rate, subtype="FLOAT"))
    assert abs(len(read) - RATE // 2) <= 1
    middle = slice(1000, 7000)  # the ends have no neighbours on one side
    assert np.abs(read[middle] - sine()[: len(read)][middle]).max() < 2e-3


def test_what_lies_above_8_khz_does_not_come_back_as_something_lower() -> None:
    read = at_16_khz(sine(11_000, rate=44_100), 44_100)
    assert np.abs(read[500:-500]).max() < 1e-3


def test_silence_and_clipping_are_read() -> None:
    assert not decode(as_file(np.zeros(8000)), SOUND).int().any()
    clipped = np.clip(4 * sine(), -1, 1)
    assert np.abs(read_waveform(as_file(clipped)) - clipped).max() < 1e-3


def test_size_and_content_agree() -> None:
    data = as_file(sine(rate=44_100), 44_100)
    assert decode(data, inspect(data)).shape == (1, *size_of(data)) == (1, 64, 51)
    assert facts_of(data).seconds == 0.5


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_ends_early_gives_what_there_is(kept: float) -> None:
    data = as_file(sine(seconds=1), subtype="PCM_16")
    frames = decode(data[: int(kept * len(data))], SOUND).shape[2]
    assert abs(frames - kept * 101) <= 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (as_file(np.zeros(0)), "a sound without samples"),
        (as_file(sine())[:30], "damaged sound data|ends too early|without samples"),
        (as_file(sine(), format="FLAC")[:60], "damaged sound data|ends too early|without samples"),
        (as_file(np.array([0.0, np.nan, 0.1]), subtype="FLOAT"), "samples that are no numbers"),
        (b"RIFF\x10\0\0\0WAVEjunkjunk", "damaged sound data"),
        (b"OggS" + b"\0" * 40, "damaged sound data"),
    ],
    ids=["empty", "no samples", "cut WAV", "cut FLAC", "NaN", "junk", "zeros"],
)
def test_what_is_no_sound_is_unreadable(data: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode(data, SOUND)


def test_a_flac_whose_header_does_not_tell_its_length_is_unreadable() -> None:
    """As an encoder writes into a pipe: the count of samples, the last 36 bits before the checksum, is 0."""
    data = bytearray(as_file(sine(), format="FLAC"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    with pytest.raises(Unreadable, match="its header does not tell its length"):
        decode(bytes(data), SOUND)


def test_a_sound_that_is_too_long_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = as_file(sine(seconds=2))
    monkeypatch.setattr("ownlatent.sound.waveform.MOST_SAMPLES", 30_000)
    monkeypatch.setattr("ownlatent.data.formats.sound.read_waveform", lambda data: pytest.fail("was decoded"))
    with pytest.raises(Unreadable, match="too long"):
        decode(data, SOUND)


def test_sounds_are_no_images_and_images_no_sounds() -> None:
    with pytest.raises(Unreadable, match="a sound among images"):
        decode(as_file(sine()), Format(1, 16))
    with pytest.raises(Unreadable, match="an image among sounds"):
        decode(b"P5 2 2 255\n" + bytes(4), SOUND)


def test_a_missing_reader_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "soundfile", None)
    with pytest.raises(OwnlatentError, match=r"pip install 'ownlatent\[audio\]'"):
        decode(as_file_before, SOUND)


as_file_before = as_file(sine())


def test_mp3_for_a_browser_is_small_and_sounds_the_same() -> None:
    data = mp3(sine(seconds=1).astype(np.float32))
    assert len(data) < 8000
    read = module.read_waveform(data)
    assert abs(np.argmax(np.abs(np.fft.rfft(read))) * RATE / len(read) - 440) < 5
