"""Large photographs written once as small ones, in shards: what an epoch then costs is what it needs."""

import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import simplejpeg
from torch import Tensor

from ownlatent.augment.recipes import RECIPES
from ownlatent.data.crops import Crops
from ownlatent.data.decode import EXTENSIONS, Unreadable, decode, resize, shrink_for, size_of
from ownlatent.data.opening import open_source
from ownlatent.data.probe import spread
from ownlatent.data.resident import ahead
from ownlatent.data.source import EncodedSource, Source
from ownlatent.errors import OwnlatentError
from ownlatent.machine import cores

QUALITY = 92  # of the JPEGs written
_SHARD_BYTES = 256 * 2**20
_TIMED = 64  # images by which the time of an epoch is told


@dataclass(frozen=True)
class Prepared:
    """What was written, and what it gained. Seconds are of one epoch's decoding and cropping, on one core."""

    source: str
    max_side: int
    images: int
    shrunk: int
    shards: int
    bytes_before: int
    bytes_after: int
    seconds: float
    epoch_seconds_before: float
    epoch_seconds_after: float
    skipped: dict[str, str]


def prepare(
    data: str | Path | Source,
    out: Path,
    max_side: int = 512,
    labelled: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Prepared:
    """Write every image of a source into tar shards in the folder `out`, the longer side at most `max_side` pixels.

    Files that are small enough are copied byte for byte. Larger ones of 8 bits become JPEGs of quality
    92, of 16 bits or other than one or three channels arrays without loss. labelled: keep the classes.
    The shards are WebDataset's: KEY.jpg and KEY.cls beside it, the class by its name; `out` is a source like any other.

    Raises OwnlatentError if `out` holds anything already or cannot be written, or nothing can be read.
    """
    source = open_source(data, labelled=labelled)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OwnlatentError(f"{out} is not empty: give a folder that does not exist yet")
    if max_side < 16:
        raise OwnlatentError(f"--max-side must be at least 16 pixels, not {max_side}")
    began = perf_counter()
    made = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = _write(source, out, max_side, progress)
        if not written["images"]:
            raise OwnlatentError(f"none of the {len(source)} images of {source.name} can be read: nothing was written")
    except BaseException as error:  # Ctrl-C too: half a data set would pass for a whole one
        _undo(out, made)
        if isinstance(error, OSError):
            raise OwnlatentError(f"cannot write to {out} ({error.strerror}): give another folder") from error
        raise
    report = Prepared(
        source=source.name,
        max_side=max_side,
        seconds=round(perf_counter() - began, 2),
        epoch_seconds_before=seconds_per_epoch(source),
        epoch_seconds_after=seconds_per_epoch(open_source(out)),
        **written,
    )
    (out / "prepared.json").write_text(json.dumps(asdict(report), indent=2) + "\n")
    return report


def seconds_per_epoch(source: Source) -> float:
    """Seconds in which one core decodes and crops every image once for BYOL's views of 224 px, told from a sample."""
    crops = Crops(source, RECIPES["byol"], 224)
    indices = list(spread(len(source), _TIMED))
    crops[0, indices[:1], 0]  # compiles
    began = perf_counter()
    crops[0, indices, 0]
    return round((perf_counter() - began) / len(indices) * len(source), 3)


def _undo(out: Path, made: bool) -> None:
    """Leave the folder as it was: empty, or not there."""
    for path in out.glob("*.tar*"):
        path.unlink(missing_ok=True)
    if made and out.exists():
        out.rmdir()


class _Shards:
    """Tar files of at most 256 MiB, each written beside its place and moved there when it is whole."""

    def __init__(self, folder: Path):
        self.folder, self.count, self._room = folder, 0, 0
        self._tar: tarfile.TarFile | None = None

    def add(self, files: dict[str, bytes]) -> None:
        """Add files that belong together, by name: they stay in one shard."""
        needed = sum(map(len, files.values()))
        if self._tar is None or self._room < needed:
            self.close()
            self._tar, self._room = tarfile.TarFile(self._beside(), "w"), _SHARD_BYTES
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
        self._room -= needed

    def close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            os.replace(self._beside(), self.folder / f"{self.count:06d}.tar")
            self._tar = None
            self.count += 1

    def _beside(self) -> Path:
        return self.folder / f"{self.count:06d}.tar.unfinished"


@dataclass(frozen=True)
class _File:
    """One image as it is written: ending, content, the bytes it came from, and its class."""

    ending: str
    content: bytes
    before: int
    shrunk: bool
    label: int | None


def _write(source: Source, out: Path, max_side: int, progress: Callable[[float], None] | None) -> dict[str, Any]:
    """Write the shards; returns what Prepared says of them."""
    shards, skipped = _Shards(out), {}
    images = shrunk = before = after = 0
    digits = max(8, len(str(len(source))))
    with ThreadPoolExecutor(cores()) as pool:
        for index, file in enumerate(ahead(pool, lambda i: _shrunk(source, i, max_side), len(source))):
            if isinstance(file, str):
                skipped[source.title(index)] = file
                continue
            key = f"{index:0{digits}d}"
            files = {f"{key}.{file.ending}": file.content}
            if file.label is not None and source.classes is not None:
                files[f"{key}.cls"] = source.classes[file.label].encode()
            shards.add(files)
            images, shrunk = images + 1, shrunk + file.shrunk
            before, after = before + file.before, after + len(file.content)
            if progress:
                progress((index + 1) / len(source))
    shards.close()
    counts = {"images": images, "shrunk": shrunk, "shards": shards.count}
    return {**counts, "bytes_before": before, "bytes_after": after, "skipped": skipped}


def _shrunk(source: Source, index: int, max_side: int) -> "_File | str":
    """Image `index` as it is to be written, or the reason why it cannot be read."""
    try:
        if not isinstance(source, EncodedSource):
            sample = source[index]
            large = max(sample.image.shape[1:]) > max_side
            return _encoded(sample.image, large, max_side, sample.image.nbytes, sample.label)
        content = source.encoded(index)
        height, width = size_of(content)
        longer = max(height, width)
        if longer <= max_side:
            decode(content, source.format)  # a file that cannot be read is not worth a copy
            ending = Path(source.title(index)).suffix.lower()
            ending = ending.lstrip(".") if ending in EXTENSIONS else "jpg"  # only a name: content tells when reading
            return _File(ending, content, len(content), False, source.label(index))
        image = decode(content, source.format, shrink_for(longer / max_side))
        return _encoded(image, True, max_side, len(content), source.label(index))
    except Unreadable as error:
        return str(error)


def _encoded(image: Tensor, shrunk: bool, max_side: int, before: int, label: int | None) -> _File:
    """An image (C, H, W) as a file, brought to its final size; what was never a file of its own loses nothing."""
    height, width = image.shape[1:]
    longer = max(height, width)
    if longer > max_side:
        image = resize(image, (max(1, round(height * max_side / longer)), max(1, round(width * max_side / longer))))
    array = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if shrunk and array.dtype == np.uint8 and array.shape[2] in (1, 3):
        space = "RGB" if array.shape[2] == 3 else "GRAY"
        content, ending = simplejpeg.encode_jpeg(array, QUALITY, space, "420"), "jpg"
    else:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        content, ending = buffer.getvalue(), "npy"
    return _File(ending, content, before, shrunk, label)
