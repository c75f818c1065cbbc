"""From labels as a data set stores them to numbers from 0 and the names of the classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ownlatent.errors import OwnlatentError

NAMES = ("label", "labels", "class", "target")  # what the label is called, the surest name first
Label = int | str | None


def number_labels(
    values: Sequence[Label], names: Sequence[str] | None, source: str, remedy: str
) -> tuple[np.ndarray, list[str]]:
    """Labels (N,) int64 and the classes that they number.

    names: what a number means, where that is known; else each value is its own name, and the classes are
    those that occur. remedy: the end of the sentence that says that labels are missing; -1 is a
    missing one too where the numbers are places in a list of names.

    Raises OwnlatentError if any label is missing, has no name, or if all are one class.

    >>> labels, classes = number_labels([3, 10, 3], None, "x", "")
    >>> labels.tolist(), classes
    ([0, 1, 0], ['3', '10'])
    """
    values = _as_numbers(values)
    numbers = all(isinstance(value, int) for value in values if value is not None)
    no_label = (None, -1) if numbers and (names or set(values) <= {None, -1}) else (None,)
    missing = sum(value in no_label for value in values)
    if missing == len(values):
        raise OwnlatentError(f"{source} has no labels: {remedy}")
    if missing:
        raise OwnlatentError(f"{missing} of the {len(values)} images of {source} have no label: {remedy}")
    if numbers and names:
        wrong = next((value for value in values if not 0 <= int(value or 0) < len(names)), None)
        if wrong is not None:
            raise OwnlatentError(
                f"{source} has a label {wrong}, but its list of classes has {len(names)} names, numbered from 0: "
                "complete the list"
            )
        array, classes = np.array(values, np.int64), list(names)
    else:
        present, array = np.unique(
            np.array(values if numbers else [str(value) for value in values]), return_inverse=True
        )
        classes = [str(value) for value in present.tolist()]
        array = array.astype(np.int64)
    if (array == array[0]).all():
        raise OwnlatentError(f"all images of {source} have one label, {classes[array[0]]!r}: give at least two classes")
    return array, classes


def _as_numbers(values: Sequence[Label]) -> list[Label]:
    """True and False as 1 and 0, and text as whole numbers if all of it is, written as Python writes them."""
    plain = [int(value) if isinstance(value, int) else value for value in values]
    try:
        numbers: list[Label] = [None if value is None else int(value) for value in plain]
    except ValueError:
        return list(plain)
    # "1" and "01" are two classes.
    return numbers if all(map(str.__eq__, map(str, numbers), map(str, plain))) else list(plain)


def read_classes(folder: Path) -> list[str] | None:
    """The lines of classes.txt in a folder, in the order of the labels, or None without such a file."""
    try:
        lines = (folder / "classes.txt").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return [line.strip() for line in lines if line.strip()] or None


def find_column(columns: Mapping[str, bool], source: str) -> str:
    """The name of the column that holds the labels. columns: whether each is said to hold classes.

    Raises OwnlatentError, with the columns' names, if there is none or if it could be several.
    """
    if NAMES[0] in columns:
        return NAMES[0]
    found = [name for name, is_class in columns.items() if is_class or name in NAMES or name.endswith("_label")]
    if not found:
        raise OwnlatentError(
            f"{source} has no labels: its columns are {', '.join(columns)}, and labels must be in one called `label`"
        )
    if len(found) > 1:
        raise OwnlatentError(
            f"{source} has several columns of labels, {', '.join(found)}: rename the one to use to `label`"
        )
    return found[0]
