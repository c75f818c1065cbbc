"""Spectrograms against librosa's, and against a Fourier transform written out."""

import librosa
import numpy as np
import pytest
import torch

from ownlatent.sound.front_end import LogMel, as_picture, mel_bands, to_levels
from ownlatent.sound.spectrum import HIGHEST, HOP, LOWEST, MELS, RATE, SILENCE, SPAN, WINDOW, frames_in


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.1, samples).astype(np.float32)


def test_mel_filters_are_librosas() -> None:
    expected = librosa.filters.mel(sr=RATE, n_fft=WINDOW, n_mels=MELS, fmin=LOWEST, fmax=HIGHEST)
    assert np.abs(mel_bands() - expected).max() < 1e-8
    assert np.abs(mel_bands() - expected).max() / expected.max() < 1e-5


def test_spectrograms_are_librosas() -> None:
    waveform = noise(15_200)
    power = librosa.feature.melspectrogram(
        y=waveform, sr=RATE, n_fft=WINDOW, hop_length=HOP, n_mels=MELS, fmin=LOWEST, fmax=HIGHEST, pad_mode="constant"
    )
    ours = LogMel()(torch.from_numpy(waveform)[None])
    assert ours.shape == (1, 1, 64, 96)  # BYOL-A's unit: 0.95 seconds
    assert np.abs(ours[0, 0].numpy() - np.log(power + 2.0**-23)).max() < 1e-4


def test_a_frame_is_a_windowed_fourier_transform_around_its_sample() -> None:
    waveform = noise(4000).astype(np.float64)
    padded = np.pad(waveform, WINDOW // 2)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    for frame in (0, 7, 25):
        spectrum = np.fft.rfft(padded[frame * HOP : frame * HOP + WINDOW] * window)
        expected = np.log(mel_bands().astype(np.float64) @ np.abs(spectrum) ** 2 + 2.0**-23)
        ours = LogMel()(torch.from_numpy(waveform)[None])[0, 0, :, frame].numpy()
        assert np.abs(ours - expected).max() < 1e-4


@pytest.mark.parametrize("samples", [1, 159, 160, 1023, 16_000])
def test_a_sound_of_any_length_has_its_frames(samples: int) -> None:
    assert LogMel()(torch.zeros(2, samples)).shape == (2, 1, MELS, frames_in(samples))


def test_silence_is_level_0_and_a_sine_of_full_scale_fits() -> None:
    assert LogMel()(torch.zeros(1, 800)).allclose(torch.tensor(SILENCE))
    loudest = max(
        LogMel()(torch.sin(2 * torch.pi * pitch * torch.arange(RATE) / RATE)[None]).max().item() - SILENCE
        for pitch in (80, 440, 1000, 4000, 7500)
    )
    assert 20 < loudest < SPAN
    assert to_levels(torch.tensor([SILENCE - 1, SILENCE, SILENCE + SPAN, 99.0])).tolist() == [0, 0, 1, 1]


def test_a_batch_is_its_sounds_one_by_one() -> None:
    waveforms = torch.from_numpy(np.stack([noise(3000, seed) for seed in range(5)]))
    together = LogMel()(waveforms)
    for waveform, made in zip(waveforms, together, strict=True):
        assert torch.allclose(LogMel()(waveform[None])[0], made, atol=1e-5)


def test_a_picture_keeps_the_spectrogram_to_a_hundredth_of_a_percent() -> None:
    waveform = noise(8000)
    picture = as_picture(waveform)
    assert (picture.dtype, picture.shape) == (np.uint16, (MELS, 51))
    exact = LogMel()(torch.from_numpy(waveform)[None])[0, 0].numpy()
    assert np.abs(picture / 65535 * SPAN + SILENCE - exact).max() <= SPAN / 65535 / 2 + 1e-5


def test_the_constants_are_no_part_of_a_state_dict() -> None:
    assert not LogMel().state_dict()


def test_a_long_sound_is_made_in_parts_that_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    waveform = noise(50_000)
    whole = as_picture(waveform)
    monkeypatch.setattr("ownlatent.sound.front_end._FRAMES", 37)
    assert np.abs(as_picture(waveform).astype(int) - whole.astype(int)).max() <= 1
