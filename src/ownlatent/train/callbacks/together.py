"""Several callbacks that Lightning calls as one."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch


class Together(pl.Callback):
    """Hands on what Lightning says, in order; the state of each is kept by the name of its class.

    Lightning spends some ten microseconds on every hook of every callback, six hooks a step, whether there is anything
    to do or not: for six callbacks that is more than they need themselves.
    """

    def __init__(self, callbacks: Sequence[pl.Callback]):
        self.callbacks = tuple(callbacks)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for each in self.callbacks:
            each.setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for each in self.callbacks:
            each.on_train_start(trainer, pl_module)

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        for each in self.callbacks:
            each.on_before_optimizer_step(trainer, pl_module, optimizer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for each in self.callbacks:
            each.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for each in self.callbacks:
            each.on_train_end(trainer, pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        for each in self.callbacks:
            each.on_exception(trainer, pl_module, exception)

    def state_dict(self) -> dict[str, Any]:
        return {type(each).__name__: each.state_dict() for each in self.callbacks}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for each in self.callbacks:
            each.load_state_dict(state_dict.get(type(each).__name__, {}))
