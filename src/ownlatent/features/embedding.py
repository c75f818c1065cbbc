"""Features of any number of images into a file: in little memory, and gone on with where it was stopped."""

import logging
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from ownlatent import __version__
from ownlatent.backbones.encoder import Encoder
from ownlatent.data.labelled import distinct
from ownlatent.data.reading import Batch, batches, check_any_read
from ownlatent.data.source import Source
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.embed import embed, embedded
from ownlatent.features.network import as_stored, fingerprint, name_of, placed
from ownlatent.features.partial import Partial, partial_of, telling
from ownlatent.features.table import FORMAT, one_line
from ownlatent.types import NOUNS, height_and_width

log = logging.getLogger("ownlatent")
_SHOWN = 10  # unreadable images that are named on the console


def write_features(
    encoder: Encoder,
    source: Source,
    out: Path,
    *,
    data: str | None,
    layer: str | None = None,
    normalise: bool = False,
    dtype: str = "float32",
    batch_size: int = 256,
    overwrite: bool = False,
    device: torch.device | str = "cpu",
    progress: Callable[[float], None] | None = None,
) -> None:
    """Write the features of all images of a source that can be read to the file `out`, whose ending is its format.

    What an earlier call with the same arguments gathered before it was stopped is gone on with. data: what opens the
    source again, or None. layer: take the features there. normalise: to unit length. dtype: of the stored features.
    progress is called with the share that is done. Raises OwnlatentError.
    """
    with placed(encoder, layer, torch.device(device)) as network:
        channels, size, noun = encoder.mean.numel(), encoder.image_size, NOUNS[encoder.modality]
        blank = torch.zeros(1, channels, *height_and_width(size), dtype=torch.uint8)
        header: dict[str, Any] = {
            **{"format": FORMAT, "ownlatent": __version__},
            **{"encoder": name_of(encoder), "weights": fingerprint(encoder), "layer": layer},
            **{"normalised": normalise, "dtype": dtype, "dimensions": embed(network, blank, device=device).shape[1]},
            **{"data": data, "name": one_line(source.name), "images": len(source)},
            "classes": None if source.classes is None else list(map(one_line, distinct(source.classes))),
        }
        with partial_of(out, header, overwrite) as partial:
            if partial.stop:
                log.info("goes on    after %d of the %d %s, which are done", partial.stop, len(source), noun)
            before, begun = len(partial), perf_counter()
            try:
                waiting: deque[Batch] = deque()
                images = _images(batches(source, channels, size, batch_size, partial.stop), waiting)
                for features in embedded(network, images, device):
                    _add(partial, waiting, features, out)
                    if progress:
                        progress(partial.stop / len(source))
                _add(partial, waiting, None, out)
            except BaseException as error:
                if len(partial) and not isinstance(error, OwnlatentError):
                    log.info(
                        "stopped    after %d of the %d %s: the same command goes on", partial.stop, len(source), noun
                    )
                raise
            _say_what_is_missing(partial, source, out)
            rate = (len(partial) - before) / (perf_counter() - begun)
            log.info("features   %d x %d, %.0f %s/s", len(partial), header["dimensions"], rate, noun)
            with telling(out):
                partial.finish(out)
    log.info("wrote      %s (%.1f MB)", out, out.stat().st_size / 1e6)


def _images(read: Iterator[Batch], waiting: deque[Batch]) -> Iterator[Tensor]:
    """The images of batches, which wait for their features."""
    for batch in read:
        waiting.append(batch)
        if batch.images is not None:
            yield batch.images
            waiting[-1] = batch._replace(images=None)


def _add(partial: Partial, waiting: deque[Batch], features: Tensor | None, out: Path) -> None:
    """Add the batches whose turn it is: those in which nothing could be read, and the one that the features are of."""
    about = partial.header
    nothing = as_stored(torch.zeros(0, about["dimensions"]), False, about["dtype"])
    with telling(out):
        while waiting and not waiting[0].places:
            partial.add(waiting.popleft(), nothing)
        if features is not None:
            partial.add(waiting.popleft(), as_stored(features, about["normalised"], about["dtype"]))


def _say_what_is_missing(partial: Partial, source: Source, out: Path) -> None:
    """Name images that could not be read. Raises OwnlatentError if that is true of all."""
    check_any_read(len(partial), source, next(iter(partial.unreadable.values()), ""))
    if not partial.skipped:
        return
    log.warning("skipped    %d of the %d files of %s, which cannot be read", partial.skipped, len(source), source.name)
    for number, (name, reason) in enumerate(partial.unreadable.items()):
        log.log(logging.WARNING if number < _SHOWN else logging.DEBUG, "skipped    %s: %s", name, reason)
    if partial.skipped > _SHOWN:
        log.warning("           and %d more, which %s names (metadata, unreadable)", partial.skipped - _SHOWN, out)
