"""Train a prepared job with Lightning, into its run folder."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger

from ownlatent.data.frames import Frames
from ownlatent.data.loader import Batches, ResidentLoader, StreamingLoader
from ownlatent.data.resident import Resident
from ownlatent.data.source import EncodedSource
from ownlatent.diagnostics.verdict import STARVED, Setting, judge
from ownlatent.machine import cores, keep_freed_memory
from ownlatent.train import processes
from ownlatent.train.callbacks.checkpoint import Checkpointing
from ownlatent.train.callbacks.health import Health
from ownlatent.train.callbacks.interrupt import Interruption, StopAtOnce, handlers_kept
from ownlatent.train.callbacks.knn import KNNMonitor
from ownlatent.train.callbacks.metrics import Metrics, read_rows
from ownlatent.train.callbacks.progress import ProgressBar
from ownlatent.train.callbacks.statistics import Statistics
from ownlatent.train.callbacks.together import Together
from ownlatent.train.checkpoints import Checkpoints
from ownlatent.train.compile import compiled
from ownlatent.train.finite import NotFinite
from ownlatent.train.module import Pretraining
from ownlatent.train.prepare import Job
from ownlatent.train.recipe import Recipe
from ownlatent.train.resolve import usual_lr

log = logging.getLogger("ownlatent")
_WAITED = 0.1  # share of the time spent waiting for data above which it is named
_PRECISION = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


@dataclass(frozen=True)
class Outcome:
    """How training ended.

    finished: the budget is spent. training: {"steps", "images", "seconds", "images_per_second"}. health: the verdict,
    and "said", every change of its word on the way. encoder_step: the step after which the weights were as they are
    now, or None where a run failed before its first checkpoint.
    """

    finished: bool
    training: dict[str, float]
    health: dict[str, Any]
    encoder_step: int | None
    failed: bool = False
    """A loss or gradient was not finite, and its step is kept."""
    stopped_by: str | None = None
    """SIGINT or SIGTERM, if one of them ended it early."""


def fit(job: Job, folder: Path, resume: bool = False, begun: Callable[[], None] = lambda: None) -> Outcome:
    """Train until the budget is spent, Ctrl-C is pressed or it makes no sense; everything is in `folder` either way.

    resume: go on from the folder's checkpoint, or start if it has none yet. begun: called by the first process when all
    of them have begun. Where a loss or gradient is not finite the weights are those of the last checkpoint afterwards.
    Raises OwnlatentError if the checkpoint cannot be read.
    """
    recipe = job.recipe
    assert recipe.batch_size and recipe.views and recipe.workers is not None
    keep_freed_memory()
    checkpoints = Checkpoints(folder, recipe.keep_checkpoints)
    first = processes.number(recipe) == 0
    checkpoint, stored = (checkpoints.newest(tidy=first) if resume else None) or (None, None)
    seen = stored["ownlatent"]["batches_seen"] if stored else 0

    count = processes.count(recipe)
    batches = Batches(
        *(len(job.data), recipe.batch_size // recipe.accumulate, recipe.seed, seen), processes.number(recipe), count
    )
    loader: ResidentLoader | StreamingLoader
    if isinstance(job.data, Resident):
        loader = ResidentLoader(job.data, batches, job.device, job.method.uses_labels)
    else:
        loader = StreamingLoader(
            *(job.data, recipe.views, recipe.size, batches),
            workers=0 if isinstance(job.data, Frames) else recipe.workers,
            max_unreadable=recipe.max_unreadable,
            labelled=job.method.uses_labels,
        )
    if count > 1:
        processes.synchronize(job.method, recipe)
    module = Pretraining(job.method.to(memory_format=torch.channels_last), job.views, recipe, job.budget)
    if stored and job.budget.progress(stored["global_step"], stored["ownlatent"]["elapsed"]) >= 1:
        module.load_state_dict(stored["state_dict"])  # trained to the end, and stopped while it was judged
        step = stored["global_step"]
        summary = _summary(step, seen * batches.batch_size, stored["ownlatent"]["elapsed"])
        verdict = judge(read_rows(folder / "metrics.csv"), setting_of(recipe))
        said = stored["callbacks"]["Together"]["Health"]["said"]
        return Outcome(True, summary, {**verdict.as_dict(), "stopped": False, "said": said}, step)
    statistics = Statistics(job.method, batches.share)
    metrics = Metrics(folder, loader, statistics, job.steps_per_epoch, every=_every(job))
    interruption = Interruption()
    setting = setting_of(recipe, against_waiting(job))
    health = Health(folder, metrics, setting, batches, stop=recipe.on_unhealthy == "stop")
    checkpointing = Checkpointing(checkpoints, metrics.path, recipe.checkpoint_seconds, begun)
    callbacks: list[pl.Callback] = [statistics, metrics, health, checkpointing, ProgressBar(metrics), interruption]
    if job.val is not None:
        callbacks.insert(0, KNNMonitor(job.val, job.bank, job.encoder.to(job.device), metrics))
    failed = False
    with (
        _quiet_lightning(),
        handlers_kept(),
        torch.random.fork_rng(),
        compiled(job.method, recipe.compile == "on"),
        processes.together(recipe),
    ):
        settings, environment = processes.trainer_settings(recipe)
        trainer = pl.Trainer(
            accelerator=recipe.accelerator,
            **settings,
            use_distributed_sampler=False,
            precision=_PRECISION[recipe.precision],  # type: ignore[arg-type]
            accumulate_grad_batches=recipe.accumulate,
            max_epochs=-1,
            callbacks=Together(callbacks),
            plugins=[checkpoints, environment],
            deterministic=recipe.deterministic or None,
            logger=TensorBoardLogger(
                folder, name="tensorboard", version="", purge_step=stored["global_step"] + 1 if stored else None
            ),
            log_every_n_steps=metrics.every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]  # `told` does it
        try:
            trainer.fit(module, loader, ckpt_path=checkpoint, weights_only=True)
        except StopAtOnce:
            raise KeyboardInterrupt from None
        except NotFinite:
            failed = True
        except RuntimeError as error:
            processes.explain(error, recipe)
            raise
    if isinstance(loader, StreamingLoader) and loader.skipped:
        log.warning("skipped %d files that cannot be read; log.txt lists them", len(loader.skipped))
    waited = loader.waited / max(1e-9, module.elapsed - (stored["ownlatent"]["elapsed"] if stored else 0.0))
    if waited > _WAITED and health.verdict.word != STARVED:
        log.warning("waited     for data in %.0f %% of the time: %s", 100 * waited, health.setting.against_waiting)
    encoder_step: int | None = trainer.global_step
    if failed:
        _, kept = checkpoints.newest(tidy=first) or (None, None)
        encoder_step = kept["global_step"] if kept else None
        if kept:
            module.load_state_dict(kept["state_dict"])
    return Outcome(
        finished=not failed and job.budget.progress(trainer.global_step, module.elapsed) >= 1,
        training=_summary(trainer.global_step, module.batches_seen * batches.batch_size, module.elapsed),
        health={**health.verdict.as_dict(), "stopped": health.stopped, "said": health.said},
        encoder_step=encoder_step,
        failed=failed,
        stopped_by=interruption.signal,
    )


def setting_of(recipe: Recipe, against_waiting: str = "") -> Setting:
    """What a verdict has to know of a run with this resolved recipe."""
    assert recipe.batch_size and recipe.optim.base_lr
    return Setting(
        method=recipe.method,
        settings=recipe.method_settings,
        batch_size=recipe.batch_size // recipe.accumulate,
        base_lr=recipe.optim.base_lr,
        usual_lr=usual_lr(recipe, recipe.accelerator),
        against_waiting=against_waiting,
    )


def against_waiting(job: Job) -> str:
    """What to change in a run that waits for its data."""
    assert job.recipe.workers is not None
    ways = []
    if isinstance(job.data, Frames):
        return "the sounds are in memory and cut by the process that trains: --loading streaming has workers do it"
    if isinstance(job.data, Resident):
        return "copying batches to the device takes that long; images that fit a quarter of its memory are kept there"
    if job.recipe.workers < cores():
        ways.append(f"raise --workers to {cores()}, the cores of this machine")
    named = not job.recipe.data.startswith("object:")
    if isinstance(job.data, EncodedSource) and job.recipe.modality == "image" and named:
        ways.append(f"`ownlatent prepare {job.recipe.data} FOLDER` writes smaller files that are faster to decode")
    if job.recipe.workers >= cores() and job.device.type == "cpu":
        ways.append("training and decoding share the processor here, so --workers 1 may do as well")
    return "; ".join(ways) or "the source is slower than the network"


def _summary(steps: int, images: int, seconds: float) -> dict:
    speed = round(images / max(seconds, 1e-9), 1)
    return {"steps": steps, "images": images, "seconds": round(seconds, 2), "images_per_second": speed}


def _every(job: Job) -> int:
    """Steps between two rows of metrics: 10 to 50, twenty rows an epoch between; and no fewer than ten in a run."""
    every = max(10, min(50, int(job.steps_per_epoch / 20)))
    return min(every, max(1, job.budget.steps // 10)) if job.budget.steps else every


@contextmanager
def silently() -> Iterator[None]:
    """A trial, or one of many trainings that make a line of a table, says nothing of its own."""
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's notes about its own defaults are not news to a user of this package."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        # Of 1x1 convolutions, whose gradients have two equal layouts.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
