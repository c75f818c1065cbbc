"""The images or sounds that a report shows, and what each encoder makes of them: written once, read without torch."""

import io
import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.cluster.vq import kmeans2
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.data.labelled import part_of
from ownlatent.data.reading import batches
from ownlatent.data.source import Source
from ownlatent.diagnostics.spectrum import singular_values
from ownlatent.evaluation.baselines import Bands, Pixels, calibrate_batchnorm
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.knn import neighbours
from ownlatent.files import replace_file
from ownlatent.proof.bench import Bench
from ownlatent.proof.hearing import sounds_of, spectrogram_tiles
from ownlatent.proof.subjects import Subject
from ownlatent.reporting.gallery import FILE, FORMAT, read_gallery
from ownlatent.reporting.stills import draw_embedding, draw_nearest
from ownlatent.train.images import open_data
from ownlatent.train.prepare import Job
from ownlatent.types import NOUNS

log = logging.getLogger("ownlatent")
MOST = 10_000  # images; more are not told apart on a screen
_PIXELS = 16 * 2**20  # of all thumbnails together, so that a report of many images can still be sent to somebody
_SIDES = (32, 96)  # of a thumbnail, smallest and largest
_SHEET = 2048  # pixels: side of a sheet of thumbnails
_COMPONENTS = 50  # kept of the features, for maps that are made from them later
_NEIGHBOURS = 10
_CLUSTERS, _MOST_CLUSTERS = 10, 40  # without classes; as many as signs can tell apart
_MOST_FEATURES = 2048  # whose correlations are looked at
_UNLABELLED = 1000  # training images that are shown where none has a label
_BINS = 41  # of the histogram of correlations


@dataclass(frozen=True)
class Shown:
    """The images of a gallery. source, places (N,): where they are; rows (N,): which of the images that can be read
    they are. labels (N,): numbers of `classes`, -1 for none. encoder: which knows what value counts as white."""

    source: Source
    rows: Sequence[int]
    places: Sequence[int]
    labels: Sequence[int]
    classes: Sequence[str]
    encoder: Encoder


def keep_gallery(folder: Path, bench: Bench, subjects: Sequence[Subject], encoder: Encoder) -> None:
    """Write the gallery of the images that subjects were judged on, unless a run folder holds it already.

    What goes wrong there loses nothing that was measured: it is said, and no more.
    """
    data = bench.test or bench.train
    weights = {subject.name: subject.weights for subject in subjects}
    facts = {
        "data": data.name,
        "test": data.fingerprint,
        "weights": weights,
        "layer": bench.layer,
    }
    known = read_gallery(folder)
    about = {"test": None, "layer": None, "weights": {}} if known is None else known.about
    same = (about["test"], about["layer"]) == (data.fingerprint, bench.layer)
    if same and weights.items() <= about["weights"].items():
        return
    features = {subject.name: bench.features(subject, test=True) for subject in subjects}
    first = next(iter(features.values()))
    rows = _chosen(len(first.labels))
    places, labels = first.places[rows].tolist(), first.labels[rows].tolist()
    shown = Shown(data.source, rows.tolist(), places, labels, bench.classes, encoder)
    try:
        write_gallery(folder, shown, {name: of.values[rows] for name, of in features.items()}, facts)
    except Exception as error:
        log.warning("gallery    cannot be made (%s): the report shows none", error)


def keep_training_gallery(job: Job, folder: Path) -> None:
    """Write a gallery of some training images, for a run that has no labelled ones; it says so where it cannot."""
    recipe, trained = job.recipe, job.encoder
    try:
        source = job.data if recipe.data.startswith("object:") else open_data(recipe, recipe.data)
        rows = torch.linspace(0, len(source) - 1, min(len(source), _UNLABELLED), dtype=torch.float64).long().tolist()
        found = list(batches(part_of(source, rows), trained.mean.numel(), trained.image_size))
        images = [batch.images for batch in found if batch.images is not None]
        if not images:
            return
        places = [rows[place] for batch in found for place in batch.places]
        untrained = deepcopy(job.untrained).to(job.device)
        calibrate_batchnorm(untrained, torch.cat(images))  # its stronger form, nearly always
        networks: dict[str, torch.nn.Module] = {"trained": trained.to(job.device), "random": untrained}
        if trained.modality == "audio":
            networks["bands"] = Bands(trained.full_scale)
        else:
            networks["pixels"] = Pixels(trained.full_scale)
        features = {name: embed(network, images, device=job.device) for name, network in networks.items()}
        facts: dict[str, Any] = {"data": source.name, "test": None, "weights": {}, "layer": None}
        write_gallery(folder, Shown(source, [], places, [-1] * len(places), (), trained), features, facts)
    except Exception as error:  # be it a full disk or too little memory, a finished run is not lost for its pictures
        log.warning("gallery    cannot be made (%s): the report shows none", error)


def _chosen(count: int) -> Tensor:
    """Which of `count` images are shown: all, or `MOST` spread over them."""
    return torch.arange(count) if count <= MOST else torch.linspace(0, count - 1, MOST, dtype=torch.float64).long()


def write_gallery(folder: Path, shown: Shown, features: dict[str, Tensor], facts: dict[str, Any]) -> None:
    """Write gallery.npz, embedding.png and neighbours.png.

    features: by subject, the trained encoder first: (N, D) of the images in `shown`. facts: {"data", "test", "weights",
    "layer"}, by which a reader knows what it shows. Raises OSError.
    """
    arrays: dict[str, np.ndarray] = {}
    for number, values in enumerate(features.values()):
        arrays |= {f"{number}/{key}": value for key, value in _of_features(values).items()}
    classes = list(shown.classes)
    arrays["rows"] = np.asarray(shown.rows, np.int32)
    arrays["labels"] = np.asarray(shown.labels, np.int32)
    arrays["clusters"] = _clusters(arrays["0/components"], min(len(classes) or _CLUSTERS, _MOST_CLUSTERS))
    sheets, side = _sheets(shown)
    arrays |= {f"sheet/{number}": np.frombuffer(sheet, np.uint8) for number, sheet in enumerate(sheets)}
    if shown.encoder.modality == "audio":
        arrays |= sounds_of(shown.source, shown.places)
    about = {
        "format": FORMAT,
        "subjects": list(features),
        "names": [shown.source.title(place) for place in shown.places],
        "count": len(shown.source),
        "classes": classes,
        "side": side,
        "columns": _SHEET // side,
        "noun": NOUNS[shown.encoder.modality],
        **facts,
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)  # ASCII: names may hold anything
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    replace_file(folder / FILE, content.getvalue())
    gallery = read_gallery(folder)
    assert gallery is not None
    draw_embedding(gallery, folder / "embedding.png")
    draw_nearest(gallery, folder / "neighbours.png")


def _of_features(features: Tensor) -> dict[str, np.ndarray]:
    """What is kept of an encoder's features (N, D): principal components, neighbours, spectrum, correlations."""
    features = torch.nan_to_num(features.float().cpu())  # of a run that diverged there is something to see too
    unit = F.normalize(features, dim=1)  # as k-NN compares them
    centred = unit - unit.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same features give the same map
        _, values, axes = torch.svd_lowrank(centred.double(), q=min(_COMPONENTS, *centred.shape), niter=4)
    # An axis has no sign of its own: its largest entry is made positive, so that it does not turn around.
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    components = centred.double() @ (axes * signs)
    total = centred.double().square().sum().clamp(min=1e-12)
    strengths = singular_values(features)
    return {
        "components": components.numpy().astype(np.float32),
        "variance": (values.square() / total).numpy().astype(np.float32),
        "neighbours": _nearest(unit).numpy().astype(np.int32),
        "spectrum": (strengths / strengths[0].clamp(min=1e-12)).numpy().astype(np.float32),
        "correlations": _correlations(features),
    }


def _nearest(features: Tensor) -> Tensor:
    """(N, k) places of the nearest others, from the nearest."""
    if len(features) < 2:
        return torch.zeros(len(features), 0, dtype=torch.long)
    return torch.cat([index for _, index in neighbours(features, features, _NEIGHBOURS, leave_one_out=True)])


def _correlations(features: Tensor) -> np.ndarray:
    """How many pairs of different features are correlated how much: counts in equal bins from -1 to 1."""
    features = features[:, :_MOST_FEATURES].double()
    centred = features - features.mean(0)
    scaled = centred / centred.norm(dim=0).clamp(min=1e-12)
    kept = scaled[:, scaled.norm(dim=0) > 0.5]  # a feature that never changes is correlated with nothing
    if kept.shape[1] < 2:
        return np.zeros(_BINS, np.int64)
    counts = torch.histc((kept.T @ kept).clamp_(-1, 1), _BINS, -1, 1)
    counts[-1] -= kept.shape[1]  # the diagonal
    return (counts / 2).long().numpy()


def _clusters(components: np.ndarray, count: int) -> np.ndarray:
    """The cluster (N,) of each image among at most `count`, by k-means on the trained encoder's features."""
    count = min(count, len(components))
    if count < 2 or np.ptp(components) == 0:
        return np.zeros(len(components), np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of clusters that nothing is in: there are fewer different images
        _, found = kmeans2(components.astype(np.float64), count, minit="++", rng=np.random.default_rng(0))
    return found.astype(np.int32)


def _sheets(shown: Shown) -> tuple[list[bytes], int]:
    """Thumbnails as squares on a few large pictures, row by row, and the side of one in pixels."""
    smallest, largest = _SIDES
    side = int(np.clip((_PIXELS / max(1, len(shown.places))) ** 0.5, smallest, largest))
    columns = _SHEET // side
    sheets: list[bytes] = []
    tiles = _thumbnails(shown, side)
    for first in range(0, len(shown.places), columns**2):
        count = min(columns**2, len(shown.places) - first)
        sheet = Image.new("RGB", (min(count, columns) * side, -(-count // columns) * side))
        for number in range(count):
            tile = next(tiles, None)
            if tile is None:
                raise OSError("what could be read before cannot be read any more")
            sheet.paste(tile, (number % columns * side, number // columns * side))
        content = io.BytesIO()
        sheet.save(content, "WEBP", quality=80, method=4)
        sheets.append(content.getvalue())
    return sheets, side


def _thumbnails(shown: Shown, side: int) -> Iterator[Image.Image]:
    if shown.encoder.modality == "audio":
        yield from spectrogram_tiles(shown.source, shown.places, side)
        return
    first = shown.source[shown.places[0]].image
    channels = first.shape[0]
    for batch in batches(part_of(shown.source, shown.places), channels, side):
        if batch.images is None:
            continue
        white = shown.encoder.scale_of(batch.images.dtype)
        pixels = (batch.images.numpy() / white * 255).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        for image in pixels:
            yield Image.fromarray(image[:, :, :3] if image.shape[2] >= 3 else image[:, :, 0]).convert("RGB")
