"""Where the package's messages go: to the console, and into a run's log.txt."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

log = logging.getLogger("ownlatent")


class _Buffer(logging.Handler):
    """Keeps what is said before the run folder exists, for its log.txt."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def to_console() -> Iterator[_Buffer]:
    """Print the package's messages to stdout, unless the application set up logging of its own."""
    buffer = _Buffer()
    handlers: list[logging.Handler] = [buffer]
    if not log.handlers and not logging.getLogger().handlers:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(logging.Formatter("%(message)s"))
        console.setLevel(logging.INFO)  # every skipped file is a debug message: log.txt lists them
        handlers.append(console)
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


@contextmanager
def to_file(folder: Path, buffered: _Buffer) -> Iterator[None]:
    """Write them to the folder's log.txt too, those said before it existed first."""
    # Names of files need not be text: what cannot be written as UTF-8 is escaped.
    file = logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
    file.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
    for record in buffered.records:
        file.emit(record)
    log.removeHandler(buffered)
    log.addHandler(file)
    try:
        yield
    finally:
        log.removeHandler(file)
        file.close()
