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

_SHARE = 0.04  # of the training time at most goes into measuring
_MOST = 2000  # images of either part used while training; the evaluation at the end uses all


class KNNMonitor(pl.Callback):
    """Measures k-NN after every `every` of the run, or as often as it can afford, for the next metrics row.

    val: labelled images. bank: labelled images to classify them by; without it, by each other.
    """

    def __init__(self, val: Resident, bank: Resident | None, encoder: Encoder, metrics: Metrics, every: float = 0.1):
        self.parts = [_spread(part) for part in (bank, val) if part is not None]
        self.encoder, self.metrics, self.every = encoder, metrics, every
        self._next = every
        self._cost = 0.0  # seconds that the last measurement took

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Pretraining)
        self._next = (int(pl_module.progress / self.every) + 1) * self.every

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        if pl_module.progress < self._next or pl_module.elapsed < self._cost / _SHARE:
            return
        self._next += self.every
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
