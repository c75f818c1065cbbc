"""The front door: the verbs of the command line, as functions."""

import itertools
import logging
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.augment.channels import suited_to
from ownlatent.errors import OwnlatentError
from ownlatent.log import to_console, to_file
from ownlatent.recipes.begin import begin
from ownlatent.run import Run, check_folder, default_folder, lies_among, make_way, write_json
from ownlatent.train.recipe import Recipe, coerce, edit

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.train.prepare import Job

log = logging.getLogger("ownlatent")


def pretrain(
    data: Any = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    recipe: str | Path | Recipe | None = None,
    backbone: "str | nn.Module | None" = None,
    **fields: Any,
) -> Run:
    """Learn an encoder from unlabelled images and say what it is worth; all of it stays in one folder.

    data: what `--help` says that the command takes, or an array, a tensor, or any data set with
    `__len__` and `__getitem__`; a list of these. out: the run folder, by default runs/NAME-METHOD.
    resume: go on with the run in `out`. overwrite: replace it. recipe: one of the method's own by its name, such
    as "imagenet", or a recipe.json to start from. backbone: a name or a module of your own, trained in place.
    fields: any field of the recipe by its name or dotted name, such as epochs=100, **{"optim.lr": 0.2}.

    Returns the Run; `.encoder` is an nn.Module. Raises OwnlatentError for anything that is wrong
    with the input, before anything is written.
    """
    network = None if backbone is None or isinstance(backbone, str) else backbone
    if isinstance(backbone, str):
        fields["backbone"] = backbone
    objects = {}  # what cannot be named in a recipe, and has to be given again to go on
    for name, value in (("data", data), ("val", fields.get("val"))):
        if isinstance(value, (list, tuple)) and all(_is_plain(each) for each in value):
            value = ",".join(map(str, value))
        if value is not None and not isinstance(value, (str, Path)):
            objects[name] = value
            value = f"object:{type(value).__name__}"
        if value is not None:
            fields[name] = str(value)
    if resume and (overwrite or recipe is not None):
        raise OwnlatentError("--resume goes on with a run as it is: leave out --overwrite and --recipe")
    if resume:
        return _resume(out, fields, network, objects)
    start, late = begin(recipe, fields)
    if not start.data:
        raise OwnlatentError("name the folder of images: ownlatent pretrain FOLDER")
    folder = Path(out) if out else default_folder(start)
    check_folder(folder, start.data, overwrite)
    with to_console() as buffered:
        from ownlatent.train.prepare import prepare as make_ready

        job = make_ready(start, late, network, objects)
        try:
            make_way(folder)
            (folder / "log.txt").touch()
        except OSError as error:
            raise OwnlatentError(f"cannot write to {folder} ({error.strerror}): give another --out") from error
        with to_file(folder, buffered):
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
    return pretrain(recipe=photos(fields.get("method", "byol")), out=out, overwrite=overwrite, **fields)


def preview(
    data: str | Path,
    *,
    out: str | Path = "views.png",
    count: int = 8,
    overwrite: bool = False,
    recipe: str | Path | Recipe | None = None,
    **fields: Any,
) -> Path:
    """Draw what the network would see: images of `data`, and under each its views. Returns the picture's path.

    recipe, fields: as for `pretrain`, of which those count that concern the views.
    """
    path, count = Path(out), coerce(count, int, "count")
    if path.exists() and not overwrite:
        raise OwnlatentError(f"{path} is there already: give another --out, or --overwrite")
    if lies_among(path, str(data)):
        raise OwnlatentError(f"{path} would lie among the images and be taken for one: give another --out")
    if count < 1:
        raise OwnlatentError(f"--count must be at least 1, not {count}")
    start, late = begin(recipe, {**fields, "data": str(data)})
    with to_console():
        from ownlatent.report.pictures import draw_views
        from ownlatent.train.preview import preview as make

        originals, views, lines = make(start, late, count)
        for line in lines:
            log.info(line)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_views(originals, views, path)
        except OSError as error:
            raise OwnlatentError(f"cannot write {path} ({error.strerror}): give another --out") from error
        except ValueError as error:  # matplotlib's answer to an ending that it does not know
            raise OwnlatentError(f"{path} is no picture that can be written ({error}): end --out in .png") from error
        log.info("wrote      %s", path)
    return path


def prepare(
    data: str | Path, out: str | Path, *, max_side: int = 512, labelled: bool = False, **fields: Any
) -> dict[str, Any]:
    """Write large photographs once as small ones, in tar shards that `pretrain` takes: epochs become faster.

    max_side: the longer side of what is written, in pixels. labelled: keep the classes (by subfolder).
    Returns the content of prepared.json in `out`: counts, bytes, and the seconds of an epoch before and after.
    """
    max_side, labelled = coerce(max_side, int, "max_side"), coerce(labelled, bool, "labelled")
    recipe = edit(Recipe(), {**fields, "data": str(data)})
    if lies_among(Path(out), recipe.data):
        raise OwnlatentError(f"{out} would lie among the images: give another folder")
    with to_console():
        from ownlatent.data.prepared import prepare as write
        from ownlatent.train.images import open_data, say_progress

        source = open_data(recipe, recipe.data, labelled)
        log.info("data       %s: %d images", source.name, len(source))
        report = write(source, Path(out), max_side, progress=say_progress("written"))
        counts = report.images, report.shrunk, report.shards
        log.info("wrote      %d images, %d of them made smaller, %d shards in %s", *counts, out)
        log.info("size       %.1f MB, before %.1f MB", report.bytes_after / 1e6, report.bytes_before / 1e6)
        if report.skipped:
            log.warning("skipped %d files that cannot be read; prepared.json lists them", len(report.skipped))
        before, after = report.epoch_seconds_before, report.epoch_seconds_after
        log.info(
            "epoch      %s of decoding and cropping on one core, before %s: %.1fx as fast (told from a sample)",
            *(f"{after:.3g} s", f"{before:.3g} s", before / max(after, 1e-9)),
        )
        log.info("Train on it with: ownlatent pretrain %s", out)
    return asdict(report)


def catalogue(what: str, width: int = 100) -> list[str]:
    """Lines about the methods, their recipes or the tables of views: what `ownlatent list` prints."""
    from ownlatent.report.catalogue import catalogue as lines

    return lines(what, width)


def load_encoder(folder: str | Path, network: "nn.Module | None" = None) -> "nn.Module":
    """The encoder of a run folder: an nn.Module, images in, (B, D) features out.

    network: a fresh module of the same kind, if the run trained a module of your own.
    """
    from ownlatent.export import encoder

    return encoder.load_encoder(folder, network)


def _is_plain(name: Any) -> bool:
    """Whether a name can stand in a list with commas between."""
    return isinstance(name, (str, Path)) and not set(",{}") & set(str(name))


def _resume(
    out: str | Path | None, fields: dict[str, Any], network: "nn.Module | None", objects: dict[str, Any]
) -> Run:
    if out is None and "data" not in fields:
        raise OwnlatentError("name the run to go on with: --out RUN --resume")
    named: dict[str, Any] = {name: fields[name] for name in ("data", "method") if name in fields}
    run = Run(out if out is not None else default_folder(edit(Recipe(), named)))
    recipe = run.recipe
    here = {name: fields.pop(name) for name in _MAY_CHANGE if name in fields}
    recipe = edit(recipe, here)
    changed = [name for name, value in fields.items() if _changes(recipe, name, value)]
    changed += _changed_views(recipe, fields)
    if changed:
        flags = ", ".join("--" + name.replace("_", "-") for name in changed)
        raise OwnlatentError(
            f"a resumed run keeps its recipe, and {flags} would change it: leave that out, or start another run"
        )
    if run.results.get("finished"):
        raise OwnlatentError(f"{run.folder} is finished: there is nothing to resume; give another --out for a new run")
    with to_console() as buffered:
        from ownlatent.train.prepare import prepare as make_ready

        log.info("resuming   %s", run.folder)
        job = make_ready(recipe, network=network, objects=objects)
        with to_file(run.folder, buffered):
            return _train(job, run.folder, resume=True)


# Where and how a run is computed may differ when it goes on; what it computes may not.
_MAY_CHANGE = ("accelerator", "workers", "checkpoint_seconds")


def _changes(recipe: Recipe, name: str, value: Any) -> bool:
    """Whether an option given beside --resume asks for something else than the run was started with."""
    if value in ("auto", None) or name.partition(".")[0] == "views":  # whatever was chosen then; views: see below
        return False
    if name in ("data", "val"):
        return Path(value) != Path(getattr(recipe, name) or "")
    return edit(recipe, {name: value}) != recipe


def _changed_views(recipe: Recipe, fields: dict[str, Any]) -> list[str]:
    """Those options for views that would make others; what the images' channels left out of them is no change."""
    given = {name: value for name, value in fields.items() if name.partition(".")[0] == "views"}
    views = edit(recipe, given).views or ()
    same = any(suited_to(views, channels)[0] == recipe.views for channels in (1, 2, 3))
    return [] if same else list(given)


def _train(job: "Job", folder: Path, resume: bool = False) -> Run:
    from ownlatent.evaluate.against_baselines import against_baselines, table
    from ownlatent.export.encoder import save_encoder
    from ownlatent.report.pictures import draw_curves
    from ownlatent.train.environment import environment
    from ownlatent.train.fit import fit
    from ownlatent.train.prepare import calibration_images

    job.recipe.save(folder / "recipe.json")
    if resume:
        write_json(folder / "env-resumed.json", environment())
    else:
        write_json(folder / "env.json", environment())
        _draw_example_views(job, folder)
    log.info("folder     %s", folder)
    finished, training = fit(job, folder, resume)
    save_encoder(job.encoder, folder)
    draw_curves(folder)
    # Finished is only what is also judged: a run that is stopped in between judges when it is resumed.
    results: dict[str, Any] = {"finished": False, "training": training, "evaluations": []}
    write_json(folder / "results.json", results)
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
    write_json(folder / "results.json", results)
    return Run(folder, job.encoder.cpu().eval())


def _draw_example_views(job: "Job", folder: Path) -> None:
    from ownlatent.report.pictures import draw_views
    from ownlatent.train.images import example_views

    originals, views = example_views(job.data, job.views, job.recipe.seed, count=8)
    draw_views(originals, views, folder / "views.png")
