"""gallery.npz of a run folder: the images that a report shows, and what each encoder makes of them."""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

FILE, FORMAT = "gallery.npz", 1
NAMES = {
    "trained": "trained",
    "random": "random (before training)",
    "pixels": "raw pixels",
    "bands": "mean and std of bands",
}
"""What a reader calls those whose features are shown."""


@dataclass(frozen=True)
class Seen:
    """What one encoder makes of the images of a gallery.

    components: (N, K) principal components of the unit-length features, the strongest first; variance: (K,) their
    shares of it. neighbours: (N, k) places in the gallery, from the nearest. spectrum: singular values of the features,
    as shares of the largest. correlations: how many pairs of features are correlated how much, in equal bins from -1 to
    1.
    """

    components: np.ndarray
    variance: np.ndarray
    neighbours: np.ndarray
    spectrum: np.ndarray
    correlations: np.ndarray


@dataclass(frozen=True)
class Gallery:
    """Images by number.

    about: {"names", "classes", "side", "columns", "subjects", "data", ...}. rows: which of the test images that can be
    read each is. labels: -1 where there is none. sheets: pictures of thumbnails, `columns` squared of `side` pixels on
    each, row by row. sounds: of some of them a file that plays it, by its number.
    """

    about: dict[str, Any]
    rows: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray
    seen: dict[str, Seen]
    sheets: list[bytes]
    sounds: dict[int, bytes]

    def __len__(self) -> int:
        return len(self.labels)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Those of an .npz file; none if it is not there or damaged."""
    try:
        with np.load(path) as stored:
            return dict(stored)
    except (OSError, ValueError, EOFError, BadZipFile, zlib.error):
        return {}


def read_gallery(folder: Path) -> Gallery | None:
    """That of a run folder; None if there is none, or it is damaged or of another version, which is made again."""
    arrays = read_arrays(folder / FILE)
    try:
        about = json.loads(arrays["about"].tobytes())
        if about["format"] != FORMAT:
            return None
        sheets = [arrays[f"sheet/{number}"].tobytes() for number in range(sum(k.startswith("sheet/") for k in arrays))]
        seen = {
            name: Seen(*(arrays[f"{number}/{part}"] for part in Seen.__dataclass_fields__))
            for number, name in enumerate(about["subjects"])
        }
        return Gallery(about, arrays["rows"], arrays["labels"], arrays["clusters"], seen, sheets, _sounds(arrays))
    except (KeyError, TypeError, ValueError):
        return None


def _sounds(arrays: dict[str, np.ndarray]) -> dict[int, bytes]:
    if "heard" not in arrays:
        return {}
    parts = np.split(arrays["sounds"], arrays["sound_ends"][:-1])
    return {int(number): part.tobytes() for number, part in zip(arrays["heard"], parts, strict=True)}


def queries(gallery: Gallery, count: int) -> list[int]:
    """Images whose neighbours are shown: one of each class, or of each cluster without labels, then others."""
    shuffled = np.random.default_rng(0).permutation(len(gallery)).tolist()
    groups = gallery.labels if (gallery.labels >= 0).any() else gallery.clusters
    firsts = {int(groups[place]): place for place in reversed(shuffled)}
    chosen = [firsts[group] for group in sorted(firsts)]
    if len(chosen) > count:
        return [chosen[place] for place in np.linspace(0, len(chosen) - 1, count).round().astype(int)]
    taken = set(chosen)
    return [*chosen, *[place for place in shuffled if place not in taken][: count - len(chosen)]]
