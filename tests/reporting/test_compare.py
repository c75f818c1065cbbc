"""Runs side by side: only what was measured alike, and with the interval of the difference."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ownlatent.errors import OwnlatentError
from ownlatent.evaluation.intervals import paired_difference
from ownlatent.reporting.compare import compare

TRUTH = np.arange(200) % 2


def run(folder: Path, accuracy: float, seed: int = 0, **changes: Any) -> tuple[list[dict[str, Any]], Path]:
    """One evaluated run: entries, and the file of its predictions."""
    right = np.random.default_rng(seed).random(200) < accuracy
    predicted = np.where(right, TRUTH, 1 - TRUTH)
    settings = {"k": 20, "temperature": 0.07} | changes.get("settings", {})
    data = {"train": "train", "test": "test", "split": "train-test", "train_fingerprint": "1", "test_fingerprint": "2"}
    data |= changes.get("data", {})
    folder.mkdir(exist_ok=True)
    file = folder / "predictions.npz"
    np.savez(file, key=predicted[None], truth=TRUTH)
    entry = {"protocol": "knn", "settings": settings, "data": data, "subject": "trained"}
    entry |= {"predictions": "key", "truth": "truth"}
    return [{**entry, "top1": float(right.mean())}, {**entry, "subject": "random", "top1": 0.1}], file


def test_the_difference_is_paired_over_the_test_images(tmp_path: Path):
    first, second = run(tmp_path / "a", 0.6, 0), run(tmp_path / "b", 0.8, 1)
    header, body, left_out = compare({"a": first, "b": second})
    assert header == ["protocol", "a", "b", "less a (95 %)"] and not left_out
    rights = [np.load(file)["key"] == TRUTH for _, file in (second, first)]
    gain = paired_difference(*rights)
    told = f"{100 * gain.mean:+.2f} ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})"
    assert body == [["k-NN, k 20, temperature 0.07", *(f"{100 * r[0][0]['top1']:.2f}" for r in (first, second)), told]]


def test_without_predictions_there_is_no_interval(tmp_path: Path):
    first, second = run(tmp_path / "a", 0.6), run(tmp_path / "b", 0.8)
    second[1].unlink()
    assert "to" not in compare({"a": first, "b": second})[1][0][-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"settings": {"k": 200}}, "in b k is 200 and not 20"),
        ({"settings": {"layer": "layer3"}}, "layer is layer3 and not none"),
        ({"data": {"test_fingerprint": "9", "test": "other"}}, r"the test images are others \(other\)"),
        ({"data": {"split": "leave-one-out"}}, "split is leave-one-out and not train-test"),
    ],
)
def test_what_was_measured_otherwise_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], words: str):
    with pytest.raises(OwnlatentError, match=words):
        compare({"a": run(tmp_path / "a", 0.6), "b": run(tmp_path / "b", 0.8, **changes)})


def test_what_only_one_run_has_is_left_out_and_said(tmp_path: Path):
    first, second = run(tmp_path / "a", 0.6), run(tmp_path / "b", 0.8)
    more = {**first[0][0], "protocol": "linear", "settings": {}}
    _, body, left_out = compare({"a": ([*first[0], more], first[1]), "b": second})
    assert len(body) == 1 and left_out == ["linear probe, logistic regression: b has no linear"]


def test_a_run_that_was_not_evaluated_is_told_how(tmp_path: Path):
    with pytest.raises(OwnlatentError, match="b has not been evaluated: ownlatent evaluate b"):
        compare({"a": run(tmp_path / "a", 0.6), "b": ([], tmp_path / "none.npz")})


def test_comparing_needs_no_torch():
    code = "import sys, ownlatent.reporting.compare; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
