"""A pre-training run from its prepared job to its folder, new or gone on with."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ownlatent.augment.channels import suited_to
from ownlatent.errors import OwnlatentError, option
from ownlatent.log import to_console, to_file
from ownlatent.run import Run, default_folder, forget_evaluations, write_json
from ownlatent.train.recipe import Recipe, edit

if TYPE_CHECKING:
    from torch import nn

    from ownlatent.train.fit import Outcome
    from ownlatent.train.prepare import Job

log = logging.getLogger("ownlatent")


def go_on(out: str | Path | None, fields: dict[str, Any], network: "nn.Module | None", objects: dict[str, Any]) -> Run:
    """Go on with the run in `out`, or of the data and method in `fields`. Raises OwnlatentError if it would change."""
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
        flags = ", ".join(map(option, changed))
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
            return train(job, run.folder, resume=True)


# Where and how a run is computed may differ when it goes on; what it computes may not.
_MAY_CHANGE = ("accelerator", "compile", "workers", "checkpoint_seconds", "on_unhealthy")


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


def train(job: "Job", folder: Path, resume: bool = False) -> Run:
    """Train, export, draw and, where there are labels, judge; everything is in `folder` whatever happens."""
    from ownlatent.checks.before import before_training
    from ownlatent.checks.finding import GOOD
    from ownlatent.export.encoder import save_encoder
    from ownlatent.report.health import in_words
    from ownlatent.report.pictures import draw_curves
    from ownlatent.train.environment import environment
    from ownlatent.train.fit import fit

    job.recipe.save(folder / "recipe.json")
    if resume:
        write_json(folder / "env-resumed.json", environment())
    else:
        write_json(folder / "env.json", environment())
        _draw_example_views(job, folder)
    log.info("folder     %s", folder)
    if not resume:
        for finding in before_training(job, folder):
            log.log(logging.DEBUG if finding.state == GOOD else logging.WARNING, "%s", finding)
    outcome = fit(job, folder, resume)
    training, health = outcome.training, outcome.health
    # Finished is only what is also judged: a run that is stopped in between judges when it is resumed.
    forget_evaluations(folder)
    results: dict[str, Any] = {"finished": False, "training": training, "health": health, "evaluations": []}
    write_json(folder / "results.json", results)
    if outcome.encoder_step is not None:
        save_encoder(job.encoder, folder)
    draw_curves(folder)
    log.info(
        "trained    %d steps in %.1f minutes, %.0f images/s",
        training["steps"],
        training["seconds"] / 60,
        training["images_per_second"],
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
    else:
        _judge(job, Run(folder, job.encoder))
        results = Run(folder).results
    results["finished"] = outcome.finished
    write_json(folder / "results.json", results)
    return Run(folder, job.encoder.cpu().eval())


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
        pairs = open_pairs([recipe.data] if job.bank is not None else [], [recipe.val], options)
    evaluate(run, pairs, options, job.device, job.untrained)


def _draw_example_views(job: "Job", folder: Path) -> None:
    from ownlatent.report.pictures import draw_views
    from ownlatent.train.images import example_views

    originals, views = example_views(job.data, job.views, job.recipe.seed, count=8)
    draw_views(originals, views, folder / "views.png")
