"""One bar over the whole run: loss, collapse statistic, speed, time left."""

import logging
import sys
from time import monotonic
from typing import Any

import lightning.pytorch as pl
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from ownlatent.train.callbacks.metrics import Metrics
from ownlatent.train.module import Pretraining
from ownlatent.types import NOUNS

log = logging.getLogger("ownlatent")
_LINES = 10  # printed over a run where there is no terminal


class ProgressBar(pl.Callback):
    """A live bar on a terminal; elsewhere a line after every tenth of the run. Neither where nothing is to be said."""

    def __init__(self, metrics: Metrics):
        self.metrics = metrics
        self.console = Console(file=sys.stdout)
        self._bar: Progress | None = None
        self._next_line = 0.0
        self._shown = 0.0
        self._rank = ""  # as last measured

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.console.is_terminal and trainer.is_global_zero and log.isEnabledFor(logging.INFO):
            columns = (
                TextColumn("training"),
                BarColumn(),
                TextColumn("{task.percentage:3.0f}%"),
                TextColumn("{task.fields[text]}"),
            )
            self._bar = Progress(*columns, console=self.console)
            self._bar.add_task("training", total=1.0, text="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        progress, row = pl_module.progress, self.metrics.latest
        if not row:
            return
        if row["rank"] != "":
            self._rank = f"  rank {row['rank']:.0f}"
        if self._bar is not None:
            if monotonic() - self._shown > 0.2:
                self._shown = monotonic()
                self._bar.update(self._bar.task_ids[0], completed=progress, text=_text(row, self._rank, pl_module))
        elif progress >= self._next_line:
            self._next_line = (int(progress * _LINES) + 1) / _LINES
            log.info("%3.0f %%  %s", 100 * progress, _text(row, self._rank, pl_module))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _text(row: dict, rank: str, module: Pretraining) -> str:
    progress, elapsed = module.progress, module.elapsed
    left = elapsed * (1 - progress) / progress if progress > 0 else 0.0
    knn = f"  k-NN {row['knn']:.1%}" if row["knn"] != "" else ""
    noun = NOUNS[module.recipe.modality]
    return (
        f"loss {row['loss']:.3f}  std {row['std']:.2f}{rank}  {row['images_per_second']:.0f} {noun}/s"
        f"{knn}  epoch {row['epoch']:.1f}  {_clock(left)} left"
    )


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
