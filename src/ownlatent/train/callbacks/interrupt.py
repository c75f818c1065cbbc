"""Ctrl-C and SIGTERM end a run between two optimiser steps, with everything saved."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import lightning.pytorch as pl

from ownlatent.train.module import Pretraining

log = logging.getLogger("ownlatent")


class StopAtOnce(BaseException):
    """Raised by Ctrl-C; a KeyboardInterrupt would make Lightning end the process by itself."""


class Interruption(pl.Callback):
    """The first signal asks training to stop after the step under way; a second one ends it at once.

    Ctrl-C ends it at once also before the first step. The handlers are set again when training
    starts, because Lightning sets its own for SIGTERM in between, which raises in the middle of the
    loop. `handlers_kept` puts back those that were there. Outside the main thread Python allows no handlers, and none
    are set. `signal` is the name of the one that ended the run.
    """

    signal: str | None = None

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

    def _set(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


@contextmanager
def handlers_kept() -> Iterator[None]:
    """Afterwards Ctrl-C and SIGTERM mean again what they meant to the program.

    Around all of Lightning: what it puts back in the end are the handlers that it met, and those are ours.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None:  # one that is not Python's
                    signal.signal(number, handler)
