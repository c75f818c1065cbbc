"""When a checkpoint is written."""

import os
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ownlatent.train.checkpoints import Checkpoints
from ownlatent.train.module import Pretraining
from ownlatent.train.recipe import Recipe


class Checkpointing(pl.Callback):
    """Writes one every `recipe.checkpoint_seconds`, and when training ends, between two steps; comes after Metrics.

    The metrics are brought to disk before it, so that a resumed run has all the rows up to its checkpoint.
    """

    def __init__(self, checkpoints: Checkpoints, metrics: Path, recipe: Recipe):
        self.checkpoints, self.metrics, self.recipe = checkpoints, metrics, recipe
        self._last = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Pretraining)
        self._last = pl_module.elapsed
        if trainer.is_global_zero:  # now that all processes have read what it was, where a run goes on otherwise
            self.recipe.save(self.metrics.with_name("recipe.json"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        stepped = pl_module.batches_seen % trainer.accumulate_grad_batches == 0
        due = pl_module.elapsed - self._last >= self.recipe.checkpoint_seconds
        if stepped and (due or trainer.should_stop):
            if trainer.is_global_zero and self.metrics.exists():
                with self.metrics.open("rb+") as file:
                    os.fsync(file.fileno())
            trainer.save_checkpoint(self.checkpoints.at(trainer.global_step))
            self._last = pl_module.elapsed
