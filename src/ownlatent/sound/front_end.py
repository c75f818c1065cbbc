"""Waveforms to log-mel spectrograms: what every encoder of sounds sees (BYOL-A, section III)."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from ownlatent.sound.spectrum import EPS, HIGHEST, HOP, LOWEST, MELS, RATE, SILENCE, SPAN, WINDOW, frames_in

_FLOOR, _CEILING = 0.2, 0.8  # levels that are drawn black and white: what lies outside is hardly heard, or never met

_FRAMES = 4096  # whose spectra are in memory at a time
_PIECE = 4  # sounds at a time on a processor: more do not fit its cache, and take four times as long


class LogMel(nn.Module):
    """Waveforms (B, samples) of 16 kHz, full scale 1, to log-mel spectrograms (B, 1, 64, frames), natural logarithm.

    Power in 64 bands of the mel scale from 60 to 7,800 Hz, by a Hann window of 1,024 samples every 160, with silence
    around the waveform. It runs on the waveforms' device; its constants are no part of a state dict.
    """

    window: Tensor
    bands: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("bands", torch.from_numpy(mel_bands()), persistent=False)

    def forward(self, waveforms: Tensor) -> Tensor:
        recorded = torch.jit.is_tracing() or torch.compiler.is_compiling()  # to whom the number of sounds is unknown
        if recorded or waveforms.device.type != "cpu" or len(waveforms) <= _PIECE:
            return self._of(waveforms)
        return torch.cat([self._of(piece) for piece in waveforms.split(_PIECE)])

    def _of(self, waveforms: Tensor) -> Tensor:
        return self.of_padded(nn.functional.pad(waveforms.float(), (WINDOW // 2, WINDOW // 2)))

    def of_padded(self, waveforms: Tensor) -> Tensor:
        """The same of waveforms whose first frame begins at their first sample."""
        spectrum = torch.stft(waveforms, WINDOW, HOP, window=self.window, center=False, return_complex=True)
        parts = torch.view_as_real(spectrum)
        power = parts[..., 0].square() + parts[..., 1].square()
        return (self.bands @ power + EPS).log().unsqueeze(1)


def to_levels(log_mel: Tensor) -> Tensor:
    """Log-mel to levels in [0, 1]: 0 is silence, 1 is 28 above it."""
    return ((log_mel - SILENCE) / SPAN).clamp(0, 1)


def as_picture(waveform: np.ndarray) -> np.ndarray:
    """A waveform (samples,) as its spectrogram (64, frames), uint16: levels in steps of 1 / 65535."""
    padded = nn.functional.pad(torch.from_numpy(waveform).unsqueeze(0), (WINDOW // 2, WINDOW // 2))
    frames = frames_in(len(waveform))
    picture = np.empty((MELS, frames), np.uint16)
    with torch.no_grad():
        for first in range(0, frames, _FRAMES):  # spectra take fifty times the memory of the sound
            last = min(first + _FRAMES, frames)
            log_mel = _front_end().of_padded(padded[:, first * HOP : (last - 1) * HOP + WINDOW])
            picture[:, first:last] = (to_levels(log_mel)[0, 0] * 65535).round_().numpy()
    return picture


def as_seen(levels: np.ndarray) -> np.ndarray:
    """Levels (64, frames) as they are drawn, in [0, 1]: the lowest band at the bottom, what is hardly heard black."""
    return ((levels[::-1] - _FLOOR) / (_CEILING - _FLOOR)).clip(0, 1)


@cache
def _front_end() -> LogMel:
    return LogMel()


def mel_bands() -> np.ndarray:
    """Weights (64, 513) of the frequencies of a spectrum in each band: triangles of equal area on Slaney's mel scale.

    That scale is linear up to 1,000 Hz and logarithmic above (Slaney, Auditory Toolbox, 1998), as librosa has it.
    """
    frequencies = np.linspace(0, RATE / 2, WINDOW // 2 + 1)
    edges = _from_mel(np.linspace(_to_mel(LOWEST), _to_mel(HIGHEST), MELS + 2))
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    height = 2 / (edges[2:] - edges[:-2])
    return (np.maximum(0, np.minimum(rising, falling)) * height[:, None]).astype(np.float32)


_LINEAR = 200 / 3  # Hz of one mel below 1,000 Hz, which is 15 mel
_STEP = np.log(6.4) / 27  # of the logarithm of the frequency for one mel above


def _to_mel(hertz: float) -> float:
    return hertz / _LINEAR if hertz < 1000 else 15 + float(np.log(hertz / 1000)) / _STEP


def _from_mel(mel: np.ndarray) -> np.ndarray:
    return np.where(mel < 15, mel * _LINEAR, 1000 * np.exp((mel - 15) * _STEP))
