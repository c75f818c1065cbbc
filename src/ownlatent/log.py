"""Where the package's messages go: to the console, and into a run's log.txt."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger("ownlatent")


class _Buffer(logging.Handler):
    """Keeps what is said before the run folder exists, for its log.txt."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class _Console(logging.StreamHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):  # `| head` has read enough: the command line ends quietly
            raise
        super().handleError(record)


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A disk that is full is told by whoever writes what matters, and not by a traceback for every line."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class _Application(logging.Handler):
    """Hands news on to the handlers that the application set up, and details only if it asked for them."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().handle(record)


@contextmanager
def to_console() -> Iterator[_Buffer]:
    """Print the package's messages to stdout, unless the application set up logging of its own."""
    buffer, propagate = _Buffer(), log.propagate
    handlers: list[logging.Handler] = [buffer]
    if not log.handlers and not logging.getLogger().handlers:
        console = _Console(sys.stdout)
        console.setFormatter(logging.Formatter("%(message)s"))
        console.setLevel(logging.INFO)  # every skipped file is a debug message: log.txt lists them
        handlers.append(console)
    elif not log.handlers:
        handlers.append(_Application(log.getEffectiveLevel()))
        log.propagate = False
    level = log.level
    log.setLevel(logging.DEBUG)
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield buffer
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        log.setLevel(level)
        log.propagate = propagate


@contextmanager
def to_file(folder: Path, buffered: _Buffer) -> Iterator[None]:
    """Write them to the folder's log.txt too, those said before it existed first."""
    # Names of files need not be text: what cannot be written as UTF-8 is escaped.
    file = _File(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    for record in buffered.records:
        file.emit(record)
    log.removeHandler(buffered)
    log.addHandler(file)
    try:
        yield
    finally:
        log.removeHandler(file)
        with suppress(OSError):
            file.close()
