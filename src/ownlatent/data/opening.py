"""From a name or an object to images or sounds: which source it means, and a labelled one as an evaluator sees it.

What can be named: a folder of files; tar shards; Parquet files; .npy and .npz files; photos:PART, sounds:PART,
torchvision:NAME and hf:OWNER/NAME; several of them with commas between. Patterns stand for several files.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ownlatent.data.decode import SEARCHED, fit
from ownlatent.data.labelled import check_labelled
from ownlatent.data.patterns import expand, split
from ownlatent.data.reading import with_channels
from ownlatent.data.resident import Resident, load_resident
from ownlatent.data.source import Source, is_of_sounds
from ownlatent.data.sources.arrays import Arrays, open_arrays
from ownlatent.data.sources.folder import Folder
from ownlatent.data.sources.photos import SPLITS, Photos
from ownlatent.data.sources.sounds import Sounds
from ownlatent.data.sources.waveforms import Waveforms
from ownlatent.data.sources.wrapped import Wrapped, join
from ownlatent.errors import OwnlatentError, nearest
from ownlatent.types import NOUNS, Modality, Size

_MOST_CHANNELS = 16  # of an image that is given as an array in a list
_PREFIXES = ("photos", "sounds", "torchvision", "hf")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_KINDS = {".tar": "shards", ".parquet": "parquet", ".npy": "arrays", ".npz": "arrays"}
_KINDS |= dict.fromkeys(_COMPRESSED, "shards")
_PART = re.compile(r"(train|test|val|valid|validation|dev|eval|unlabell?ed|extra)(?:ing)?(?=[-_.\d]|$)", re.IGNORECASE)


def open_source(
    name: Any,
    *,
    labelled: bool = False,
    download: bool = False,
    root: str | Path | None = None,
    modality: Modality = "image",
) -> Source:
    """A source by name, or from an array, a tensor, a data set, a source, or a list of such.

    labelled: the labels are wanted; without it they are not even looked for. download: torchvision may
    fetch what is missing. root: the folder of torchvision's data sets, `data` by default. modality: what is looked
    for. Of sounds, arrays are waveforms of 16 kHz, and data sets give them as torchaudio's and Hugging Face's do.

    Raises OwnlatentError if there is nothing to read or, if asked for, labels are missing.
    """
    source = _open(name, labelled, download, root, modality)
    if is_of_sounds(source) != (modality == "audio"):
        other: Modality = "audio" if modality == "image" else "image"
        raise OwnlatentError(f"{source.name} holds {NOUNS[other]}, not {NOUNS[modality]}: give --modality {other}")
    return source


def _open(name: Any, labelled: bool, download: bool, root: str | Path | None, modality: Modality) -> Source:
    if isinstance(name, (str, Path)):
        return _by_name(os.fspath(name), labelled, download, root, modality)
    if isinstance(name, (list, tuple)):
        if modality == "audio" and name and not all(isinstance(each, (str, Path)) for each in name):
            return Waveforms(list(name), labelled)
        if name and all(map(_is_one_image, name)):
            return Wrapped(list(name), labelled=labelled)
        return _joined(list(name), labelled, download, root, modality)
    if isinstance(name, (np.ndarray, Tensor)):
        if labelled:
            raise OwnlatentError(
                "an array by itself has no labels: give a data set of pairs, as torch.utils.data.TensorDataset makes it"
            )
        return Waveforms(name) if modality == "audio" else Arrays(name)
    if type(name).__module__.partition(".")[0] == "datasets" and hasattr(name, "column_names"):
        from ownlatent.data.sources.huggingface import HuggingFace

        return HuggingFace(name, labelled=labelled, modality=modality)
    if not (hasattr(name, "__len__") and hasattr(name, "__getitem__")):
        raise OwnlatentError(
            f"a {type(name).__name__} is no source of {NOUNS[modality]}: give "
            + ("its data set" if hasattr(name, "dataset") else "a path, an array, or what has __len__ and __getitem__")
        )
    if callable(getattr(name, "title", None)) and hasattr(name, "name") and hasattr(name, "classes"):
        return name
    return Waveforms(name, labelled=labelled) if modality == "audio" else Wrapped(name, labelled=labelled)


def load_labelled(
    name: Any,
    channels: int,
    image_size: Size,
    *,
    download: bool = False,
    root: str | Path | None = None,
    modality: Modality = "image",
) -> Resident:
    """A labelled source in memory, every image uint8 or uint16 (channels, image_size, image_size), sounds by `fit`.

    Raises OwnlatentError if it has no labels, if none of its images can be read, or if they have
    another number of channels that is neither gray nor colour.
    """
    source = open_source(name, labelled=True, download=download, root=root, modality=modality)
    check_labelled(source)
    return load_resident(source, lambda image: with_channels(fit(image, image_size), channels, source.name))


def _is_one_image(value: Any) -> bool:
    if isinstance(value, Image.Image):
        return True
    if not isinstance(value, (np.ndarray, Tensor)) or value.ndim > 3:
        return False
    return value.ndim < 3 or min(value.shape) <= _MOST_CHANNELS  # else many gray images, one upon the other


def _joined(data: Sequence[Any], labelled: bool, download: bool, root: str | Path | None, modality: Modality) -> Source:
    if not data:
        raise OwnlatentError("the list of sources is empty: give at least one")
    options: dict[str, Any] = {"labelled": labelled, "download": download, "root": root, "modality": modality}
    return join([open_source(each, **options) for each in data])


def _by_name(name: str, labelled: bool, download: bool, root: str | Path | None, modality: Modality) -> Source:
    if not name.strip():
        raise OwnlatentError("the name of the data is empty: give a folder, a file or the name of a data set")
    name = os.path.expanduser(name)  # within quotes the shell has not done it
    prefix, colon, rest = name.partition(":")
    if "," in name and not os.path.exists(name) and len(several := split(name)) > 1:
        return _joined(several, labelled, download, root, modality)
    if colon and prefix in _PREFIXES:
        if prefix == "torchvision":
            from ownlatent.data.sources.named import open_torchvision

            return open_torchvision(rest, labelled, download, root)
        if prefix == "hf":
            from ownlatent.data.sources.huggingface import open_hub

            return open_hub(rest, labelled, modality)
        if prefix == "sounds":
            return Sounds(rest)
        if rest not in SPLITS:
            raise OwnlatentError(f"the built-in photographs have the parts {' and '.join(SPLITS)}, not {rest!r}")
        return Photos(rest)
    if colon and re.fullmatch(r"[a-z]{2,}", prefix) and not os.path.exists(name):
        raise OwnlatentError(f"{name} names no source: before a colon, {nearest(prefix, _PREFIXES)}")
    files = expand(name)
    if files is not None:
        return _several(files, name, labelled, modality)
    return _one(Path(name), labelled, modality)


def _one(path: Path, labelled: bool, modality: Modality) -> Source:
    """A source from one path, which may be a folder of any kind."""
    kind = _kind(path)
    if os.path.isdir(path):  # Path.is_dir raises for a name that is too long
        from ownlatent.data.index.tables import saved_tables

        if saved := saved_tables(path):
            return _tables(saved, str(path), labelled, modality)
        found = _tables_or_shards(path, modality)
        return _several(found, str(path), labelled, modality) if found else Folder(path, labelled, modality)
    if kind and not os.path.exists(path):
        raise OwnlatentError(f"there is no file {path}: give the path of one, or of a folder of {NOUNS[modality]}")
    if kind:
        return _several([path], str(path), labelled, modality)
    return Folder(path, labelled, modality)


def _several(paths: Sequence[Path], name: str, labelled: bool, modality: Modality) -> Source:
    """A source from files of one kind, or from folders. Raises OwnlatentError if they are anything else."""
    kinds = {"folder" if os.path.isdir(path) else _kind(path) for path in paths}
    if kinds == {"shards"}:
        from ownlatent.data.sources.shards import Shards

        for path in paths:
            if path.name.lower().endswith(_COMPRESSED):
                raise OwnlatentError(
                    f"{path} is compressed, so no file in it can be reached by itself: unpack it to .tar"
                )
        return Shards(paths, name, labelled, modality)
    if kinds == {"parquet"}:
        return _tables(paths, name, labelled, modality)
    if kinds == {"arrays"} and modality == "audio":
        raise OwnlatentError(f"{name} holds arrays and not sound files: load it, and pass the waveforms in Python")
    if kinds == {"arrays"}:
        return join([open_arrays(path, labelled) for path in paths])
    if kinds == {"folder"}:
        return join([_one(path, labelled, modality) for path in paths])
    if all(path.suffix.lower() in SEARCHED[modality] for path in paths):
        raise OwnlatentError(
            f"{name} names {NOUNS[modality]} one by one: give the folder that holds them, {paths[0].parent}"
        )
    raise OwnlatentError(f"{name} names files of several kinds: give only .tar, only .parquet or only .npy files")


def _tables(paths: Sequence[Path], name: str, labelled: bool, modality: Modality) -> Source:
    from ownlatent.data.sources.parquet import Parquet

    return Parquet(paths, name, labelled, modality)


def _kind(path: Path) -> str | None:
    return next((kind for ending, kind in _KINDS.items() if path.name.lower().endswith(ending)), None)


def _tables_or_shards(folder: Path, modality: Modality) -> list[Path]:
    """The tar or the Parquet files of a folder that holds no images, or sounds, and no folders; else nothing.

    Nothing too for a folder that cannot be read: Folder says so.

    Raises OwnlatentError if they are several parts of a data set: test images must not be trained on
    by accident.
    """
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.splitext(entry.name)[1].lower() in SEARCHED[modality] or os.path.isdir(entry.path):
                    return []
                if _kind(Path(entry.name)) in ("shards", "parquet"):
                    found.append(Path(entry.path))
    except OSError:
        return []
    parts = {match[1].lower() if (match := _PART.match(path.name)) else "" for path in found}
    if len(parts) > 1:
        some = ", ".join(sorted(part or "others" for part in parts))
        example = folder / f"{min(part for part in parts if part)}*{found[0].suffix}"
        raise OwnlatentError(f"{folder} holds several parts ({some}): name one by a pattern, such as {example}")
    return sorted(found)
