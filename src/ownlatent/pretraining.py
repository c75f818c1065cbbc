"""A pre-training run from its prepared job to its folder, new or gone on with."""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.augment.channels import suited_to
from ownlatent.errors import OwnlatentError, option
from ownlatent.files import write_json
from ownlatent.log import to_console, to_file
from ownlatent.run import Run, claimed, default_folder, forget_evaluations, written
from ownlatent.train import processes
from ownlatent.train.recipe import Recipe, edit
from ownlatent.types import NOUNS

if TYPE_CHECKING:
    from ownlatent.backbones import OwnNetwork
    from ownlatent.train.fit import Outcome
    from ownlatent.train.prepare import Job

log = logging.getLogger("ownlatent")


def go_on(
    out: str | Path | None,
    fields: dict[str, Any],
    network: "OwnNetwork | None",
    objects: dict[str, Any],
    extend: str | None = None,
) -> Run:
    """Go on with the run in `out`, or of the data and method in `fields`; extend: for so much longer than planned.

    Raises OwnlatentError if anything else would change, naming what it is and what is asked for.
    """
    if out is None and "data" not in fields:
        word = "--resume" if extend is None else f"--extend {extend}"
        raise OwnlatentError(f"name the run to go on with: --out RUN {word}")
    named: dict[str, Any] = {name: fields[name] for name in ("data", "method") if name in fields}
    folder = Path(out) if out is not None else default_folder(edit(Recipe(), named))
    recipe, planned = _going_on(Run(folder), fields, extend)
    if processes.number(planned) > 0:
        return follow(lambda: _ready(folder, planned, network, objects), folder, resume=True)
    with to_console() as buffered:
        log.info("resuming   %s", folder)
        job = _ready(folder, planned, network, objects)
        with claimed(folder), written(folder), to_file(folder, buffered):
            run = Run(folder)
            if _going_on(run, fields, extend)[0] != recipe:
                raise OwnlatentError(f"{folder} was gone on with by another process meanwhile: give the command again")
            extensions = run.results.get("extensions", [])
            if extend is not None:
                extensions = [*extensions, _replanned(run, recipe, planned)]
            _say_processes(recipe, planned)
            return train(job, folder, resume=True, extensions=extensions)


def _going_on(run: Run, fields: dict[str, Any], extend: str | None) -> tuple[Recipe, Recipe]:
    """The recipe that a run has, and the one that it goes on by. Raises OwnlatentError if they differ too much."""
    recipe = run.recipe
    before = replace(recipe, devices=1, nodes=1) if processes.started_elsewhere() else recipe
    here = processes.started_with(edit(before, {name: fields[name] for name in _MAY_CHANGE if name in fields}))
    others = {name: value for name, value in fields.items() if name not in _MAY_CHANGE}
    changed = [_difference(recipe, name, value) for name, value in others.items() if _changes(recipe, name, value)]
    changed += [option(name) for name in _changed_views(recipe, others)]
    if changed:
        raise OwnlatentError(
            f"a run that goes on keeps its recipe, and {', '.join(changed)} would change it: leave that out, or start "
            "another run (--init-from takes the weights along)"
        )
    if run.results.get("finished") and extend is None:
        raise OwnlatentError(
            f"{run.folder} is finished: there is nothing to resume; --extend {'10min' if recipe.minutes else '20ep'} "
            "goes on for longer, another --out starts a new run"
        )
    return recipe, here if extend is None else extended(here, extend)


def prepared(recipe: Recipe, late: dict[str, Any], network: "OwnNetwork | None", objects: dict[str, Any]) -> "Job":
    """As `train.prepare.prepare`, which brings torch, imported when it is needed."""
    from ownlatent.train.prepare import prepare

    return prepare(recipe, late, network, objects)


def _ready(folder: Path, recipe: Recipe, network: "OwnNetwork | None", objects: dict[str, Any]) -> "Job":
    """The job of a run that goes on. If it has a checkpoint, what it began with is in there: that file may be gone."""
    begun = any((folder / "checkpoints").glob("*.ckpt"))
    job = prepared(replace(recipe, init_from=None) if begun else recipe, {}, network, objects)
    job.recipe = replace(job.recipe, init_from=recipe.init_from)
    return job


def _say_processes(before: Recipe, now: Recipe) -> None:
    """What another number of processes changes in a run that goes on."""
    if processes.count(before) != processes.count(now):
        log.info(
            "processes  %d instead of %d: batches and views are the same; sums over them are rounded otherwise, and "
            "BatchNorm without synchronisation sees parts of another size, so the run is not the same to the bit",
            *(processes.count(now), processes.count(before)),
        )


def follow(make_ready: "Callable[[], Job]", folder: Path, resume: bool = False) -> Run:
    """What every process but the first does: train along, without a word, and write nothing."""
    from ownlatent.train.fit import fit, silently

    with silently():
        job = make_ready()
        fit(job, folder, resume)
    return Run(folder, job.encoder.cpu().eval())


def extended(recipe: Recipe, by: str) -> Recipe:
    """The recipe of a longer run. by: such as 100ep or 30min, in the unit that the run was planned in."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ep|min)", by.strip())
    if match is None or not float(match[1]) > 0:
        raise OwnlatentError(f"--extend takes epochs as in 100ep or minutes as in 30min, not {by!r}")
    unit = "epochs" if match[2] == "ep" else "minutes"
    planned = getattr(recipe, unit)
    if planned is None:
        other, ending = ("minutes", "min") if unit == "epochs" else ("epochs", "ep")
        raise OwnlatentError(f"the run is planned in {other}: give --extend in {other} too, as in {match[1]}{ending}")
    return edit(recipe, {unit: planned + float(match[1])})


def _replanned(run: Run, recipe: Recipe, longer: Recipe) -> dict[str, Any]:
    """Say what becomes of the schedules of a run that is made longer, and keep it."""
    from ownlatent.optim.schedules import warmup_cosine

    unit = "epochs" if recipe.epochs is not None else "minutes"
    before, after = getattr(recipe, unit), getattr(longer, unit)
    log.info("extended   from %g to %g %s", before, after, unit)
    rows, optim = run.metrics, recipe.optim
    if rows and rows[-1]["progress"] is not None and optim.lr is not None and optim.warmup is not None:
        progress = rows[-1]["progress"] * before / after
        lr = warmup_cosine(progress, optim.lr, optim.warmup, end=optim.lr * (optim.end_lr or 0.0))
        log.info(
            "           every schedule is that of the longer run from here: at %.0f %% of it, the learning rate goes "
            "from %.3g to %.3g",
            *(100 * progress, rows[-1]["lr"], lr),
        )
    step = int(rows[-1]["step"] or 0) if rows else 0
    return {"after_step": step, "unit": unit, "from": before, "to": after}


# Where and how a run is computed may differ when it goes on; what it computes may not.
_MAY_CHANGE = (
    "accelerator",
    "devices",
    "nodes",
    "compile",
    "workers",
    "checkpoint_seconds",
    "keep_checkpoints",
    "on_unhealthy",
)


def _changes(recipe: Recipe, name: str, value: Any) -> bool:
    """Whether an option given beside --resume asks for something else than the run was started with."""
    if value in ("auto", None) or name.partition(".")[0] == "views":  # whatever was chosen then; views: see below
        return False
    if name in ("data", "val"):
        return Path(value) != Path(getattr(recipe, name) or "")
    return edit(recipe, {name: value}) != recipe


def _difference(recipe: Recipe, name: str, value: Any) -> str:
    """An option as it was given, and what the run has."""
    held: Any = asdict(recipe)
    for part in name.replace("-", "_").split("."):
        part = f"{part}_settings" if f"{part}_settings" in held else part
        held = held.get(part) if isinstance(held, dict) else None
    return f"{option(name)} {value} (the run has {'none' if held is None else held})"


def _changed_views(recipe: Recipe, fields: dict[str, Any]) -> list[str]:
    """Those options for views that would make others; what the images' channels left out of them is no change."""
    given = {name: value for name, value in fields.items() if name.partition(".")[0] == "views"}
    views = edit(recipe, given).views or ()
    same = any(suited_to(views, channels)[0] == recipe.views for channels in (1, 2, 3))
    return [] if same else list(given)


def train(job: "Job", folder: Path, resume: bool = False, extensions: Sequence[dict[str, Any]] = ()) -> Run:
    """Train, export, draw and, where there are labels, judge; everything is in `folder` whatever happens.

    extensions: by how much a run was made longer, and when, for results.json.
    """
    from ownlatent.checks.before import before_training
    from ownlatent.checks.finding import GOOD
    from ownlatent.export.encoder import save_encoder
    from ownlatent.proof.gallery import keep_training_gallery
    from ownlatent.reporting.health import in_words
    from ownlatent.reporting.page import write_report
    from ownlatent.reporting.pictures import draw_curves
    from ownlatent.train.environment import environment
    from ownlatent.train.fit import fit

    if resume:
        write_json(folder / "env-resumed.json", environment())
    else:
        write_json(folder / "env.json", environment())
        _draw_example_views(job, folder)
    log.info("folder     %s", folder)
    if not resume:
        for finding in before_training(job, folder):
            log.log(logging.DEBUG if finding.state == GOOD else logging.WARNING, "%s", finding)
    outcome = fit(job, folder, resume, lambda: _begun(job.recipe, folder, extensions))
    training, health = outcome.training, outcome.health
    # Finished is only what is also judged: a run that is stopped in between judges when it is resumed.
    forget_evaluations(folder)
    results: dict[str, Any] = {"finished": False, "training": training, "health": health, "evaluations": []}
    results |= {"extensions": list(extensions)} if extensions else {}
    results |= {"stopped_by": outcome.stopped_by} if outcome.stopped_by and not outcome.finished else {}
    write_json(folder / "results.json", results)
    if outcome.encoder_step is not None:
        save_encoder(job.encoder, folder)
    draw_curves(folder)
    log.info(
        "trained    %d steps in %.1f minutes, %.0f %s/s",
        training["steps"],
        training["seconds"] / 60,
        training["images_per_second"],
        NOUNS[job.recipe.modality],
    )
    for line in in_words(health):
        log.info(line)
    if health["stopped"]:
        _say_stopped(outcome, folder)
    elif not outcome.finished:
        log.info("Stopped early, all is saved. Go on with: ownlatent pretrain --out %s --resume", folder)
    elif job.val is None:
        log.info(
            "Nothing is measured without labels: --val FOLDER, a subfolder for each class, shows what this is worth."
        )
        keep_training_gallery(job, folder)
    else:
        _judge(job, Run(folder, job.encoder))
        results = Run(folder).results
    results["finished"] = outcome.finished
    write_json(folder / "results.json", results)
    write_report(folder)
    return Run(folder, job.encoder.cpu().eval())


def _begun(recipe: Recipe, folder: Path, extensions: Sequence[dict[str, Any]]) -> None:
    """What a run that goes on changes in its folder."""
    recipe.save(folder / "recipe.json")
    if extensions:
        write_json(folder / "results.json", {**Run(folder).results, "finished": False, "extensions": list(extensions)})


def _say_stopped(outcome: "Outcome", folder: Path) -> None:
    if outcome.failed:
        step = outcome.encoder_step
        encoder = (
            "There is no encoder yet" if step is None else f"The encoder is that of step {step}, the last checkpoint"
        )
        log.info("Stopped before the weights were touched. %s.", encoder)
        log.info("Where it began: ownlatent replay %s", folder)
    else:
        log.info(
            "Stopped: more training would not help. All is saved; `ownlatent pretrain --out %s --resume --on-unhealthy "
            "warn` goes on all the same.",
            folder,
        )


def _judge(job: "Job", run: Run) -> None:
    """k-NN beside the baselines that cost no training: by the labelled training images, or each by the others."""
    from ownlatent.data.labelled import Labelled
    from ownlatent.proof.evaluate import evaluate, open_pairs
    from ownlatent.proof.settings import Evaluation

    recipe = job.recipe
    assert job.val is not None and recipe.val is not None
    options = Evaluation(
        protocols="knn", k="20", without="supervised", data_root=recipe.data_root, download=recipe.download
    )
    pairs: list[tuple[Labelled, Labelled | None]] = [(Labelled(job.val), None)]
    if not recipe.val.startswith("object:"):
        # Opened again, as `ownlatent evaluate` does, which then knows what was measured here.
        pairs = open_pairs([recipe.data] if job.bank is not None else [], [recipe.val], options, recipe.modality)
    evaluate(run, pairs, options, job.device, job.untrained)


def _draw_example_views(job: "Job", folder: Path) -> None:
    from ownlatent.reporting.pictures import draw_views
    from ownlatent.train.images import example_views

    originals, views = example_views(job.data, job.views, job.recipe.seed, count=8)
    draw_views(originals, views, folder / "views.png", job.recipe.modality)
