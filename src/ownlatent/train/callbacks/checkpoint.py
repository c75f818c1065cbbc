"""When a checkpoint is written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ownlatent.train.checkpoints import Checkpoints
from ownlatent.train.module import Pretraining


class Checkpointing(pl.Callback):
    """Writes one every `seconds`, and when training ends, between two optimiser steps; comes after Metrics.

    The metrics are brought to disk before it, so that a resumed run has all the rows up to its checkpoint. begun:
    called by the first process when training begins, by when all processes have read what the run was.
    """

    def __init__(self, checkpoints: Checkpoints, metrics: Path, seconds: float, begun: Callable[[], None]):
        self.checkpoints, self.metrics, self.seconds, self.begun = checkpoints, metrics, seconds, begun
        self._last = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Pretraining)
        self._last = pl_module.elapsed
        if trainer.is_global_zero:
            self.begun()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        stepped = pl_module.batches_seen % trainer.accumulate_grad_batches == 0
        due = pl_module.elapsed - self._last >= self.seconds
        if stepped and (due or trainer.should_stop):
            if trainer.is_global_zero and self.metrics.exists():
                with self.metrics.open("rb+") as file:
                    os.fsync(file.fileno())
            trainer.save_checkpoint(self.checkpoints.at(trainer.global_step))
            self._last = pl_module.elapsed
