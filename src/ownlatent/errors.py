"""The one exception that means: the input is wrong, and here is what to do about it; and the words for that."""

import difflib
from collections.abc import Iterable


class OwnlatentError(Exception):
    """A mistake in what the user gave, told in one sentence with the remedy; the CLI exits with 2."""


def option(name: str) -> str:
    """How the command line writes a dotted name, for messages and help.

    >>> option("optim.base_lr")
    '--optim.base-lr'
    """
    return "--" + name.replace("_", "-")


def nearest(name: str, valid: Iterable[str], most: int = 3) -> str:
    """Name the valid names closest to a wrong one, as the end of a sentence.

    >>> nearest("resnet81", ["resnet18", "vgg11"])
    'the nearest is resnet18'
    """
    valid = list(valid)
    found = difflib.get_close_matches(name, valid, n=most, cutoff=0.5)
    if len(found) == 1:
        return f"the nearest is {found[0]}"
    if found:
        return "the nearest are " + ", ".join(found)
    return "valid are " + ", ".join(sorted(valid)[:12]) + (", ..." if len(valid) > 12 else "")
