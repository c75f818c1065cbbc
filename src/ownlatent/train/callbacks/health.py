"""Says when a run goes bad, while it does, and stops it where more training cannot help."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from ownlatent.data.loader import Batches
from ownlatent.diagnostics.verdict import HEALTHY, STOPPING, TOO_EARLY, Setting, Verdict, judge, not_finite
from ownlatent.nn.collectives import gather, told
from ownlatent.train.callbacks.metrics import Metrics
from ownlatent.train.failure import keep
from ownlatent.train.finite import NotFinite
from ownlatent.train.module import Pretraining

log = logging.getLogger("ownlatent")
_GRACE = 0.1  # of the run, in which nothing is stopped: some runs begin badly and recover


class Health(pl.Callback):
    """Judges after every measurement; comes after Metrics.

    stop: whether to stop a run that has collapsed or diverges. `verdict` is the present one, `said` every change of the
    word with its step. A loss or gradient that is not finite ends the run in any case, and its step is kept.
    """

    def __init__(self, folder: Path, metrics: Metrics, setting: Setting, batches: Batches, stop: bool):
        self.folder, self.metrics, self.setting, self.batches, self.stop = folder, metrics, setting, batches, stop
        self.verdict = Verdict(TOO_EARLY)
        self.said: list[dict[str, Any]] = []
        self.stopped = False
        self._judged = 0  # measurements

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, Pretraining)
        if self.metrics.measurements == self._judged:
            return
        self._judged = self.metrics.measurements
        if trainer.is_global_zero:  # which has the rows
            self._say(judge(self.metrics.rows, self.setting))
        if self.stop and pl_module.progress >= _GRACE and told([self.verdict.word in STOPPING])[0]:
            self.stopped = trainer.should_stop = True

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if isinstance(exception, NotFinite):
            assert isinstance(pl_module, Pretraining)
            self.stopped = True
            passes = exception.window.passes  # in all processes: the bad image may be another's
            passes[:] = [([gather(view) for view in views], *map(gather, labels)) for views, *labels in passes]
            if not trainer.is_global_zero:
                return
            keep(exception, pl_module, self.batches, self.folder)
            self._say(not_finite(exception.what, exception.value, self.setting, exception.window.step))

    def _say(self, verdict: Verdict) -> None:
        before, self.verdict = self.verdict.word, verdict
        if verdict.word == before:
            return
        self.said.append({"step": verdict.step, "word": verdict.word})
        if verdict.word not in (HEALTHY, TOO_EARLY):
            log.warning("step %d is %s", verdict.step, verdict)
        elif before not in (HEALTHY, TOO_EARLY):
            log.info("step %d is %s again", verdict.step, verdict.word)

    def state_dict(self) -> dict[str, Any]:
        return {"said": self.said, "word": self.verdict.word}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.said, self.verdict = state_dict["said"], Verdict(state_dict["word"])
