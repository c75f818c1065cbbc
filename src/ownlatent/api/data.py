"""Images before training: looked at, made smaller."""

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ownlatent.errors import OwnlatentError
from ownlatent.log import to_console
from ownlatent.recipes.begin import begin
from ownlatent.run import lies_among
from ownlatent.train.recipe import Recipe, coerce, edit

log = logging.getLogger("ownlatent")


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
        from ownlatent.reporting.pictures import draw_views
        from ownlatent.train.preview import preview as make

        originals, views, lines = make(start, late, count)
        for line in lines:
            log.info(line)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_views(originals, views, path, start.modality)
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
