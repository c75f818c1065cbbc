"""The image files below a folder as arrays: found once, kept in a file, and mapped into memory from then on.

A million files are a few dozen megabytes here, which all worker processes share, and not a million
Python strings, which each would copy. The file is believed as long as every folder's inode and times
are what they were when it was read: one question a folder instead of one an image. The device number
is not asked for, because it is another one on every computer that mounts the same network drive.
"""

import hashlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, time_ns

import numpy as np

from ownlatent.data.decode import SEARCHED
from ownlatent.data.index.cache import SETTLED, cache_folder, replacing
from ownlatent.errors import OwnlatentError
from ownlatent.types import Modality

log = logging.getLogger("ownlatent")

SMALL = 2_000  # files: reading the folders of fewer is as quick as reading a listing, which then is only litter
_MAGIC = b"ownlatent listing 1\n"  # the number grows with every change of the layout
_PREFIX = struct.Struct("<20sIQ")  # the magic, the CRC-32 of all that follows the prefix, bytes of the header
_PARTS = {"starts": "<i8", "folder_starts": "<i8", "states": "<u8", "folder_of": "<i4", "folders": "u1", "names": "u1"}
_DAY = 86_400 * 10**9  # ns; what is dated later was set by hand, and no change will leave it so


class Listing:
    """N image files in F folders below a root, in the order of the bytes of their relative paths.

    Random access makes the strings that it is asked for. parts holds the arrays: where each name
    starts, in which folder it lies, and the same for the folders' own paths, which end in a slash;
    states is what tells whether a folder has changed. memory is the file that they are views of, as a
    memmap, or None where they are plain arrays. skipped: (relative path, reason) of folders.
    """

    def __init__(self, root: bytes, parts: dict[str, np.ndarray], skipped: Sequence[tuple[bytes, str]]):
        self.root, self.parts, self.skipped = root, parts, list(skipped)
        self.file: Path | None = None
        self.memory: np.memmap | None = None
        self.prefix = b""  # of the file: what it begins with, checksum included
        self._starts, self._names = parts["starts"], parts["names"]
        self._folder_starts, self._folders = parts["folder_starts"], parts["folders"]
        self.folder_of = parts["folder_of"]
        self.num_folders = len(self._folder_starts) - 1

    def __len__(self) -> int:
        return len(self.folder_of)

    def relative(self, index: int) -> bytes:
        """The path of image `index` below the root. Raises IndexError."""
        index = range(len(self))[index]
        name = self._names[self._starts[index] : self._starts[index + 1]]
        return self.folder(int(self.folder_of[index])) + name.tobytes()

    def path(self, index: int) -> bytes:
        return b"/".join((self.root, self.relative(index)))

    def folder(self, number: int) -> bytes:
        """The path of a folder below the root, with a slash at its end; the root itself, number 0, is empty."""
        return self._folders[self._folder_starts[number] : self._folder_starts[number + 1]].tobytes()

    def unchanged(self) -> bool:
        """Whether reading the folders again would find the same."""
        states = self.parts["states"].reshape(-1, 3).tolist()
        try:
            for number, state in enumerate(states):
                if _state(os.stat(b"/".join((self.root, self.folder(number))))) != state:
                    return False
        except OSError:
            return False
        for folder, _ in self.skipped:
            with suppress(OSError):
                os.scandir(b"/".join((self.root, folder))).close()
                return False
        return True

    def __reduce__(self) -> tuple:
        # Another process may have replaced the file since; then the arrays themselves must be sent.
        if self.file is not None and _open(self.file, wanted=self.prefix):
            return _reopen, (self.file, self.prefix)
        return Listing, (self.root, self.parts, self.skipped)


def list_images(root: Path, modality: Modality = "image") -> Listing:
    """All files below a folder with an image's ending, or a sound's; from the kept listing if nothing has changed.

    Hidden files and folders are passed over. Links to folders are followed, each folder once, so
    that a loop of links ends. Raises OSError if the root itself cannot be read.
    """
    base = os.fsencode(os.path.realpath(root))
    endings = sorted(SEARCHED[modality])
    file = _kept_in(base, modality)
    kept = _open(file, endings) if file else None
    if kept is not None and kept.root == base and kept.unchanged():
        log.debug("listing    of %d images as kept in %s", len(kept), file)
        return kept
    listing, num_files, settled = _scan(base, endings)
    if file is None or not settled or num_files < SMALL:
        return listing
    try:
        prefix = _write(file, listing, endings)
    except OSError as error:
        log.debug("listing    not kept: %s", error)
        return listing
    return _open(file, wanted=prefix) or listing


def reason_of(error: OSError, path: bytes) -> str:
    """Why a file or folder cannot be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "a link to nothing" if os.path.islink(path.rstrip(b"/")) else "no longer there"
    return (error.strerror or type(error).__name__).lower()


def _scan(root: bytes, endings: Sequence[str]) -> tuple[Listing, int, bool]:
    """The listing, how many files of any kind there are, and whether the folders had rested long enough to tell."""
    folders: list[bytes] = []
    states: list[list[int]] = []
    skipped: list[tuple[bytes, str]] = []
    names, lengths, folder_of = bytearray(), [], []
    seen: set[tuple[int, int]] = set()
    reader, settled = _Reader(endings), True
    waiting: list[bytes | tuple[int, list[bytes]]] = [b""]  # folders to enter and names to note, the next one last
    while waiting:
        folder = waiting.pop()
        if isinstance(folder, tuple):
            number, run = folder
            names += b"".join(run)
            lengths.append(np.fromiter(map(len, run), np.int64, len(run)))
            folder_of.append(np.full(len(run), number, np.int32))
            continue
        path = b"/".join((root, folder))
        try:
            status, now = os.stat(path), time_ns()  # before reading: a change while we read must show as one
            known = (status.st_dev, status.st_ino) in seen
            entries = [] if known else reader.read(path)
        except OSError as error:
            if not folder:
                raise
            skipped.append((folder, reason_of(error, path)))
            continue
        seen.add((status.st_dev, status.st_ino))
        settled &= all(0 < t <= now - SETTLED or t >= now + _DAY for t in (status.st_mtime_ns, status.st_ctime_ns))
        states.append(_state(status))
        folders.append(folder)
        waiting += reversed(_in_turn(entries, folder, len(folders) - 1))
    parts = {
        "starts": _starts(np.concatenate([np.empty(0, np.int64), *lengths])),
        "folder_starts": _starts(np.array([len(folder) for folder in folders])),
        "states": np.array(states, np.uint64).ravel(),
        "folder_of": np.concatenate([np.empty(0, np.int32), *folder_of]),
        "folders": np.frombuffer(b"".join(folders), np.uint8),
        "names": np.frombuffer(names, np.uint8),
    }
    return Listing(root, parts, skipped), reader.num_files, settled


def _in_turn(entries: list[bytes], folder: bytes, number: int) -> list[bytes | tuple[int, list[bytes]]]:
    """Sorted entries as subfolders and, between them, runs of (number, names of images)."""
    turns: list[bytes | tuple[int, list[bytes]]] = []
    first = 0
    for place, entry in enumerate(entries):
        if entry.endswith(b"/"):
            turns += [(number, entries[first:place]), folder + entry]
            first = place + 1
    return [*turns, (number, entries[first:])]


class _Reader:
    """Reads folders, counts what it sees and says so when it takes long."""

    def __init__(self, endings: Sequence[str]) -> None:
        self.endings = frozenset(map(os.fsencode, endings))
        self.num_files = self.num_images = 0
        self._next_word = monotonic() + 2

    def read(self, path: bytes) -> list[bytes]:
        """Names of images, and of folders with a slash at the end; sorted, they are in the order of whole paths.

        A link that leads nowhere may have been one to a folder and is taken for one. Raises OSError.
        """
        found = []
        with os.scandir(path) as entries:
            for entry in entries:
                self.num_files += 1
                if not self.num_files % 1000:
                    self._tell()
                name = entry.name
                if name.startswith(b"."):
                    continue
                if _is(entry.is_dir):
                    found.append(name + b"/")
                elif name[name.rfind(b".") :].lower() in self.endings:
                    found.append(name)
                    self.num_images += 1
                elif entry.is_symlink() and not _is(entry.is_file):
                    found.append(name + b"/")
        found.sort()
        return found

    def _tell(self) -> None:
        if monotonic() > self._next_word:
            log.info("listing    %d files so far ...", self.num_images)
            self._next_word = monotonic() + 5


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link in a circle, or to where we may not look
        return False


def _starts(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _state(status: os.stat_result) -> list[int]:
    # Both times: unpacking an archive can set the first one back to what it was, and nothing the second.
    return [number & (2**64 - 1) for number in (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)]


def _kept_in(root: bytes, modality: Modality) -> Path | None:
    """The file for the listing of a root's images or sounds, wherever the process goes from here."""
    cache = cache_folder()
    key = root if modality == "image" else root + b"\0" + modality.encode()
    return cache and Path(cache, "listings", hashlib.sha256(key).hexdigest()[:24]).absolute()


def _write(file: Path, listing: Listing, endings: Sequence[str]) -> bytes:
    """Returns the prefix of the file. Raises OSError."""
    about = {
        "root": os.fsdecode(listing.root),
        "endings": list(endings),
        "lengths": {name: len(listing.parts[name]) for name in _PARTS},
        "skipped": [(os.fsdecode(folder), reason) for folder, reason in listing.skipped],
    }
    header = json.dumps(about).encode()
    header += b" " * (-len(header) % 8)  # so that the arrays are aligned
    arrays = (listing.parts[name].astype(kind, copy=False).tobytes() for name, kind in _PARTS.items())
    body = b"".join([header, *arrays])
    prefix = _PREFIX.pack(_MAGIC, zlib.crc32(body), len(header))
    with replacing(file) as out:
        out.writelines([prefix, body])
    return prefix


def _open(file: Path, endings: Sequence[str] = (), wanted: bytes | None = None) -> Listing | None:
    """The listing in a file, mapped, or None if there is none, or not a whole one of this layout and these endings.

    wanted: instead of endings, the prefix of the one listing that will do, which is known to be whole.
    """
    try:
        memory = np.memmap(file, np.uint8, "r")
        prefix = memory[: _PREFIX.size].tobytes()
        magic, check, header_bytes = _PREFIX.unpack(prefix)
        if magic != _MAGIC or (wanted or prefix) != prefix:
            return None
        if wanted is None and check != zlib.crc32(memory[_PREFIX.size :]):  # type: ignore[arg-type]
            return None
        begin = _PREFIX.size + header_bytes
        about = json.loads(memory[_PREFIX.size : begin].tobytes())
    except (OSError, ValueError, struct.error):
        return None
    if wanted is None and about["endings"] != list(endings):
        return None
    parts = {}
    for name, kind in _PARTS.items():
        end = begin + about["lengths"][name] * np.dtype(kind).itemsize
        parts[name] = np.asarray(memory[begin:end]).view(kind)  # a plain view: a memmap makes every access slow
        begin = end
    listing = Listing(os.fsencode(about["root"]), parts, [(os.fsencode(f), reason) for f, reason in about["skipped"]])
    listing.file, listing.memory, listing.prefix = file, memory, prefix
    return listing


def _reopen(file: Path, prefix: bytes) -> Listing:
    listing = _open(file, wanted=prefix)
    if listing is None:
        raise OwnlatentError(f"the listing {file} was replaced while a worker process started: start again")
    return listing
