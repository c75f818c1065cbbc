"""What tests of whole runs share: one order of summation, and a way to stop on the way."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch

from ownlatent.train.callbacks.metrics import Metrics


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Bit-identical runs need one order of summation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[None]]:
    """Within `stop_at(n)` a run is asked to stop, as Ctrl-C would ask it, when the row of step n is written."""

    @contextmanager
    def stopping(at: int) -> Iterator[None]:
        write = Metrics._write

        def write_and_stop(self: Metrics, trainer: Any, module: Any, step: int, views: Any) -> None:
            write(self, trainer, module, step, views)
            module.stop_requested = step == at

        with monkeypatch.context() as patched:
            patched.setattr(Metrics, "_write", write_and_stop)
            yield

    return stopping
