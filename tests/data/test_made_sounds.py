"""The sounds that are made here."""

import numpy as np
import pytest

from ownlatent.data.opening import open_source
from ownlatent.data.sources.sounds import KINDS, Sounds
from ownlatent.errors import OwnlatentError
from ownlatent.sound.spectrum import RATE


@pytest.mark.parametrize("part", ["train", "test"])
def test_every_sound_is_labelled_audible_and_the_same_every_time(part: str) -> None:
    source = Sounds(part)
    assert source.classes == list(KINDS) and len(source) % len(KINDS) == 0
    for index in range(0, len(source), len(source) // len(KINDS)):
        waveform = source.waveform(index)
        assert waveform.shape == (3 * RATE // 4,) and waveform.dtype == np.float32
        assert np.isfinite(waveform).all() and 0.04 < np.abs(waveform).max() <= 1
        assert np.array_equal(waveform, Sounds(part).waveform(index))
        sample = source[index]
        assert KINDS[sample.label or 0] in sample.name
        assert sample.image.shape == (1, 64, 76) and sample.image.float().std() > 1000


def test_no_sound_of_one_part_is_in_the_other() -> None:
    train, test = ({Sounds(part).waveform(n).tobytes() for n in range(0, 560, 7)} for part in ("train", "test"))
    assert len(train) == len(test) == 80 and not train & test


def test_kinds_are_what_they_are_called() -> None:
    """The loudest frequency of a rising sweep rises, that of a falling one falls."""
    ways = {}
    for kind in ("rising sweep", "falling sweep"):
        first = KINDS.index(kind) * 40
        ways[kind] = []
        for index in range(first, first + 20):
            levels = Sounds("test")[index].image[0].float().numpy()
            loud = levels.max(0) > np.quantile(levels.max(0), 0.5)
            ways[kind].append(np.polyfit(np.arange(76)[loud], levels.argmax(0)[loud], 1)[0])
    assert np.median(ways["rising sweep"]) > 0.1 > -0.1 > np.median(ways["falling sweep"])


def test_another_part_is_refused() -> None:
    with pytest.raises(OwnlatentError, match="train and test, not 'dev'"):
        open_source("sounds:dev", modality="audio")
