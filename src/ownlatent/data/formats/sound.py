"""WAV, FLAC, Ogg (Vorbis and Opus), MP3 and AIFF: a sound is the picture of its log-mel spectrogram, of 16 bits."""

import numpy as np

from ownlatent.data.formats.picture import Picture, Unreadable
from ownlatent.sound.front_end import as_picture
from ownlatent.sound.spectrum import HOP, MELS, RATE
from ownlatent.sound.waveform import check_extent, facts_of, read_waveform

ENDINGS = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff"}
"""Of the files that a folder of sounds is searched for."""


class Sound(Picture):
    """(1, 64, frames), uint16: the lowest band first, 100 frames a second, 0 for silence."""

    kind = "sound"
    channels, depth, height, is_sound = 1, 16, MELS, True

    def __init__(self, data: bytes):
        self.facts, self.data = facts_of(data), data
        self.width = 1 + int(self.facts.samples * RATE / self.facts.rate) // HOP

    def check(self) -> None:
        if self.facts.samples >= 2**62:
            raise Unreadable("its header does not tell its length: write it again")
        if self.facts.samples <= 0:
            raise Unreadable("a sound without samples")
        try:
            check_extent(self.facts)
        except ValueError as error:
            raise Unreadable(str(error)) from error

    def pixels(self, colour: bool, shrink: int) -> np.ndarray:
        try:
            waveform = read_waveform(self.data)
        except ValueError as error:
            raise Unreadable(str(error)) from error
        if not len(waveform):
            raise Unreadable("the file ends too early")
        return as_picture(waveform)
