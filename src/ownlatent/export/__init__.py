"""The trained encoder as files that outlive the run."""

import importlib
import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """This package has the name of a verb, and once imported it stands where the verb stood: so it can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return importlib.import_module("ownlatent.api").export(*arguments, **options)


sys.modules[__name__].__class__ = _Room
