"""Writes what happens to metrics.csv and TensorBoard, a row every few steps."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch

from ownlatent.diagnostics.collapse import relative_std
from ownlatent.files import replace_file
from ownlatent.nn.collectives import average, gather
from ownlatent.train.callbacks.statistics import NAMES, Statistics
from ownlatent.train.module import Pretraining, weight_norm

COLUMNS = (
    "step",
    "epoch",
    "progress",
    "seconds",
    "loss",
    "lr",
    "tau",
    "std",
    "gradient_norm",
    "weight_norm",
    "images_per_second",
    "waiting",
    "knn",
    *NAMES,
)


class Metrics(pl.Callback):
    """One row every `every` optimiser steps; `latest` is the last row, for whoever shows it, and `rows` are all.

    The columns are COLUMNS, then the method's other schedules and the terms of its loss, of one batch as std is.
    loss is the mean since the last row, std the relative_std of the projections of one batch, gradient_norm that of
    the last step, weight_norm that of all trained parameters, waiting the share of time in which training had no data.
    Those of Statistics are there whenever they are due. All of it stays on the device between rows. Of several
    processes the numbers are those of all images together, and the first one writes them.
    """

    def __init__(self, folder: Path, loader: Any, statistics: Statistics, steps_per_epoch: float, every: int):
        self.path, self.loader, self.statistics = folder / "metrics.csv", loader, statistics
        self.steps_per_epoch, self.every = steps_per_epoch, every
        self.latest: dict[str, float | int | str] = {}
        self.rows: list[dict[str, float | None]] = []
        self.measurements = 0  # of rows with Statistics, since training went on
        self.knn: float | None = None
        self.paused = 0.0  # seconds in which other callbacks held training up
        self._losses: list[torch.Tensor] = []
        self._last = (0, 0.0, 0.0, 0.0)  # batches, seconds, paused and waited at the last row

    def state_dict(self) -> dict[str, Any]:
        """What the next row will be made of."""
        losses = list(average(torch.stack(self._losses).float()).cpu()) if self._losses else []
        return {"losses": losses, "knn": self.knn}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._losses, self.knn = state_dict["losses"], state_dict["knn"]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Pretraining)
        self._losses = [loss.to(pl_module.device) for loss in self._losses]
        if trainer.is_global_zero:
            self.rows = _keep_rows(self.path, trainer.global_step)
        self._last = (pl_module.batches_seen, pl_module.elapsed, self.paused, self.loader.waited)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining) and pl_module.output is not None
        self._losses.append(pl_module.output.loss.detach())
        step = trainer.global_step
        stepped = pl_module.batches_seen % trainer.accumulate_grad_batches == 0
        # No row of its own where a run is stopped: the resumed run would have one more than an uninterrupted one.
        last = trainer.should_stop and not pl_module.stop_requested
        if stepped and (step % self.every == 0 or step == 1 or last):
            self._write(trainer, pl_module, step, batch[0])

    def _write(self, trainer: pl.Trainer, module: Pretraining, step: int, views: Sequence[torch.Tensor]) -> None:
        assert module.output is not None and module.gradient_norm is not None
        output = module.output
        on_device = [torch.stack(self._losses).mean(), module.gradient_norm, weight_norm(module.trained)]
        on_device += [relative_std(gather(output.embeddings)), *output.terms.values()]
        # All at once: reading a number makes an accelerator finish what is queued.
        loss, gradient, weight, std, *terms = average(torch.stack([number.float() for number in on_device])).tolist()
        self._losses.clear()
        due = self.statistics.due(step, module.progress)
        measured = self.statistics.measure(module, views, step) if due else {}
        self.measurements += due
        if not trainer.is_global_zero:
            return
        batches, seconds, paused, waited = self._last
        self._last = (module.batches_seen, module.elapsed, self.paused, self.loader.waited)
        span = max(1e-9, self._last[1] - seconds - (self.paused - paused))
        progress, recipe = module.progress, module.recipe
        scheduled = module.method.scheduled(module.step_progress)
        assert recipe.batch_size is not None
        self.latest = {
            "step": step,
            "epoch": round(step / self.steps_per_epoch, 3),
            "progress": round(progress, 5),
            "seconds": round(module.elapsed, 2),
            "loss": round(loss, 5),
            "lr": round(trainer.optimizers[0].param_groups[0]["lr"], 8),
            "tau": _rounded(scheduled.pop("tau", None), 6),
            "std": round(std, 4),
            "gradient_norm": _significant(gradient),
            "weight_norm": _significant(weight),
            "images_per_second": round((self._last[0] - batches) * (recipe.batch_size // recipe.accumulate) / span, 1),
            "waiting": round((self.loader.waited - waited) / span, 4),
            "knn": _rounded(self.knn, 4),
            **{name: _significant(measured[name]) if name in measured else "" for name in NAMES},
            **{name: round(value, 6) for name, value in scheduled.items()},
            **{name: round(term, 6) for name, term in zip(output.terms, terms, strict=True)},
        }
        self.knn = None
        self.rows.append({name: None if value == "" else float(value) for name, value in self.latest.items()})
        new = not self.path.exists()
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(self.latest))
            if new:
                writer.writeheader()
            writer.writerow(self.latest)
        if trainer.logger is not None:
            numbers = {k: float(v) for k, v in self.latest.items() if k != "step" and v != ""}
            trainer.logger.log_metrics(numbers, step=step)


def _rounded(value: float | None, digits: int) -> float | str:
    """A cell of the table; empty where the method or the run has no such value."""
    return "" if value is None else round(value, digits)


def _significant(value: float) -> float:
    return float(f"{value:.5g}")


def read_rows(path: Path) -> list[dict[str, float | None]]:
    """The rows of a metrics.csv, empty cells as None."""
    with path.open(newline="") as file:
        return [{k: float(v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]


def _keep_rows(path: Path, step: int) -> list[dict[str, float | None]]:
    """Drop the rows after a step, which a resumed run will write again; returns the others."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        # The last row may be torn; then it is one that will be written again, for rows are on disk before a checkpoint.
        rows = [row for row in reader if None not in row.values() and int(row["step"]) <= step]
        columns = reader.fieldnames or COLUMNS
    if not rows:
        path.unlink()  # the header may be torn as well
        return []
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, text.getvalue().encode())
    return read_rows(path)
