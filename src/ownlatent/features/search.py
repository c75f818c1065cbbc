"""The images of a file of features that are nearest to others, by the cosine of their features."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.data.decode import Unreadable, decode, fit, inspect
from ownlatent.data.pixels import to_image
from ownlatent.data.reading import with_channels
from ownlatent.data.reasons import brief
from ownlatent.data.source import Source
from ownlatent.data.sources.waveforms import Waveforms
from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.embed import embed
from ownlatent.features.network import fingerprint, name_of, placed
from ownlatent.features.table import Table, one_line
from ownlatent.types import NOUNS, Modality


class Neighbour(NamedTuple):
    """An image that was found.

    similarity: the cosine, -1 to 1. row: its number in the data. label: the name of its class, or None.
    """

    similarity: float
    row: int
    label: str | None
    path: str


def check_made_by(encoder: Encoder, table: Table, path: Path) -> None:
    """Raise OwnlatentError if the features are those of another encoder, with which others cannot be compared."""
    if fingerprint(encoder) != table.about["weights"]:
        raise OwnlatentError(
            f"{path} was made by another encoder ({table.about.get('encoder')}; this is {name_of(encoder)}, and its "
            "weights differ): name the one that made it, or make it again by `ownlatent embed`"
        )


def read_query(value: Any, modality: Modality = "image") -> tuple[str, Tensor]:
    """A name and the image (C, H, W) of a file, or of a Pillow image, array or tensor; or the spectrogram of a sound.

    Raises OwnlatentError.
    """
    named = isinstance(value, (str, Path))
    name = one_line(os.fspath(value)) if named else f"a {type(value).__name__}"
    try:
        if not named:
            return name, Waveforms([value])[0].image if modality == "audio" else to_image(value)
        content = Path(value).expanduser().read_bytes()
        format = inspect(content)
        if format.sound != (modality == "audio"):
            raise Unreadable("a sound, and the encoder is of images" if format.sound else "not a sound")
        return name, decode(content, format)
    except (OSError, Unreadable) as error:
        reason = brief(error) if isinstance(error, OSError) else str(error)
        raise OwnlatentError(f"{name} cannot be searched for ({reason}): give {NOUNS[modality]}, as files") from error


def directions(
    encoder: Encoder, images: Sequence[Tensor], names: Sequence[str], layer: str | None, device: torch.device
) -> np.ndarray:
    """Features (Q, D) float32 of unit length of images (C, H, W) of any size. Raises OwnlatentError."""
    channels, size = encoder.mean.numel(), encoder.image_size
    fitted = [with_channels(fit(image, size), channels, name)[None] for image, name in zip(images, names, strict=True)]
    with placed(encoder, layer, device) as network:  # one at a time: they may differ in depth
        return unit(embed(network, fitted, device=device).numpy())


def nearest(table: Table, queries: np.ndarray, count: int) -> list[list[Neighbour]]:
    """Of each query (Q, D) of unit length the `count` nearest, the nearest first; equally near ones in their order."""
    found: list[list[Neighbour]] = [[] for _ in queries]
    for chunk in table.chunks():
        similarities = queries @ unit(chunk.features).T
        kept = min(count, similarities.shape[1])
        limits = np.partition(similarities, -kept, axis=1)[:, -kept]
        for best, row, limit in zip(found, similarities, limits, strict=True):
            here = (
                Neighbour(float(row[i]), chunk.rows[i], chunk.labels[i], chunk.paths[i])
                for i in np.flatnonzero(row >= limit).tolist()
            )
            best[:] = sorted([*best, *here], key=lambda each: -each.similarity)[:count]
    return found


def as_lines(query: str, found: Sequence[Neighbour]) -> list[str]:
    """A table of similarity, label and path, one line for each image; no label where none is known."""
    labels = [one_line(each.label or "") for each in found]
    width = max(map(len, ["label", *labels]))
    columns = [f"{label:<{width}}  " if any(labels) else "" for label in ("label", *labels)]
    lines = [f"query      {one_line(query)}", f"rank  similarity  {columns[0]}path"]
    for number, (each, label) in enumerate(zip(found, columns[1:], strict=True), 1):
        lines.append(f"{number:>4}  {each.similarity:>10.4f}  {label}{one_line(each.path)}")
    return lines


def unit(features: np.ndarray) -> np.ndarray:
    """Features (n, D) float32 of length 1; those of length 0 stay."""
    wide = features.astype(np.float32, copy=False)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def check_same(source: Source, table: Table, found: Sequence[Sequence[Neighbour]]) -> None:
    """Raise OwnlatentError if what was found shows that a source is not the one that the features were taken of."""
    if len(source) != table.about["images"]:
        raise OwnlatentError(f"{source.name} now holds {len(source)} images, and it held {table.about['images']}")
    for each in (each for some in found for each in some):
        if one_line(source.title(each.row)) != each.path:
            raise OwnlatentError(
                f"{source.name} now has {one_line(source.title(each.row))} in the place of {each.path}"
            )
