"""The front door: the verbs of the command line, as functions."""

import itertools
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.run import Run
from ownlatent.train.recipe import Recipe, edit

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.train.prepare import Job

log = logging.getLogger("ownlatent")


def pretrain(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    recipe: str | Path | Recipe | None = None,
    backbone: "str | nn.Module | None" = None,
    **fields: Any,
) -> Run:
    """Learn an encoder from unlabelled images and say what it is worth; all of it stays in one folder.

    data: folder of images, or a built-in source (`photos:train`). out: the run folder, by default
    runs/NAME-METHOD. resume: go on with the run in `out`. overwrite: replace it. recipe: start from
    a recipe.json. backbone: a name or a module of your own, trained in place. fields: any field of
    the recipe by its name or dotted name, such as epochs=100, **{"optim.lr": 0.2, "views.1.blur": 0}.

    Returns the Run; `.encoder` is an nn.Module. Raises OwnlatentError for anything that is wrong
    with the input, before anything is written.
    """
    network = None if backbone is None or isinstance(backbone, str) else backbone
    if isinstance(backbone, str):
        fields["backbone"] = backbone
    if data is not None:
        fields["data"] = str(data)
    if resume and (overwrite or recipe is not None):
        raise OwnlatentError("--resume goes on with a run as it is: leave out --overwrite and --recipe")
    if resume:
        return _resume(out, fields, network)
    start = recipe if isinstance(recipe, Recipe) else Recipe.load(Path(recipe)) if recipe else Recipe()
    early = {name: value for name, value in fields.items() if not name.startswith("views.")}
    for length, other in (("epochs", "minutes"), ("minutes", "epochs")):
        if length in early and other not in early:  # the length that is given replaces the stored one
            early[other] = None
    start = edit(start, early)
    if not start.data:
        raise OwnlatentError("name the folder of images: ownlatent pretrain FOLDER")
    late = {name: value for name, value in fields.items() if name.startswith("views.")}
    folder = Path(out) if out else _default_folder(start)
    _check_folder(folder, start.data, overwrite)
    with _logging() as buffered:
        from ownlatent.train.prepare import prepare

        job = prepare(start, late, network)
        try:
            _make_way(folder)
            (folder / "log.txt").touch()
        except OSError as error:
            raise OwnlatentError(f"cannot write to {folder} ({error.strerror}): give another --out") from error
        with _log_file(folder, buffered):
            return _train(job, folder)


def demo(*, out: str | Path | None = None, overwrite: bool = False, **fields: Any) -> Run:
    """The main job on real photographs that need no download: train, compare with the baselines, draw.

    out: the run folder, by default the first of runs/demo, runs/demo-2, ... that is free. fields: as
    for `pretrain`, such as minutes=1.
    """
    from ownlatent.recipes.photos import photos

    if out is None:
        numbered = (Path("runs") / (f"demo-{n}" if n > 1 else "demo") for n in itertools.count(1))
        out = next(folder for folder in numbered if not folder.exists())
    return pretrain(recipe=photos(), out=out, overwrite=overwrite, **fields)


def load_encoder(folder: str | Path, network: "nn.Module | None" = None) -> "nn.Module":
    """The encoder of a run folder: an nn.Module, images in, (B, D) features out.

    network: a fresh module of the same kind, if the run trained a module of your own.
    """
    from ownlatent.export import encoder

    return encoder.load_encoder(folder, network)


def _resume(out: str | Path | None, fields: dict[str, Any], network: "nn.Module | None") -> Run:
    if out is None and "data" not in fields:
        raise OwnlatentError("name the run to go on with: --out RUN --resume")
    run = Run(out if out is not None else _default_folder(edit(Recipe(), {"data": fields["data"]})))
    recipe = run.recipe
    here = {name: fields.pop(name) for name in _MAY_CHANGE if name in fields}
    recipe = edit(recipe, here)
    changed = [name for name, value in fields.items() if _changes(recipe, name, value)]
    if changed:
        flags = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise OwnlatentError(
            f"a resumed run keeps its recipe, and {flags} would change it: leave that out, or start another run"
        )
    if run.results.get("finished"):
        raise OwnlatentError(f"{run.folder} is finished: there is nothing to resume; give another --out for a new run")
    with _logging() as buffered:
        from ownlatent.train.prepare import prepare

        log.info("resuming   %s", run.folder)
        job = prepare(recipe, network=network)
        with _log_file(run.folder, buffered):
            return _train(job, run.folder, resume=True)


# Where and how a run is computed may differ when it goes on; what it computes may not.
_MAY_CHANGE = ("accelerator", "workers", "checkpoint_seconds")


def _changes(recipe: Recipe, name: str, value: Any) -> bool:
    """Whether an option given beside --resume asks for something else than the run was started with."""
    if value in ("auto", None):  # whatever was chosen then
        return False
    if name in ("data", "val"):
        return Path(value) != Path(getattr(recipe, name) or "")
    return edit(recipe, {name: value}) != recipe


def _train(job: "Job", folder: Path, resume: bool = False) -> Run:
    from ownlatent.evaluate.against_baselines import against_baselines, table
    from ownlatent.export.encoder import save_encoder
    from ownlatent.report.pictures import draw_curves
    from ownlatent.train.environment import environment
    from ownlatent.train.fit import fit
    from ownlatent.train.prepare import calibration_images

    job.recipe.save(folder / "recipe.json")
    if resume:
        _write_json(folder / "env-resumed.json", environment())
    else:
        _write_json(folder / "env.json", environment())
        _draw_example_views(job, folder)
    log.info("folder     %s", folder)
    finished, training = fit(job, folder, resume)
    save_encoder(job.encoder, folder)
    draw_curves(folder)
    # Finished is only what is also judged: a run that is stopped in between judges when it is resumed.
    results: dict[str, Any] = {"finished": False, "training": training, "evaluations": []}
    _write_json(folder / "results.json", results)
    log.info(
        "trained    %d steps in %.1f minutes, %.0f images/s",
        training["steps"],
        training["seconds"] / 60,
        training["images_per_second"],
    )
    if not finished:
        log.info("Stopped early, all is saved. Go on with: ownlatent pretrain --out %s --resume", folder)
    elif job.val is None:
        log.info(
            "Nothing is measured without labels: --val FOLDER, a subfolder for each class, shows what this is worth."
        )
    else:
        train, test = (job.val, None) if job.bank is None else (job.bank, job.val)
        encoders = job.encoder.to(job.device), job.untrained.to(job.device)
        results["evaluations"] = against_baselines(*encoders, train, test, calibration_images(job))
        for line in table(results["evaluations"]):
            log.info(line)
    results["finished"] = finished
    _write_json(folder / "results.json", results)
    return Run(folder, job.encoder.cpu().eval())


def _draw_example_views(job: "Job", folder: Path) -> None:
    from ownlatent.report.pictures import draw_views
    from ownlatent.train.prepare import example_views

    originals, views = example_views(job, count=8)
    draw_views(originals, views, folder / "views.png")


_FILES = (
    "recipe.json",
    "env.json",
    "env-resumed.json",
    "results.json",
    "metrics.csv",
    "log.txt",
    "views.png",
    "curves.png",
    "encoder.json",
    "encoder.safetensors",
)
_FOLDERS = ("checkpoints", "tensorboard")


def _check_folder(folder: Path, data: str, overwrite: bool) -> None:
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
    if Path(data).is_dir() and folder.resolve().is_relative_to(Path(data).resolve()):
        raise OwnlatentError(
            f"{folder} lies inside the images' folder, which would mix pictures in: give another --out"
        )


def _make_way(folder: Path) -> None:
    """An empty run folder: the files of a former run go, anything else in the folder stays."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _write_json(path: Path, content: Any) -> None:
    beside = path.with_suffix(".tmp")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(beside, path)


def _default_folder(recipe: Recipe) -> Path:
    name = "photos" if recipe.data.startswith("photos:") else Path(recipe.data).resolve().name or "images"
    return Path("runs") / f"{name}-{recipe.method}"


class _Buffer(logging.Handler):
    """Keeps what is said before the run folder exists, for its log.txt."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def _logging() -> Iterator[_Buffer]:
    """Print the package's messages to stdout, unless the application set up logging of its own."""
    buffer = _Buffer()
    handlers: list[logging.Handler] = [buffer]
    if not log.handlers and not logging.getLogger().handlers:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(logging.Formatter("%(message)s"))
        console.setLevel(logging.INFO)  # every skipped file is a debug message: log.txt lists them
        handlers.append(console)
    level = log.level
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield buffer
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        log.setLevel(level)


@contextmanager
def _log_file(folder: Path, buffered: _Buffer) -> Iterator[None]:
    file = logging.FileHandler(folder / "log.txt")
    file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    for record in buffered.records:
        file.emit(record)
    log.removeHandler(buffered)
    log.addHandler(file)
    try:
        yield
    finally:
        log.removeHandler(file)
        file.close()
