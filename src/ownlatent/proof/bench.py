"""What every protocol needs: the features of any subject on any images, embedded once."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ownlatent.augment.recipes import AnyView
from ownlatent.augment.sound_views import make_views
from ownlatent.data.labelled import Labelled, in_classes_of, part_of
from ownlatent.data.loader import VIEWS, generator
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation import cache
from ownlatent.evaluation.cache import Features
from ownlatent.evaluation.embed import embed
from ownlatent.proof.subjects import Subject
from ownlatent.types import Size

log = logging.getLogger("ownlatent")
_SAMPLE = 2000  # training images on which a baseline's form is chosen


class Bench:
    """Labelled images for training and testing, whose features are computed once and kept.

    test: None where each training image is classified by the others. Raises OwnlatentError if the two parts have no
    class in common or there are too few images to compare.
    """

    def __init__(self, train: Labelled, test: Labelled | None, device: torch.device, layer: str | None = None):
        self.train, self.test, self.device, self.layer = train, test, device, layer
        self.classes = train.classes
        self.name = train.name if test is None else f"{test.name} by {train.name}"
        self._kept: dict[tuple[str, str], Features] = {}
        self._said: set[str] = set()
        if test is None and len(train.source) < 2:
            raise OwnlatentError(f"{train.name} holds one image: k-NN needs at least two")
        if test is not None:
            if test.fingerprint == train.fingerprint:
                raise OwnlatentError(
                    f"{train.name} and {test.name} hold the same images: give others to test on, or --test alone"
                )
            absent = [name for name in test.classes if name not in train.classes]
            if len(absent) == len(test.classes):
                raise OwnlatentError(
                    f"{test.name} and {train.name} have no class in common ({_some(test.classes)}; "
                    f"{_some(train.classes)}): name the class subfolders alike in both"
                )
            if absent:
                log.warning("classes    %s not in %s: test images of them count as wrong", _some(absent), train.name)

    def features(self, subject: Subject, test: bool = False) -> Features:
        """Of the training images or of those for testing; test labels number the training images' classes."""
        data = self.test if test and self.test is not None else self.train
        key = subject.weights, data.fingerprint
        if key not in self._kept:
            found = cache.load(*key, self.layer)
            if found is None:
                log.info("%-10s %s by %s", "embedding", data.name, subject.name)
                found = self._embed(subject, data)
                cache.keep(*key, self.layer, found)
            self._kept[key] = found
        found = self._kept[key]
        unread = len(data.source) - len(found.labels)
        if unread and data.name not in self._said:
            self._said.add(data.name)
            log.warning("skipped %d of the %d files of %s, which cannot be read", unread, len(data.source), data.name)
            for title, reason in data.skipped.items():
                log.debug("skipped    %s: %s", title, reason)
        shifted = found.values if subject.shift is None else found.values - subject.shift
        labels = in_classes_of(data.classes, found.labels, self.classes) if data is self.test else found.labels
        return Features(shifted, labels, found.places)

    def _embed(self, subject: Subject, data: Labelled) -> Features:
        labels, places = [], []

        def images() -> Iterator[Tensor]:
            for batch, of, at in data.batches(subject.channels, subject.image_size):
                labels.append(of)
                places.append(at)
                yield batch

        values = embed(self._ready(subject), images(), device=self.device)
        return Features(values, torch.cat(labels), torch.cat(places))

    def _ready(self, subject: Subject) -> nn.Module:
        # Encoders bring their images into this order; weights in another would be turned around for every batch.
        return subject.network.to(self.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def sample(self, channels: int, size: Size) -> tuple[Tensor, Tensor]:
        """Some training images (n, channels, size, size), spread over all of them, and their labels (n,)."""
        count = min(_SAMPLE, len(self.train.source))
        rows = torch.linspace(0, len(self.train.source) - 1, count).long().tolist()
        images, labels, _ = zip(*Labelled(part_of(self.train.source, rows)).batches(channels, size), strict=True)
        return torch.cat(images), torch.cat(labels)

    def augmented(self, subject: Subject, copies: int, seed: int, view: AnyView) -> list[Tensor]:
        """Features (N, D) of the training images, a view of each anew for each of the copies."""
        plain = (0.0,) * subject.channels, (1.0,) * subject.channels  # the encoder normalises by itself
        network = self._ready(subject)
        found: list[list[Tensor]] = [[] for _ in range(copies)]
        for number, (images, _, _) in enumerate(self.train.batches(subject.channels, subject.image_size)):
            make = make_views([view], subject.image_size, *plain, subject.scale_of(images.dtype))
            for copy in range(copies):
                (views,) = make.of_images(images, generator(seed, VIEWS, number, copy))
                found[copy].append(embed(network, views, device=self.device))
        shift = 0.0 if subject.shift is None else subject.shift
        return [torch.cat(found.pop(0)).sub_(shift) for _ in range(copies)]  # never all of it twice in memory


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
