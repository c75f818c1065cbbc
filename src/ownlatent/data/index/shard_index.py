"""Which images a tar file holds, grouped into samples as WebDataset does, and where in it they lie."""

import io
import json
import logging
import os
from array import array
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import numpy as np

from ownlatent.data.decode import SEARCHED
from ownlatent.data.index.cache import SETTLED, cache_folder, key_of, replacing
from ownlatent.data.index.tar import FILES, LINKS, Damaged, Member, compression, members
from ownlatent.data.reasons import brief, shown
from ownlatent.errors import OwnlatentError
from ownlatent.types import Modality

log = logging.getLogger("ownlatent")

KEPT = 500  # images: the index of a tar file with fewer is made again as quickly as it is read
_LAYOUT = 1  # grows with every change of what is kept
_LABELS = (b"cls", b"json")


class Index(NamedTuple):
    """N images of one tar file, in its order.

    names (bytes) and ends (N,): the members' names, one after the other. offsets, sizes (N,): bytes.
    label_offsets, label_sizes (N,), label_json (N,): where the label of each is and whether it is
    JSON; offset -1 for none. skipped: (name, reason), the name empty for the tar file itself.
    passed_over: how many images only go with another one. size, mtime (ns): the tar file's.
    """

    names: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    label_offsets: np.ndarray
    label_sizes: np.ndarray
    label_json: np.ndarray
    skipped: list[tuple[str, str]]
    passed_over: int
    size: int
    mtime: int


def index_all(paths: list[str], modality: Modality = "image") -> list[Index]:
    """The index of every tar file, kept ones from the cache. Raises OwnlatentError."""
    with ThreadPoolExecutor(8) as pool:  # mostly waits for the disk or the network
        endings = frozenset(ending.removeprefix(".").encode() for ending in SEARCHED[modality])
        kept = list(pool.map(lambda path: _kept(path, endings), paths))
        missing = [path for path, index in zip(paths, kept, strict=True) if index is None]
        if len(missing) > 20:
            log.info("listing    the images in %d tar files ...", len(missing))
        made = pool.map(lambda path: _make(path, endings), missing)
        return [next(made) if index is None else index for index in kept]


def _make(path: str, endings: frozenset[bytes]) -> Index:
    try:
        with open(path, "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if kind := compression(file.read(6)):
                raise OwnlatentError(
                    f"{path} is compressed with {kind}, so that no image in it can be found without unpacking all "
                    "before it: unpack it to a plain .tar"
                )
            index = _collect(file.fileno(), status.st_size, endings)._replace(mtime=status.st_mtime_ns)
    except OSError as error:
        raise OwnlatentError(f"{path} cannot be read ({brief(error)}): name tar files that you may read") from error
    if len(index.offsets) >= KEPT and time_ns() - index.mtime > SETTLED:
        _keep(path, index, endings)
    return index


class _Rows:
    """What a walk finds, in arrays of whole numbers: a list of objects would take a kilobyte for each image."""

    def __init__(self, endings: frozenset[bytes]) -> None:
        self.endings = endings
        self.samples: dict[bytes, int] = {}
        self.names = bytearray()
        self.ends, self.offsets, self.sizes, self.sample, self.plain = (array("q") for _ in range(5))
        self.labels: dict[bool, tuple[array, ...]] = {
            is_json: (array("q"), array("q"), array("q")) for is_json in (True, False)
        }

    def add(self, member: Member, key: bytes, ending: bytes) -> None:
        sample = self.samples.setdefault(key, len(self.samples))
        if ending in _LABELS:
            for column, number in zip(
                self.labels[ending == b"json"], (sample, member.offset, member.size), strict=True
            ):
                column.append(number)
            return
        self.names += member.name
        self.ends.append(len(self.names))
        self.offsets.append(member.offset)
        self.sizes.append(member.size)
        self.sample.append(sample)
        self.plain.append(ending in self.endings and ending != b"npy")

    def index(self, skipped: list[tuple[str, str]], length: int) -> Index:
        """Leave out what only goes with a picture, and give each image its sample's label."""
        ends, offsets, sizes, sample = (
            np.array(column, np.int64) for column in (self.ends, self.offsets, self.sizes, self.sample)
        )
        plain = np.array(self.plain, bool)
        has_plain = np.zeros(len(self.samples), bool)
        has_plain[sample[plain]] = True
        used = plain | ~has_plain[sample]
        place = np.full((len(self.samples), 3), (-1, 0, 0), np.int64)
        for is_json in (True, False):  # a .cls file beside a .json one decides
            samples, starts, lengths = (np.array(column, np.int64) for column in self.labels[is_json])
            place[samples] = np.stack([starts, lengths, np.full(len(samples), is_json)], axis=1)
        names = np.frombuffer(bytes(self.names), np.uint8)
        widths = np.diff(ends, prepend=0)
        label = place[sample[used]]
        return Index(
            names=names[np.repeat(used, widths)],
            ends=np.cumsum(widths[used]),
            offsets=offsets[used],
            sizes=sizes[used],
            label_offsets=label[:, 0],
            label_sizes=label[:, 1],
            label_json=label[:, 2].astype(bool),
            skipped=skipped,
            passed_over=int(len(used) - used.sum()),
            size=length,
            mtime=0,
        )


def _collect(file: int, length: int, endings: frozenset[bytes]) -> Index:
    """Group what is in a tar file into samples as WebDataset does, by the name up to the base name's first dot.

    A picture like x.jpg stands for its sample: x.mask.png or x.npy beside it are not images of their own.
    """
    rows = _Rows(endings)
    skipped: list[tuple[str, str]] = []
    try:
        if not length:
            raise Damaged("it is empty")
        for member in members(file, length):
            base = member.name.rpartition(b"/")[2]
            stem, _, ending = base.lower().partition(b".")
            if not stem or (ending not in _LABELS and ending.rpartition(b".")[2] not in endings):
                continue
            if member.type in FILES and member.offset + member.size <= length:
                rows.add(member, member.name[: len(member.name) - len(base) + len(stem)], ending)
            elif ending not in _LABELS:
                cut = "the tar file ends inside it" if member.type in FILES else "not stored as a plain file"
                skipped.append((shown(member.name), "a link inside the tar file" if member.type in LINKS else cut))
    except Damaged as error:
        skipped.append(("", str(error)))
    return rows.index(skipped, length)


def _file_of(path: str, endings: frozenset[bytes]) -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "shards" / f"{key_of([path], _LAYOUT, sorted(endings))}.npz"


def _keep(path: str, index: Index, endings: frozenset[bytes]) -> None:
    about = json.dumps([index.skipped, index.passed_over, index.size, index.mtime]).encode()
    arrays = {name: value for name, value in index._asdict().items() if isinstance(value, np.ndarray)}
    try:
        file = _file_of(path, endings)
        if file is not None:
            with replacing(file) as opened:
                np.savez(opened, about=np.frombuffer(about, np.uint8), allow_pickle=False, **arrays)
    except OSError as error:
        log.debug("listing    of %s is not kept: %s", path, error)


def _kept(path: str, endings: frozenset[bytes]) -> Index | None:
    """The index from the cache, or None where there is none that can be used."""
    try:
        file = _file_of(path, endings)
        if file is None or not file.exists():
            return None
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        skipped, passed_over, size, mtime = json.loads(arrays.pop("about").tobytes())
        skipped = [(name, reason) for name, reason in skipped]
        return Index(**arrays, skipped=skipped, passed_over=passed_over, size=size, mtime=mtime)
    except Exception as error:  # a damaged file can fail in any way, and nothing is lost with it
        log.debug("listing    of %s cannot be used: %s", path, error)
        return None
