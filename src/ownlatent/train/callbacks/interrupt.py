"""Ctrl-C and SIGTERM end a run between two optimiser steps, with everything saved."""

import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning.pytorch as pl

from ownlatent.train.module import Pretraining

log = logging.getLogger("ownlatent")


class StopAtOnce(BaseException):
    """Raised by Ctrl-C; a KeyboardInterrupt would make Lightning end the process by itself."""


class Interruption(pl.Callback):
    """The first signal asks training to stop after the step under way; a second one ends it at once.

    Ctrl-C ends it at once also before the first step. The handlers are set again when training
    starts, because Lightning sets its own for SIGTERM in between, which raises in the middle of the
    loop. Outside the main thread Python allows no handlers, and none are set. `signal` is the name of the one that
    ended the run.
    """

    signal: str | None = None

    def __init__(self) -> None:
        self._before: dict[int, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        def stop(number: int, frame: FrameType | None) -> None:
            raise StopAtOnce

        self._set(signal.SIGINT, stop)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Pretraining)
        module = pl_module

        def stop(number: int, frame: FrameType | None) -> None:
            if module.asked_to_stop:
                raise StopAtOnce
            module.asked_to_stop = True
            self.signal = signal.Signals(number).name
            log.warning("stopping after this step; everything will be saved")

        self._set(signal.SIGINT, stop)
        self._set(signal.SIGTERM, stop)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._restore()

    def _set(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            before = signal.signal(number, handler)
            self._before.setdefault(number, before)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
