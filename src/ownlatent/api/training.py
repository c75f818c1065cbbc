"""Runs: started, gone on with, tried before, looked into afterwards."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.errors import OwnlatentError
from ownlatent.log import to_console, to_file
from ownlatent.pretraining import follow, go_on, prepared, train
from ownlatent.recipes.begin import apart, begin, method_for
from ownlatent.run import Run, check_folder, claimed, default_folder, make_way, written
from ownlatent.train import processes
from ownlatent.train.recipe import Recipe, coerce, edit

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.backbones import OwnNetwork
    from ownlatent.backbones.tap import Adapter
    from ownlatent.checks.finding import Finding


def pretrain(
    data: Any = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    extend: str | None = None,
    overwrite: bool = False,
    recipe: str | Path | Recipe | None = None,
    backbone: "str | nn.Module | None" = None,
    adapter: "Adapter | None" = None,
    in_place: bool = False,
    **fields: Any,
) -> Run:
    """Learn an encoder from unlabelled images and say what it is worth; all of it stays in one folder.

    data: what `--help` says that the command takes, or an array, a tensor, or any data set with
    `__len__` and `__getitem__`; a list of these. out: the run folder, by default runs/NAME-METHOD.
    resume: go on with the run in `out`, exactly as if it had not stopped. extend: go on with it for longer than it was
    planned, such as "100ep" or "30min". overwrite: replace it. recipe: one of the method's own by its name, such
    as "imagenet", or a recipe.json to start from. backbone: a name, or a network of your own, a module or FILE.py:NAME.
    adapter: a function of that network and images (B, C, H, W) that gives its output, where its forward takes something
    else. in_place: train the module itself; without it a copy is trained, which is `run.encoder.backbone.net`.
    fields: any field of the recipe by its name or dotted name, such as epochs=100, **{"optim.lr": 0.2}.

    Returns the Run; `.encoder` is an nn.Module. Raises OwnlatentError for anything that is wrong
    with the input, before anything is written.
    """
    if resume and extend is not None:
        raise OwnlatentError("--extend goes on with a run by itself: leave out --resume")
    if (resume or extend is not None) and (overwrite or recipe is not None):
        raise OwnlatentError("--resume and --extend go on with a run as it is: leave out --overwrite and --recipe")
    fields, network, objects = apart(data, backbone, fields, adapter, in_place)
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
    adapter: "Adapter | None" = None,
    **fields: Any,
) -> "Iterator[Finding]":
    """Try a run for some seconds and say what it would need and meet; nothing is written.

    Takes what `pretrain` takes. Yields one Finding after the other; its `state` is "ok", "lacking" or "broken".
    """
    fields, network, objects = apart(data, backbone, fields, adapter)
    start, late = _begin(recipe, fields)
    if processes.count(start) > 1:
        raise OwnlatentError("check tries a run in one process: leave out --devices and --nodes")
    folder = Path(out) if out else default_folder(start)
    with to_console():
        from ownlatent.checks.before import check as look
        from ownlatent.train.prepare import prepare as make_ready

        yield from look(make_ready(start, late, network, objects), folder)


def replay(run: str | Path, network: "str | nn.Module | OwnNetwork | None" = None) -> list[str]:
    """Repeat the step at which a run stopped because something was not finite; lines that say where that began.

    network: where the run trained one of your own, a fresh module, or FILE.py:NAME.
    """
    from ownlatent.backbones import own_network
    from ownlatent.train.failure import replay as repeat

    folder = Run(run).folder
    return repeat(folder, Run(folder).recipe, None if network is None else own_network(network))


def demo(*, out: str | Path | None = None, overwrite: bool = False, **fields: Any) -> Run:
    """The main job on data that need no download, real photographs or made sounds: train, compare, draw.

    out: the run folder, by default the first of runs/demo, runs/demo-2, ... that is free. fields: as
    for `pretrain`, such as minutes=1.
    """
    from ownlatent.recipes import photos, sounds

    modality = coerce(fields.pop("modality", "image"), Recipe.__annotations__["modality"], "modality")
    if out is None:
        numbered = (Path("runs") / (f"demo-{n}" if n > 1 else "demo") for n in itertools.count(1))
        out = next(folder for folder in numbered if not folder.exists())
    given = None if "epochs" in fields else fields.get("minutes", (sounds if modality == "audio" else photos).MINUTES)
    method = fields.get("method") or method_for(edit(Recipe(modality=modality), {"minutes": given}))
    recipe = sounds.sounds(method) if modality == "audio" else photos.photos(method)
    return pretrain(recipe=recipe, out=out, overwrite=overwrite, **fields)


def _begin(recipe: str | Path | Recipe | None, fields: dict[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """As `begin`, for a run, which needs data. Raises OwnlatentError."""
    start, late = begin(recipe, fields)
    if not start.data:
        raise OwnlatentError("name the folder of images: ownlatent pretrain FOLDER")
    return start, late
