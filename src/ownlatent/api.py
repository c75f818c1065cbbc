"""The front door: the verbs of the command line, as functions."""

import itertools
import logging
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.files import replace_file
from ownlatent.log import to_console, to_file
from ownlatent.pretraining import follow, go_on, prepared, train
from ownlatent.recipes.begin import apart, begin, method_for
from ownlatent.run import Run, check_folder, claimed, default_folder, lies_among, make_way, written
from ownlatent.train import processes
from ownlatent.train.recipe import Recipe, coerce, edit

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.checks.finding import Finding

log = logging.getLogger("ownlatent")


def pretrain(
    data: Any = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    extend: str | None = None,
    overwrite: bool = False,
    recipe: str | Path | Recipe | None = None,
    backbone: "str | nn.Module | None" = None,
    **fields: Any,
) -> Run:
    """Learn an encoder from unlabelled images and say what it is worth; all of it stays in one folder.

    data: what `--help` says that the command takes, or an array, a tensor, or any data set with
    `__len__` and `__getitem__`; a list of these. out: the run folder, by default runs/NAME-METHOD.
    resume: go on with the run in `out`, exactly as if it had not stopped. extend: go on with it for longer than it was
    planned, such as "100ep" or "30min". overwrite: replace it. recipe: one of the method's own by its name, such
    as "imagenet", or a recipe.json to start from. backbone: a name or a module of your own, trained in place.
    fields: any field of the recipe by its name or dotted name, such as epochs=100, **{"optim.lr": 0.2}.

    Returns the Run; `.encoder` is an nn.Module. Raises OwnlatentError for anything that is wrong
    with the input, before anything is written.
    """
    if resume and extend is not None:
        raise OwnlatentError("--extend goes on with a run by itself: leave out --resume")
    if (resume or extend is not None) and (overwrite or recipe is not None):
        raise OwnlatentError("--resume and --extend go on with a run as it is: leave out --overwrite and --recipe")
    fields, network, objects = apart(data, backbone, fields)
    if resume or extend is not None:
        return go_on(out, fields, network, objects, extend)
    start, late = _begin(recipe, fields)
    start = processes.started_with(start)
    folder = Path(out) if out else default_folder(start)
    if processes.number(start) > 0:
        return follow(lambda: prepared(start, late, network, objects), folder)
    check_folder(folder, start.data, overwrite)
    with to_console() as buffered:
        job = prepared(start, late, network, objects)
        with claimed(folder), written(folder):
            check_folder(folder, start.data, overwrite)  # once more: nobody else can write there now
            make_way(folder)
            job.recipe.save(folder / "recipe.json")  # first of all: a folder without it is not taken for a run's
            with to_file(folder, buffered):
                return train(job, folder)


def check(
    data: Any = None,
    *,
    out: str | Path | None = None,
    recipe: str | Path | Recipe | None = None,
    backbone: "str | nn.Module | None" = None,
    **fields: Any,
) -> "Iterator[Finding]":
    """Try a run for some seconds and say what it would need and meet; nothing is written.

    Takes what `pretrain` takes. Yields one Finding after the other; its `state` is "ok", "lacking" or "broken".
    """
    fields, network, objects = apart(data, backbone, fields)
    start, late = _begin(recipe, fields)
    if processes.count(start) > 1:
        raise OwnlatentError("check tries a run in one process: leave out --devices and --nodes")
    folder = Path(out) if out else default_folder(start)
    with to_console():
        from ownlatent.checks.before import check as look
        from ownlatent.train.prepare import prepare as make_ready

        yield from look(make_ready(start, late, deepcopy(network), objects), folder)


def doctor() -> "Iterator[Finding]":
    """What this installation can do and what is missing, one Finding after the other."""
    from ownlatent.checks.doctor import examine

    return examine()


def replay(run: str | Path, network: "nn.Module | None" = None) -> list[str]:
    """Repeat the step at which a run stopped because something was not finite; lines that say where that began.

    network: a fresh module, where the run trained one of your own.
    """
    from ownlatent.train.failure import replay as repeat

    folder = Run(run).folder
    return repeat(folder, Run(folder).recipe, network)


def demo(*, out: str | Path | None = None, overwrite: bool = False, **fields: Any) -> Run:
    """The main job on real photographs that need no download: train, compare with the baselines, draw.

    out: the run folder, by default the first of runs/demo, runs/demo-2, ... that is free. fields: as
    for `pretrain`, such as minutes=1.
    """
    from ownlatent.recipes.photos import MINUTES, photos

    if out is None:
        numbered = (Path("runs") / (f"demo-{n}" if n > 1 else "demo") for n in itertools.count(1))
        out = next(folder for folder in numbered if not folder.exists())
    given = None if "epochs" in fields else fields.get("minutes", MINUTES)
    method = fields.get("method") or method_for(edit(Recipe(), {"minutes": given}).minutes)
    return pretrain(recipe=photos(method), out=out, overwrite=overwrite, **fields)


def evaluate(
    run: str | Path | Run,
    *,
    train: Any = None,
    test: Any = None,
    network: "nn.Module | None" = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """Say whether an encoder is better than what one could have had without it, and by how much.

    run: a run or its folder. train, test: labelled images, as `pretrain` takes them, or equally long lists of such
    for several data sets; with one of them alone, k-NN classifies each image by the others. network: a fresh module,
    where the run trained one of your own. fields: the options of `ownlatent evaluate --help` by name.

    Returns the entries that results.json then holds. Raises OwnlatentError for anything wrong with the input.
    """
    from ownlatent.proof.settings import settings

    options = settings(fields, coerce)
    run = run if isinstance(run, Run) else Run(run)
    trains, tests = _as_list(train), _as_list(test)
    if not trains and not tests:
        raise OwnlatentError("name labelled images: --train DATA --test DATA")
    if trains and tests and len(trains) != len(tests):
        raise OwnlatentError(f"--train is given {len(trains)} times and --test {len(tests)} times: give them in pairs")
    if not (trains and tests) and "protocols" not in fields:
        options = settings({**fields, "protocols": "knn"}, coerce)
    with to_console() as buffered:
        from ownlatent.export.encoder import load_encoder as load_trained
        from ownlatent.proof.evaluate import evaluate as judge
        from ownlatent.proof.evaluate import open_pairs, untrained_of
        from ownlatent.train.images import choose_device

        encoder = run.encoder if network is None else load_trained(run.folder, deepcopy(network))
        device = choose_device(options.accelerator)
        pairs = open_pairs(trains, tests, options)
        untrained = untrained_of(run, encoder, network, options)
        with claimed(run.folder), to_file(run.folder, buffered):
            return judge(Run(run.folder, encoder), pairs, options, device, untrained)


def compare(*runs: str | Path, out: str | Path | None = None, overwrite: bool = False) -> list[str]:
    """Evaluated runs side by side, and by how much each is ahead of the first: lines of a table.

    out: a .csv or .md file to write the table to; overwrite: replace it if it is there. Raises OwnlatentError if the
    runs were not evaluated alike, naming the settings that differ.
    """
    from ownlatent.report.compare import compare as side_by_side
    from ownlatent.report.tables import aligned, as_csv, as_markdown

    if len(runs) < 2:
        raise OwnlatentError("name two runs or more: ownlatent compare RUN RUN")
    if len(set(map(str, runs))) < len(runs):
        raise OwnlatentError("a run is named twice: name different ones")
    found = {str(run): (Run(run).results["evaluations"], Run(run).folder / "predictions.npz") for run in runs}
    header, body, left_out = side_by_side(found)
    if out is not None:
        path = Path(out)
        if path.suffix not in (".csv", ".md"):
            raise OwnlatentError(f"{path} is no kind of table that can be written: end --out in .csv or .md")
        if path.exists() and not overwrite:
            raise OwnlatentError(f"{path} is already there: replace it by --overwrite, or give another --out")
        try:
            replace_file(path, (as_csv if path.suffix == ".csv" else as_markdown)(header, body).encode())
        except OSError as error:
            raise OwnlatentError(f"cannot write {path} ({error.strerror}): give another --out") from error
    return [*aligned(header, body), *(f"not compared: {line}" for line in left_out)]


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


def _begin(recipe: str | Path | Recipe | None, fields: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """As `begin`, for a run, which needs data. Raises OwnlatentError."""
    start, late = begin(recipe, fields)
    if not start.data:
        raise OwnlatentError("name the folder of images: ownlatent pretrain FOLDER")
    return start, late


def _as_list(value: Any) -> list[Any]:
    """Several data sets from one or a list of them."""
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
