"""Maps of features beside their principal components: t-SNE and UMAP, made once and kept in the run folder."""

import hashlib
import io
import logging
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ownlatent.errors import OwnlatentError
from ownlatent.files import replace_file
from ownlatent.reporting.gallery import Gallery, read_arrays

log = logging.getLogger("ownlatent")
MAPS = ("auto", "pca", "tsne", "umap")
FILE = "maps.npz"
_LIBRARY = {"tsne": ("sklearn", "scikit-learn"), "umap": ("umap", "umap-learn")}
_TITLES = {"tsne": "t-SNE", "umap": "UMAP"}
_QUICK = 2000  # images up to which t-SNE takes seconds and is made without being asked for
_FEWEST = 10


def check_map(map: str) -> None:
    """Raise OwnlatentError for a map that there is not, or whose library is missing."""
    if map not in MAPS:
        raise OwnlatentError(f"there is no map {map!r}: give one of {', '.join(MAPS)}")
    module, package = _LIBRARY.get(map, ("json", ""))
    if find_spec(module) is None:
        raise OwnlatentError(f"{_TITLES[map]} needs {package}: pip install {package}, or --map pca")


def maps_of(folder: Path, gallery: Gallery, subject: str, map: str) -> dict[str, np.ndarray]:
    """By title: (N, 2) places of the images of a gallery as one encoder sees them.

    Those that were made once are kept and always returned. map: "auto" makes t-SNE of up to 2,000 images where
    scikit-learn is installed. As is usual, both start from fifty principal components.
    """
    components = gallery.seen[subject].components
    names, kept = _names(components), read_arrays(folder / FILE)
    found = {_TITLES[kind]: kept[name] for kind, name in names.items() if name in kept}
    wanted = map
    if map == "auto":
        quick = len(gallery) <= _QUICK and not found and find_spec("sklearn") is not None
        wanted = "tsne" if quick else "pca"
    if wanted == "pca" or _TITLES[wanted] in found or len(components) < _FEWEST or np.ptp(components) == 0:
        return found
    log.info("%-10s %s of %d images by %s", "map", _TITLES[wanted], len(components), subject)
    made = (_tsne if wanted == "tsne" else _umap)(components).astype(np.float32)
    current = {name for seen in gallery.seen.values() for name in _names(seen.components).values()}
    content = io.BytesIO()
    others = {name: points for name, points in kept.items() if name in current}
    np.savez_compressed(content, **others, **{names[wanted]: made})  # type: ignore[arg-type]
    try:
        replace_file(folder / FILE, content.getvalue())
    except OSError as error:
        log.warning("%-10s is not kept, %s cannot be written (%s)", "map", folder / FILE, error.strerror)
    return {**found, _TITLES[wanted]: made}


def _names(components: np.ndarray) -> dict[str, str]:
    """By kind, under which a map of these components is kept."""
    key = hashlib.blake2b(np.ascontiguousarray(components).tobytes(), digest_size=8).hexdigest()
    return {kind: f"{kind} {key}" for kind in _TITLES}


def _tsne(components: np.ndarray) -> np.ndarray:
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(components) - 1) / 3)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(components)


def _umap(components: np.ndarray) -> np.ndarray:
    from umap import UMAP

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a fixed seed takes one thread
        return UMAP(n_neighbors=min(15, len(components) - 1), random_state=0).fit_transform(components)
