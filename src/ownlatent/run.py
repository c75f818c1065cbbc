"""A run folder, as an object."""

import csv
import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from ownlatent.errors import OwnlatentError
from ownlatent.train.recipe import Recipe

if TYPE_CHECKING:
    from ownlatent.backbones.encoder import Encoder


class Run:
    """What a run left in its folder; everything is read when it is asked for.

    encoder: an nn.Module, images in, (B, D) features out. metrics: one dict per row of metrics.csv.
    results: the content of results.json. recipe: the resolved recipe. Raises OwnlatentError for a
    folder that holds no run.
    """

    def __init__(self, folder: str | Path, encoder: "Encoder | None" = None):
        self.folder = Path(folder)
        if not (self.folder / "recipe.json").exists():
            raise OwnlatentError(f"{folder} holds no run: name a folder with a recipe.json")
        if encoder is not None:
            self.__dict__["encoder"] = encoder

    @cached_property
    def encoder(self) -> "Encoder":
        from ownlatent.export.encoder import load_encoder

        return load_encoder(self.folder)

    @property
    def recipe(self) -> Recipe:
        return Recipe.load(self.folder / "recipe.json")

    @property
    def metrics(self) -> list[dict[str, float | None]]:
        path = self.folder / "metrics.csv"
        if not path.exists():
            return []
        with path.open(newline="") as file:
            return [{k: float(v) if v != "" else None for k, v in row.items()} for row in csv.DictReader(file)]

    @property
    def results(self) -> dict[str, Any]:
        path = self.folder / "results.json"
        if not path.exists():
            return {"finished": False, "evaluations": []}
        try:
            return json.loads(path.read_text())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise OwnlatentError(f"{path} is broken ({error}): delete it; --resume makes it again") from error

    @property
    def unhealthy(self) -> bool:
        """Whether it has collapsed or diverged, by the verdict in results.json."""
        return self.results.get("health", {}).get("word") in ("collapsed", "diverging")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"


_GALLERY = ("gallery.npz", "embedding.png", "neighbours.png")
_EVALUATIONS = (*_GALLERY, "predictions.npz", "evaluation.csv", "evaluation.md", "classes.csv", "confusion.png")
_FILES = (
    "recipe.json",
    "env.json",
    "env-resumed.json",
    "results.json",
    "metrics.csv",
    "log.txt",
    "views.png",
    "curves.png",
    "report.html",
    "maps.npz",
    *_EVALUATIONS,
    "encoder.json",
    "encoder.safetensors",
)
_FOLDERS = ("checkpoints", "tensorboard", "failed-step", "exported")


def check_folder(folder: Path, data: str, overwrite: bool) -> None:
    """Refuse a run folder whose content would be lost, or that lies among the training images."""
    if folder.exists() and not folder.is_dir():
        raise OwnlatentError(f"{folder} is a file: give another --out")
    if (folder / "recipe.json").exists():
        if not overwrite:
            raise OwnlatentError(
                f"{folder} already holds a run: go on with it by `ownlatent pretrain --out {folder} --resume`, "
                "replace it by --overwrite, or give another --out"
            )
    elif taken := [name for name in (*_FILES, *_FOLDERS) if (folder / name).exists()]:
        raise OwnlatentError(f"{folder} holds no run, but a {taken[0]} that would be lost: give another --out")
    if lies_among(folder, data):
        raise OwnlatentError(
            f"{folder} lies inside the images' folder, which would mix pictures in: give another --out"
        )


def lies_among(path: Path, data: str) -> bool:
    """Whether a path lies in one of the folders of images."""
    parts = [data, *data.split(",")]  # isdir never raises, whatever the name
    return any(os.path.isdir(part) and path.resolve().is_relative_to(Path(part).resolve()) for part in parts)


def make_way(folder: Path) -> None:
    """An empty run folder: the files of a former run go, anything else in the folder stays."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def forget_evaluations(folder: Path) -> None:
    """Remove what evaluations wrote beside results.json: the encoder is another one now."""
    for name in _EVALUATIONS:
        (folder / name).unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Nobody else writes into this run folder, which is made, within.

    Raises OwnlatentError if somebody does already, or it cannot be written to.
    """
    lock = FileLock(folder / ".lock", blocking=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:  # an OSError as well
        raise OwnlatentError(
            f"another process is writing to {folder}: wait until it has ended, or give another --out"
        ) from None
    except OSError as error:
        raise OwnlatentError(
            f"cannot write to {folder} ({error.strerror}): give another --out, or a copy of the run to evaluate"
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def written(folder: Path) -> Iterator[None]:
    """What is wrong with a run folder while it is written becomes one sentence, and what it holds stays as it is."""
    try:
        yield
    except OSError as error:
        if not folder.is_dir():
            raise OwnlatentError(
                f"{folder} has vanished while it was written: bring it back and go on with --resume, or start again"
            ) from error
        if error.errno not in _CANNOT_WRITE:
            raise
        reason = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
        goes_on = f"`ownlatent pretrain --out {folder} --resume` goes on from the last checkpoint"
        begins = "there is no checkpoint yet: start again with --overwrite"
        saved = any((folder / "checkpoints").glob("*.ckpt"))
        remedy = "free some room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make the folder writable"
        raise OwnlatentError(
            f"cannot write to {folder} ({reason}): {remedy}; {goes_on if saved else begins}"
        ) from error


_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE)


def default_folder(recipe: Recipe) -> Path:
    """runs/NAME-METHOD, NAME being that of the data."""
    name = "photos" if recipe.data.startswith("photos:") else Path(recipe.data.split(",")[0]).resolve().name
    name = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "images"
    return Path("runs") / f"{name}-{recipe.method}"
