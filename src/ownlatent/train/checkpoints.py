"""The checkpoints of a run: always whole, never trusted unread, and never more than asked for."""

import hashlib
import logging
import pickle
import re
from pathlib import Path
from typing import Any, BinaryIO

import torch
from lightning.fabric.plugins import CheckpointIO

from ownlatent.errors import OwnlatentError
from ownlatent.files import write_beside

log = logging.getLogger("ownlatent")
FORMAT = 1
FOLDER = "checkpoints"
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.ckpt")


class Damaged(Exception):
    """A checkpoint whose content is not what was written, or nothing that may be opened."""


class Checkpoints(CheckpointIO):
    """The files `step-STEP-CHECKSUM.ckpt` of a run folder, of which the newest `keep` stay.

    The checksum is that of the content (SHA-256, its first 16 digits): a file that was torn, or that a disk gives
    back otherwise than it got it, is known by its own name. Nothing in a file is executed (`weights_only`).
    """

    def __init__(self, run: Path, keep: int):
        self.folder, self.keep = run / FOLDER, keep
        self._newest: tuple[Path, dict[str, Any]] | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint and remove the oldest; `path` is `at(step)`. Raises OSError, and nothing is lost then."""
        path = Path(path)
        self.folder.mkdir(exist_ok=True)  # not its parents: a run folder that has vanished is not made again
        digests: list[str] = []

        def write(file: BinaryIO) -> None:
            content = _Hashing(file)
            torch.save(checkpoint, content)  # type: ignore[arg-type]
            digests.append(content.digest())

        write_beside(path.with_suffix(".tmp"), write, lambda: path.with_name(f"{path.name}-{digests[0]}.ckpt"))
        for old, _ in self.found()[self.keep :]:
            self.remove_checkpoint(old)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Read one file, unless `newest` just did. Raises Damaged, and OwnlatentError if it is of another version."""
        found, self._newest = self._newest, None
        return found[1] if found is not None and found[0] == Path(path) else read(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        """Delete one file."""
        Path(path).unlink(missing_ok=True)

    def at(self, step: int) -> Path:
        """The name of the checkpoint of a step, which gets its checksum and ending when it is written."""
        return self.folder / f"step-{step:08d}"

    def found(self) -> list[tuple[Path, int]]:
        """The files and their steps, newest first."""
        named = [(path, _NAME.fullmatch(path.name)) for path in self.folder.glob("*.ckpt")]
        return sorted(((path, int(match[1])) for path, match in named if match), key=lambda each: -each[1])

    def newest(self, tidy: bool = True) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint that can be read, and its content; None if there is none at all.

        Newer ones that cannot be read are named. tidy: and set aside, and what was begun and not finished goes; for
        whoever is alone in writing to the folder. Raises OwnlatentError if there are only such, or if
        it is of another version.
        """
        damaged: list[tuple[Path, Damaged]] = []
        for begun in self.folder.glob("*.tmp") if tidy else ():
            begun.unlink()
        for path, step in self.found():
            try:
                content = read(path)
            except Damaged as error:
                damaged.append((path, error))
                continue
            for other, why in damaged:
                log.warning("%s: the one before it is used, that of step %d", why, step)
                if tidy:
                    other.rename(other.with_suffix(".damaged"))
            self._newest = path, content
            return self._newest
        if damaged:
            raise OwnlatentError(
                f"{damaged[0][1]}, and there is no other: give --overwrite to start again, or another --out"
            )
        return None


def read(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises Damaged, and OwnlatentError if it is of another version."""
    match = _NAME.fullmatch(path.name)
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        if match is None or digest != match[2]:
            raise Damaged(f"{path} is damaged: its content is not what was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
        written = content["ownlatent"]["format"]
        int(content["global_step"]), int(content["ownlatent"]["batches_seen"]), float(content["ownlatent"]["elapsed"])
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror})") from error
    except pickle.UnpicklingError as error:
        raise Damaged(f"{path} holds more than weights and numbers, and was not opened") from error
    except (RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:  # torch raises many on a foreign file
        raise Damaged(f"{path} is no checkpoint of a run ({type(error).__name__})") from error
    if written != FORMAT:
        raise OwnlatentError(
            f"{path} has format {written}, and this version of ownlatent reads {FORMAT}: go on with the version that "
            "began the run (env.json names it)"
        )
    return content


class _Hashing:
    """A file to write to, and the checksum of what was written.

    A failure is raised by `digest`: raised out of torch's writer it can end the process.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.hash = file, hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        if self.error is None:
            try:
                self.file.write(data)
                self.hash.update(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """torch asks for it; the file is flushed when all is written."""

    def digest(self) -> str:
        if self.error is not None:
            raise self.error
        return self.hash.hexdigest()[:16]
