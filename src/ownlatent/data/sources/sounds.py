"""Sounds that are made here, so that nothing need be downloaded: instruments, noises, sweeps and voices."""

from functools import cache

import numpy as np
import torch

from ownlatent.data.decode import Format
from ownlatent.errors import OwnlatentError
from ownlatent.sound.front_end import as_picture
from ownlatent.sound.spectrum import RATE
from ownlatent.types import Sample

KINDS = (
    "plucked string",
    "bowed string",
    "flute",
    "bell",
    "drum",
    "rising sweep",
    "falling sweep",
    "warble",
    "wind",
    "clicks",
    "vowel a",
    "vowel i",
    "vowel u",
    "syllable",
)
SPLITS = ("train", "test")
PER_KIND = {"train": 120, "test": 40}
_SAMPLES = 3 * RATE // 4  # three quarters of a second
# First three formants of a man's vowels, Hz (Peterson and Barney 1952), which a speaker's size shifts.
_FORMANTS = {"a": (730, 1090, 2440), "i": (270, 2290, 3010), "u": (300, 870, 2240)}
_WIDTHS = (90, 110, 170)  # of the formants, Hz


class Sounds:
    """Sounds of 16 kHz, labelled by their kind; pitch, loudness, length, place, background and microphone vary.

    The speakers and instruments of the parts "train" and "test" are others: each draws from a generator of its own.
    Raises OwnlatentError for another part.
    """

    format = Format(1, 16, sound=True)

    def __init__(self, split: str):
        if split not in SPLITS:
            raise OwnlatentError(f"the sounds that are made here have the parts {' and '.join(SPLITS)}, not {split!r}")
        self.name, self.split = f"sounds:{split}", split
        self.classes = list(KINDS)

    def __len__(self) -> int:
        return len(KINDS) * PER_KIND[self.split]

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self))[index]
        return Sample(_picture(self.split, index), self._label(index), self.title(index))

    def title(self, index: int) -> str:
        return f"{KINDS[self._label(index)]}-{index:05d}"

    def waveform(self, index: int) -> np.ndarray:
        """(12000,) float32 of 16 kHz."""
        rng = np.random.default_rng([SPLITS.index(self.split), range(len(self))[index]])
        return _made(KINDS[self._label(index)], rng)

    def _label(self, index: int) -> int:
        return range(len(self))[index] // PER_KIND[self.split]


@cache
def _picture(split: str, index: int) -> torch.Tensor:
    return torch.from_numpy(as_picture(Sounds(split).waveform(index))).unsqueeze(0)


def _made(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A sound, another one further away, and noise; as a microphone hears them."""
    near, far = _placed(_alone(kind, rng), rng), _placed(_alone(str(rng.choice(KINDS)), rng), rng)
    noise = _noise(_SAMPLES, rng, 50, rng.uniform(1000, 7000))
    heard = _by_a_microphone(near + far * 10 ** rng.uniform(-1.5, -0.4) + noise * 10 ** rng.uniform(-2.5, -1), rng)
    return (heard / np.abs(heard).max() * 10 ** rng.uniform(-1.3, -0.3)).astype(np.float32)


def _placed(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A sound with its peak at 1, somewhere in three quarters of a second."""
    first = int(rng.integers(0, _SAMPLES - len(sound) + 1))
    made = np.zeros(_SAMPLES)
    made[first : first + len(sound)] = sound / max(1e-9, np.abs(sound).max())
    return made


def _alone(kind: str, rng: np.random.Generator) -> np.ndarray:
    length = int(rng.uniform(0.35, 0.7) * RATE)
    t = np.arange(length) / RATE
    pitch = float(np.exp(rng.uniform(np.log(110), np.log(520))))
    if kind == "plucked string":
        sound = _harmonics(pitch, t, rng, fall=1.2) * np.exp(-t * rng.uniform(5, 12))
    elif kind == "bowed string":
        wobble = 1 + 0.006 * np.sin(2 * np.pi * rng.uniform(4, 7) * t)
        sound = _harmonics(pitch * wobble, t, rng, fall=1.0) * _swell(t, rng.uniform(0.06, 0.15))
    elif kind == "flute":
        breath = 0.05 * _noise(length, rng, 2000, 6000)
        sound = (_harmonics(2 * pitch, t, rng, fall=3.0) + breath) * _swell(t, 0.05)
    elif kind == "bell":
        ratios = np.array([1, 2.76, 5.4, 8.93]) * rng.uniform(0.98, 1.02, 4)
        parts = [np.sin(2 * np.pi * 2 * pitch * r * t + rng.uniform(0, 6)) * np.exp(-t * (3 + 2 * r)) for r in ratios]
        sound = np.sum(parts, axis=0)
    elif kind == "drum":
        falling = np.cumsum(60 + pitch * np.exp(-t * 30)) / RATE
        sound = np.sin(2 * np.pi * falling) * np.exp(-t * rng.uniform(9, 16))
        sound += 0.3 * _noise(length, rng, 300, 4000) * np.exp(-t * 40)
    elif kind in ("rising sweep", "falling sweep"):
        low, high = rng.uniform(200, 700), rng.uniform(1500, 5000)
        way = t / t[-1] if kind == "rising sweep" else 1 - t / t[-1]
        sound = np.sin(2 * np.pi * np.cumsum(low * (high / low) ** way) / RATE) * _swell(t, 0.03)
    elif kind == "warble":
        wobble = np.sin(2 * np.pi * rng.uniform(8, 20) * t)
        sound = np.sin(2 * np.pi * np.cumsum(4 * pitch * (1 + 0.25 * wobble)) / RATE) * _swell(t, 0.03)
    elif kind == "wind":
        gusts = 1 + 0.7 * np.sin(2 * np.pi * rng.uniform(1, 4) * t + rng.uniform(0, 6))
        sound = _noise(length, rng, rng.uniform(100, 400), rng.uniform(900, 3000)) * gusts * _swell(t, 0.08)
    elif kind == "clicks":
        gaps = rng.uniform(0.03, 0.12) * RATE
        clicks = np.zeros(length)
        clicks[np.arange(rng.uniform(0, gaps), length, gaps).astype(int)] = 1
        sound = np.convolve(clicks, _noise(160, rng, 800, 7000) * np.exp(-np.arange(160) / 30))[:length]
    elif kind == "syllable":
        burst = int(rng.uniform(0.02, 0.05) * RATE)
        sound = _voice(str(rng.choice(list(_FORMANTS))), pitch, t, rng) * _swell(t, 0.03)
        sound[:burst] = 0.6 * _noise(burst, rng, 2500, 7500) * np.abs(sound).max()
    else:
        sound = _voice(kind[-1], pitch, t, rng) * _swell(t, 0.04)
    return sound


def _by_a_microphone(sound: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As one hears it that is deafer to low or to high frequencies, by up to 26 dB."""
    spectrum = np.fft.rfft(sound)
    gain = np.exp(np.interp(np.linspace(0, 1, len(spectrum)), (0, 0.15, 1), rng.uniform(-1.5, 1.5, 3)))
    return np.fft.irfft(spectrum * gain, len(sound))


def _harmonics(pitch: float | np.ndarray, t: np.ndarray, rng: np.random.Generator, fall: float) -> np.ndarray:
    """A tone whose harmonics become weaker by their number to the power of `fall`, each by a little of chance."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(pitch, t.shape)) / RATE
    most = max(1, int(7000 / float(np.max(pitch))))
    parts = [rng.uniform(0.5, 1) / n**fall * np.sin(n * phase + rng.uniform(0, 6)) for n in range(1, min(most, 20) + 1)]
    return np.sum(parts, axis=0)


def _voice(vowel: str, pitch: float, t: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A speaker's vowel: harmonics of the voice, each as loud as the formants let it through."""
    size = rng.uniform(0.9, 1.25)  # a smaller mouth has higher formants
    contour = pitch / 2 * (1 + rng.uniform(-0.2, 0.2) * t / t[-1])
    phase = 2 * np.pi * np.cumsum(contour) / RATE
    sound = np.zeros(len(t))
    for n in range(1, int(5500 / float(contour.max())) + 1):
        frequency = n * pitch / 2
        gain = sum(1 / (1 + ((frequency - size * f) / w) ** 2) for f, w in zip(_FORMANTS[vowel], _WIDTHS, strict=True))
        sound += gain / n**0.5 * np.sin(n * phase + rng.uniform(0, 6))
    return sound


def _noise(length: int, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Noise between two frequencies, of peak 1."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    frequencies = np.fft.rfftfreq(length, 1 / RATE)
    spectrum[(frequencies < low) | (frequencies > high)] = 0
    sound = np.fft.irfft(spectrum, length)
    return sound / max(1e-9, np.abs(sound).max())


def _swell(t: np.ndarray, seconds: float) -> np.ndarray:
    """Comes within so many seconds, and goes likewise."""
    return np.minimum(1, np.minimum(t, t[-1] - t) / seconds)
