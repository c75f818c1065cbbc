"""Keeps one checkpoint that is always whole."""

import os
from pathlib import Path
from time import monotonic
from typing import Any

import lightning.pytorch as pl

from ownlatent.train.module import Pretraining


class Checkpoint(pl.Callback):
    """Writes `last.ckpt` every `seconds`, and when training ends, between two optimiser steps.

    The file is written beside its place, flushed to disk and moved over the old one, so that a
    kill at any moment leaves the old or the new checkpoint, never half of one.
    """

    def __init__(self, folder: Path, seconds: float):
        self.path, self.seconds = folder / "checkpoints" / "last.ckpt", seconds
        self._last = monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        stepped = pl_module.batches_seen % trainer.accumulate_grad_batches == 0
        due = monotonic() - self._last >= self.seconds
        if stepped and (due or trainer.should_stop):
            self._last = monotonic()
            save(trainer, self.path)


def save(trainer: pl.Trainer, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".tmp")
    trainer.save_checkpoint(beside)
    if trainer.is_global_zero:
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
