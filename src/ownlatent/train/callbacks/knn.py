"""k-NN accuracy on labelled images while training; the labels stay here."""

from time import perf_counter
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from ownlatent.backbones.encoder import Encoder
from ownlatent.data.resident import Resident
from ownlatent.evaluation.embed import embed
from ownlatent.evaluation.knn import knn_accuracy
from ownlatent.train.callbacks.metrics import Metrics
from ownlatent.train.module import Pretraining

_SHARE = 0.04  # of the minutes of a run at most goes into measuring
_MOST = 2000  # images of either part used while training; the evaluation at the end uses all


class KNNMonitor(pl.Callback):
    """Measures k-NN after every `every` of the run, for the next metrics row; of minutes, as often as it can afford.

    A run by steps measures at the same steps whatever the clock says, so that a resumed one has the same rows.
    val: labelled images. bank: labelled images to classify them by; without it, by each other.
    """

    def __init__(self, val: Resident, bank: Resident | None, encoder: Encoder, metrics: Metrics, every: float = 0.1):
        self.parts = [_spread(part) for part in (bank, val) if part is not None]
        self.encoder, self.metrics, self.every = encoder, metrics, every
        self._passed = 0  # of the run, in units of `every`
        self._cost = 0.0  # seconds that the last measurement took

    def state_dict(self) -> dict[str, int]:
        return {"passed": self._passed}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self._passed = state_dict["passed"]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        passed = int(pl_module.progress / self.every + 1e-9)
        too_dear = pl_module.budget.seconds is not None and pl_module.elapsed < self._cost / _SHARE
        if passed == self._passed or too_dear:
            return
        self._passed = passed
        if not trainer.is_global_zero:
            return
        began = perf_counter()
        dtype = torch.bfloat16 if pl_module.recipe.precision == "bf16" else torch.float32
        parts = [(embed(self.encoder, i, device=pl_module.device, dtype=dtype), labels) for i, labels in self.parts]
        self.metrics.knn = knn_accuracy(*parts[0], *(parts[1] if len(parts) > 1 else (None, None)))
        self._cost = perf_counter() - began
        self.metrics.paused += self._cost


def _spread(data: Resident) -> tuple[Tensor, Tensor]:
    """At most _MOST images and labels, taken evenly from the whole, and so from every class."""
    assert data.labels is not None
    chosen = torch.linspace(0, len(data) - 1, min(len(data), _MOST)).long()
    return data.images[chosen], data.labels[chosen]
