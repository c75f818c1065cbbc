"""A map-style data set of the user's own, read one item at a time: such need not be safe for threads."""

import os
from collections.abc import Callable
from threading import Lock
from typing import Any

from ownlatent.data.decode import Unreadable
from ownlatent.data.labels import Label
from ownlatent.data.reasons import brief
from ownlatent.errors import OwnlatentError


class Items:
    """__len__, and `item`, which any thread or worker process may call.

    Raises OwnlatentError if there are none. what: of the data, in words, for that sentence.
    """

    def __init__(self, data: Any, name: str | None, what: str):
        self.name = name or type(data).__name__
        self._data = data
        self._lock, self._process = Lock(), os.getpid()
        if not len(data):
            raise OwnlatentError(f"{self.name} is empty: give a data set that holds {what}")

    def __len__(self) -> int:
        return len(self._data)

    def title(self, index: int) -> str:
        return f"{self.name}[{range(len(self))[index]}]"

    def item(self, index: int) -> Any:
        """As the data set gives it. Raises Unreadable, whatever the data set raises."""
        if self._process != os.getpid():  # a forked worker must not wait for a thread that it does not have
            self._lock, self._process = Lock(), os.getpid()
        with self._lock:
            try:
                return self._data[index]
            except Exception as error:  # the user's code: it may raise whatever it likes
                raise Unreadable(f"{type(error).__name__}: {brief(error)}") from error

    def label_of(self, index: int, label_in: Callable[[Any], Label]) -> Label:
        """What `label_in` finds in an item. Raises OwnlatentError if it cannot be read."""
        try:
            return label_in(self.item(index))
        except (Unreadable, TypeError, ValueError, RuntimeError) as error:
            raise OwnlatentError(f"the label of {self.title(index)} cannot be read: {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_process": None}
