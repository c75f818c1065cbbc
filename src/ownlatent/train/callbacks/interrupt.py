"""Ctrl-C and SIGTERM end a run between two optimiser steps, with everything saved."""

import logging
import signal
import threading
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from ownlatent.train.module import Pretraining

log = logging.getLogger("ownlatent")
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption(pl.Callback):
    """The first signal asks training to stop after the step under way; a second Ctrl-C ends it at once.

    Set when training starts, because Lightning's own handlers, which raise in the middle of the
    loop, are set just before. Outside the main thread Python allows no handlers, and none are set.
    """

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Pretraining)
        module = pl_module

        def stop(number: int, frame: FrameType | None) -> None:
            if module.stop_requested:
                raise KeyboardInterrupt
            module.stop_requested = True
            log.warning("stopping after this step; everything will be saved")

        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, stop) for number in _SIGNALS}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
