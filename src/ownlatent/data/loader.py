"""Batches without end, each a function of (seed, number of the batch), the way of loading and nothing else.

The stream starts at any batch, so resuming is starting at a number. An epoch's order depends on
(seed, epoch); its last, incomplete batch is left out, and another order leaves out others.
"""

import logging
import signal
from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from ownlatent.augment.recipes import AnyView, SoundView, View
from ownlatent.augment.views import Within, pick
from ownlatent.data.clips import Clips
from ownlatent.data.crops import Batch, Crops
from ownlatent.data.resident import Resident, check_unreadable
from ownlatent.data.source import Source
from ownlatent.errors import OwnlatentError
from ownlatent.types import Size

log = logging.getLogger("ownlatent")

# What a generator is for: with the seed and the number of the batch it names one stream of random numbers.
ORDER, VIEWS, NETWORK, EXAMPLES = range(4)


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
    """Indices of batch `start`, `start + 1`, ... without end; of several processes each gets its share of every batch.

    batch_size: over all processes, of which this is number `rank` of `processes`. within: where its share stands.
    """

    def __init__(self, num_images: int, batch_size: int, seed: int, start: int = 0, rank: int = 0, processes: int = 1):
        self.num_images, self.batch_size, self.seed, self.start = num_images, batch_size, seed, start
        self.per_epoch, self.share = num_images // batch_size, batch_size // processes
        self.within = Within(rank * self.share, batch_size)

    def of(self, number: int) -> list[int]:
        """The indices of one batch, of all processes."""
        epoch, position = divmod(number, self.per_epoch)
        return order(self.num_images, self.seed, epoch)[position * self.batch_size :][: self.batch_size].tolist()

    def __iter__(self) -> Iterator[list[int]]:
        number = self.start
        while True:
            epoch, position = divmod(number, self.per_epoch)
            shuffled = order(self.num_images, self.seed, epoch)
            for start in range(position * self.batch_size, self.per_epoch * self.batch_size, self.batch_size):
                first = start + self.within.first
                yield shuffled[first : first + self.share].tolist()
                number += 1


class ResidentLoader:
    """Batches of a resident data set: {"images": (N, C, H, W), "rows": those of the batch, "number", "within"}.

    The images are kept on the device where they take at most a quarter of its free memory, and nothing
    is copied; else "images" are those of the batch alone, and there are no "rows". labelled: with the "labels" (B,)
    of the batch, for a method that uses them.
    """

    def __init__(self, data: Resident, batches: Batches, device: torch.device, labelled: bool = False):
        self.labels = data.labels if labelled else None
        self.there = device.type != "cuda" or data.images.nbytes <= torch.cuda.mem_get_info(device)[0] // 4
        self.images, self.batches = data.images.to(device) if self.there else data.images, batches
        self.waited = 0.0

    def __iter__(self) -> Iterator[dict]:
        within = self.batches.within
        for number, indices in enumerate(self.batches, self.batches.start):
            began = perf_counter()
            rows = torch.tensor(indices)
            if self.there:
                batch = {"images": self.images, "rows": rows, "number": number, "within": within}
            else:
                batch = {"images": pick(self.images, rows), "number": number, "within": within}
            if self.labels is not None:
                batch["labels"] = self.labels[rows]
            self.waited += perf_counter() - began
            yield batch


def cutting(source: Source, views: Sequence[AnyView], size: Size, within: Within | None = None) -> Crops | Clips:
    """The data set whose items are batches of what each view shows of its images or sounds."""
    if isinstance(size, int):
        return Crops(source, cast(Sequence[View], views), size, within)
    return Clips(source, cast(Sequence[SoundView], views), size[1], within)


class StreamingLoader:
    """Batches of a source too large or too varied for memory: {"crops": V tensors (B, C, S, S), "number": ...}.

    Of sounds (B, 1, 64, T), and behind them those that are mixed in; their source may be in memory, without workers.
    Worker processes decode each image and cut every view's crop at full resolution; a crop depends
    on (seed, batch, place in the batch). labelled: with the "labels" (B,) of the batch, for a method that uses
    them. waited: seconds in which training had nothing to do.
    skipped: {title: reason} of the images that could not be read. Raises OwnlatentError when more than
    the share `max_unreadable` of all images is among them.
    """

    def __init__(
        self,
        source: Source,
        views: Sequence[AnyView],
        size: Size,
        batches: Batches,
        workers: int,
        max_unreadable: float = 1.0,
        labelled: bool = False,
    ):
        self.loader = DataLoader(
            cutting(source, views, size, batches.within),
            sampler=_Numbered(batches),
            batch_size=None,  # an item of the data set is a whole batch, so that a worker knows its number
            num_workers=workers,
            worker_init_fn=_ignore_interrupts if workers else None,
            prefetch_factor=2 if workers else None,
            pin_memory=torch.cuda.is_available(),
        )
        self.batches, self.source, self.max_unreadable, self.labelled = batches, source, max_unreadable, labelled
        self.skipped: dict[str, str] = {}
        self.waited = 0.0

    def __iter__(self) -> Iterator[dict]:
        iterator = iter(self.loader)
        try:
            while True:
                began = perf_counter()
                crops, number, skipped, labels = _next(iterator)
                self.waited += perf_counter() - began
                for title, reason in skipped.items():
                    if title not in self.skipped:
                        log.debug("skipped    %s: %s", title, reason)
                self.skipped.update(skipped)
                if crops is None:
                    raise OwnlatentError(
                        f"no image of {self.source.name} can be read any more: check that the data are still there"
                    )
                check_unreadable(self.skipped, len(self.source), self.source.name, self.max_unreadable)
                batch = {"crops": crops, "number": number, "within": self.batches.within}
                yield batch | ({"labels": labels} if self.labelled else {})
        finally:
            del iterator  # ends the workers now, and not when a traceback is let go


def _next(iterator: Iterator) -> Batch:
    try:
        return next(iterator)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise OwnlatentError(
            "the system ended a worker process, mostly for want of memory or of room in /dev/shm: lower --workers or "
            "--batch-size (in Docker raise --shm-size); --resume goes on from the last checkpoint"
        ) from error


class _Numbered(Sampler[tuple[int, list[int], int]]):
    """(number, indices, seed of its views) of each batch."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __iter__(self) -> Iterator[tuple[int, list[int], int]]:
        for number, indices in enumerate(self.batches, self.batches.start):
            yield number, indices, seed_of(self.batches.seed, VIEWS, number)


def _ignore_interrupts(worker: int) -> None:
    # Ctrl-C reaches the whole process group; only the parent answers it, and then ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
