"""Batches without end, each a function of (seed, number of the batch), the way of loading and nothing else.

The stream starts at any batch, so resuming is starting at a number. An epoch's order depends on
(seed, epoch); its last, incomplete batch is left out, and another order leaves out others.
"""

import logging
import signal
from collections.abc import Iterator
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ownlatent.augment.crop import sample_crop
from ownlatent.augment.recipes import View
from ownlatent.data.decode import resize
from ownlatent.data.resident import Resident
from ownlatent.data.source import Source, Unreadable, name_of
from ownlatent.errors import OwnlatentError

log = logging.getLogger("ownlatent")

# What a generator is for: with the seed and the number of the batch it names one stream of random numbers.
ORDER, VIEWS, CROPS, NETWORK, EXAMPLES = range(5)


def generator(seed: int, *key: int) -> torch.Generator:
    """A CPU generator that depends on the seed and the key alone, such as (seed, VIEWS, batch)."""
    return torch.Generator().manual_seed(seed_of(seed, *key))


def seed_of(seed: int, *key: int) -> int:
    """A random 64-bit number for a seed and a key; keys of different length never share one by design."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])


def order(num_images: int, seed: int, epoch: int) -> Tensor:
    """The permutation of an epoch: (N,) int64."""
    return torch.randperm(num_images, generator=generator(seed, ORDER, epoch))


class Batches(Sampler[list[int]]):
    """Indices of batch `start`, `start + 1`, ... without end."""

    def __init__(self, num_images: int, batch_size: int, seed: int, start: int = 0):
        self.num_images, self.batch_size, self.seed, self.start = num_images, batch_size, seed, start
        self.per_epoch = num_images // batch_size

    def __iter__(self) -> Iterator[list[int]]:
        number = self.start
        while True:
            epoch, position = divmod(number, self.per_epoch)
            shuffled = order(self.num_images, self.seed, epoch)
            for first in range(position * self.batch_size, self.per_epoch * self.batch_size, self.batch_size):
                yield shuffled[first : first + self.batch_size].tolist()
                number += 1


class ResidentLoader:
    """Batches of a resident data set: {"images": uint8 (B, C, H, W), "number": number of the batch}."""

    def __init__(self, data: Resident, batches: Batches, device: torch.device):
        fits = device.type != "cuda" or data.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 4
        self.images, self.batches = data.images.to(device) if fits else data.images, batches
        self.waited = 0.0

    def __iter__(self) -> Iterator[dict]:
        for number, indices in enumerate(self.batches, self.batches.start):
            began = perf_counter()
            batch = self.images[torch.tensor(indices, device=self.images.device)]
            self.waited += perf_counter() - began
            yield {"images": batch, "number": number}


class StreamingLoader:
    """Batches of a source too large or too varied for memory: {"crops": uint8 (B, V, C, S, S), "number": ...}.

    Worker processes decode each image and cut every view's crop at full resolution; a crop depends
    on (seed, batch, place in the batch). waited: seconds in which training had nothing to do. An
    unreadable image is replaced by the next readable one and added to `skipped`.
    """

    def __init__(self, source: Source, views: tuple[View, ...], size: int, batches: Batches, workers: int):
        self.loader = DataLoader(
            _Crops(source, views, size, batches.seed),
            sampler=_Numbered(batches),
            batch_size=None,  # an item of the data set is a whole batch, so that a worker knows its number
            num_workers=workers,
            worker_init_fn=_ignore_interrupts if workers else None,
            prefetch_factor=2 if workers else None,
        )
        self.batches, self.name = batches, source.name
        self.skipped: dict[str, str] = {}
        self.waited = 0.0

    def __iter__(self) -> Iterator[dict]:
        iterator = iter(self.loader)
        while True:
            began = perf_counter()
            crops, number, skipped = next(iterator)
            self.waited += perf_counter() - began
            for name, reason in skipped.items():
                if name not in self.skipped:
                    log.debug("skipped    %s: %s", name, reason)
            self.skipped.update(skipped)
            if crops is None:
                raise OwnlatentError(
                    f"no image of {self.name} can be read any more: check that the folder is still there"
                )
            yield {"crops": crops, "number": number}


class _Numbered(Sampler[tuple[int, list[int]]]):
    def __init__(self, batches: Batches):
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return enumerate(self.batches, self.batches.start)


class _Crops(Dataset):
    """Item (number, indices) is the batch of that number: crops, number, {skipped name: reason}.

    Where nothing can be read the crops are None: an exception would reach the parent as a traceback in text.
    """

    def __init__(self, source: Source, views: tuple[View, ...], size: int, seed: int):
        self.source, self.views, self.size, self.seed = source, views, size, seed

    def __getitem__(self, item: tuple[int, list[int]]) -> tuple[Tensor | None, int, dict[str, str]]:
        number, indices = item
        skipped: dict[str, str] = {}
        rows = []
        for place, index in enumerate(indices):
            image = self._readable(index, skipped)
            if image is None:
                return None, number, skipped
            draws = generator(self.seed, CROPS, number, place)
            rows.append(torch.stack([self._cut(image, view, draws) for view in self.views]))
        return torch.stack(rows), number, skipped

    def _readable(self, index: int, skipped: dict[str, str]) -> Tensor | None:
        for offset in range(len(self.source)):
            candidate = (index + offset) % len(self.source)
            try:
                return self.source[candidate].image
            except Unreadable as error:
                skipped[name_of(self.source, candidate)] = str(error)
        return None

    def _cut(self, image: Tensor, view: View, draws: torch.Generator) -> Tensor:
        height, width = image.shape[-2:]
        top, left, h, w = sample_crop(1, height, width, draws, view.crop_scale, view.crop_ratio)[0].tolist()
        return resize(image[:, top : top + h, left : left + w], (self.size, self.size))


def _ignore_interrupts(worker: int) -> None:
    # Ctrl-C reaches the whole process group; only the parent answers it, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
