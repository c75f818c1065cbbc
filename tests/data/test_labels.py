"""From stored labels to numbers and names, and which column holds them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ownlatent.data.labels import Label, find_column, number_labels, read_classes

Refuses = Callable[..., str]


@pytest.mark.parametrize(
    ("values", "names", "numbers", "classes"),
    [
        ([2, 0, 2], None, [1, 0, 1], ["0", "2"]),
        ([10, 9], None, [1, 0], ["9", "10"]),
        (["10", "9"], None, [1, 0], ["9", "10"]),
        (["b", "a", "b"], None, [1, 0, 1], ["a", "b"]),
        (["1", "01", "1"], None, [1, 0, 1], ["01", "1"]),
        (["+1", "-1"], None, [0, 1], ["+1", "-1"]),
        (["b", 1], None, [1, 0], ["1", "b"]),
        ([True, False], None, [1, 0], ["0", "1"]),
        ([-1, 1], None, [0, 1], ["-1", "1"]),
        ([2, 0], ["x", "y", "z"], [2, 0], ["x", "y", "z"]),
        (["2", "0"], ["x", "y", "z"], [2, 0], ["x", "y", "z"]),
        (["cat", "dog"], ["x", "y", "z"], [0, 1], ["cat", "dog"]),
        ([10**30, 5], None, [1, 0], ["5", str(10**30)]),
    ],
)
def test_labels_are_numbered(
    values: list[Label], names: list[str] | None, numbers: list[int], classes: list[str]
) -> None:
    labels, found = number_labels(values, names, "x", "")
    assert labels.dtype == np.int64 and labels.tolist() == numbers and found == classes


@pytest.mark.parametrize(
    ("values", "names", "words"),
    [
        ([None, None], None, "x has no labels: add them"),
        ([-1, -1], None, "x has no labels: add them"),
        ([1, None, 0], None, "1 of the 3 images of x have no label: add them"),
        ([-1, 0, 1], ["a", "b"], "1 of the 3 images of x have no label"),
        ([0, 2], ["a", "b"], "a label 2, but its list of classes has 2 names"),
        ([0, -2], ["a", "b"], "a label -2"),
        ([0, 10**30], ["a", "b"], "but its list of classes"),
        ([4, 4], None, "all images of x have one label, '4'"),
        (["a"], None, "all images of x have one label, 'a'"),
    ],
)
def test_labels_that_cannot_be_used(values: list[Label], names: list[str] | None, words: str, refuses: Refuses) -> None:
    refuses(lambda: number_labels(values, names, "x", "add them"), words)


def test_names_beside_the_data(tmp_path: Path) -> None:
    assert read_classes(tmp_path) is None
    (tmp_path / "classes.txt").write_text("cat\n white dog \n\n", encoding="utf-8")
    assert read_classes(tmp_path) == ["cat", "white dog"]
    for content in (b"\n", b"\xff\xfe"):
        (tmp_path / "classes.txt").write_bytes(content)
        assert read_classes(tmp_path) is None


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"id": False, "label": False}, "label"),
        ({"label": False, "fine_label": True, "target": False}, "label"),
        ({"id": False, "breed": True}, "breed"),
        ({"id": False, "fine_label": False}, "fine_label"),
        ({"class": False}, "class"),
    ],
)
def test_the_column_of_labels(columns: dict[str, bool], column: str) -> None:
    assert find_column(columns, "x") == column


def test_a_column_that_cannot_be_told(refuses: Refuses) -> None:
    refuses(lambda: find_column({"id": False, "url": False}, "x"), "x has no labels: its columns are id, url")
    refuses(lambda: find_column({}, "x"), "x has no labels: its columns are")
    several = {"id": False, "fine_label": True, "coarse_label": True}
    refuses(lambda: find_column(several, "x"), "several columns of labels, fine_label, coarse_label")
