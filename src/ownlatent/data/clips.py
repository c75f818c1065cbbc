"""Every view's stretch of a batch of sounds, and of the sounds that are mixed in: the work of a loader's processes."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ownlatent.augment.recipes import SoundView
from ownlatent.augment.sound_views import Cut, sample_cuts
from ownlatent.augment.views import Within
from ownlatent.data.crops import Batch
from ownlatent.data.decode import fit_time
from ownlatent.data.source import Source, first_readable
from ownlatent.sound.spectrum import MELS
from ownlatent.types import height_and_width


class Clips(Dataset):
    """Item (number, indices, seed) is a batch: tensors (B, 1, 64, T) uint16 of each view, then of what is mixed in.

    within: where the indices stand in the batch that the seed is for, if they are not all of it. frames: T. Which
    sound is mixed in is drawn from the whole source. As in `Crops`, an unreadable one is replaced by the next that can
    be read, and where nothing can be read the crops are None.
    """

    def __init__(self, source: Source, views: Sequence[SoundView], frames: int, within: Within | None = None):
        self.source, self.views, self.within = source, tuple(views), within
        self.frames = [height_and_width(view.pixels((MELS, frames)))[1] for view in views]

    def __getitem__(self, item: tuple[int, list[int], int]) -> Batch:
        number, indices, seed = item
        first, total = self.within or (0, len(indices))
        part = slice(first, first + len(indices))
        cuts = [cut.rows(part) for cut in sample_cuts(self.views, total, torch.Generator().manual_seed(seed))]
        mixed = [v for v, view in enumerate(self.views) if view.mixup]
        shapes = [(len(indices), 1, MELS, frames) for frames in self.frames]
        out = [torch.empty(shapes[v], dtype=torch.uint16) for v in [*range(len(shapes)), *mixed]]
        skipped: dict[str, str] = {}
        labels: list[int | None] = []
        for row, index in enumerate(indices):
            found = self._open(index, skipped)
            if found is None:
                return Batch(None, number, skipped)
            sound, label = found
            labels.append(label)
            for v, cut in enumerate(cuts):
                out[v][row] = fit_time(sound, self.frames[v], float(cut.place[row]))
            for place, v in enumerate(mixed, len(cuts)):
                out[place][row] = self._other(cuts[v], row, self.frames[v], skipped)
        known = None if self.source.classes is None else torch.tensor(labels)
        return Batch(out, number, skipped, known)

    def _other(self, cut: Cut, row: int, frames: int, skipped: dict[str, str]) -> Tensor:
        """The stretch of another sound that is mixed into one."""
        found = self._open(int(float(cut.other[row]) * len(self.source)), skipped)
        assert found is not None  # one could be read before
        return fit_time(found[0], frames, float(cut.other_place[row]))

    def _open(self, index: int, skipped: dict[str, str]) -> tuple[Tensor, int | None] | None:
        """The first readable sound from `index` on, with its label; None if there is none in the whole source."""
        return first_readable(self.source, index, skipped, lambda candidate: self.source[candidate][:2])
