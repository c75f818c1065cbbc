"""Which spectrograms there are here: numbers alone, which cost nothing to import (BYOL-A, section III)."""

import math

RATE = 16_000
"""Samples a second of every waveform here."""
HOP = 160
"""Samples from one frame of a spectrogram to the next: a hundredth of a second."""
WINDOW = 1024
"""Samples of a frame, and of its Fourier transform."""
MELS, LOWEST, HIGHEST = 64, 60.0, 7800.0
"""Bands of a spectrogram, from the lowest to the highest frequency, Hz."""
EPS = 2.0**-23
SILENCE = math.log(EPS)
"""The log-mel of nothing at all."""
SPAN = 28.0
"""From silence to the loudest log-mel that is kept apart: a sine of full scale comes to about 24."""


def front_end_facts() -> dict[str, float]:
    """What decides a spectrogram, by name."""
    return {
        "rate": RATE,
        "hop": HOP,
        "window": WINDOW,
        "bands": MELS,
        "lowest_hz": LOWEST,
        "highest_hz": HIGHEST,
        "silence": round(SILENCE, 6),
        "span": SPAN,
    }


def frames_in(samples: int) -> int:
    """How many frames the spectrogram of a waveform has: frame t is centred on sample 160 t."""
    return 1 + samples // HOP
