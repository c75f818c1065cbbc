"""The words that an evaluation ends with."""

from typing import Any

import pytest

from ownlatent.proof.verdict import sentences


def entry(subject: str, gain: tuple[float, float, float] | None = None, **changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = {"protocol": "linear", "settings": {}, "subject": subject, "top1": 0.5}
    made |= {"num_train": 1000, "num_test": 200, "training": {"minutes": 1.25}} | changes
    if gain is not None:
        made["trained_is"] = dict(zip(("mean", "low", "high"), gain, strict=True))
    return made


@pytest.mark.parametrize(
    ("gain", "words"),
    [
        ((0.2, 0.15, 0.25), "Pre-training helped: 20.0 points above the raw pixels, the best baseline, by the linear"),
        ((-0.2, -0.25, -0.15), "Pre-training hurt: 20.0 points below the raw pixels"),
        ((0.02, -0.01, 0.05), "It cannot be told whether pre-training helped: +2.0 points against the raw pixels"),
    ],
)
def test_the_interval_decides(gain: tuple[float, float, float], words: str):
    (line,) = sentences([entry("trained"), entry("random", (0.4, 0.3, 0.5)), entry("pixels", gain)])
    assert line.startswith(words)


def test_linear_decides_before_knn_and_a_k_near_20_before_others():
    def knn(subject: str, k: int, gain: tuple[float, float, float] | None = None) -> dict[str, Any]:
        return entry(subject, gain, protocol="knn", settings={"k": k})

    ones = [knn("trained", 1), knn("random", 1, (-0.1, -0.2, -0.05))]
    twenties = [knn("trained", 20), knn("random", 20, (0.3, 0.2, 0.4))]
    linear = [entry("trained"), entry("random", (0.1, 0.05, 0.2))]
    assert "30.0 points above" in sentences([*ones, *twenties])[0]
    assert "10.0 points above" in sentences([*ones, *twenties, *linear])[0]


def test_without_label_free_baselines_nothing_is_claimed():
    (line,) = sentences([entry("trained"), entry("timm:resnet18", (0.3, 0.2, 0.4))])
    assert "not told" in line


def test_few_labels_are_compared_with_training_on_them_from_scratch():
    few = {"protocol": "low-shot", "settings": {"labels": "1%"}, "num_train": 10}
    group = [entry("trained", **few), entry("random", (0.1, 0.05, 0.2), **few)]
    ahead = sentences([*group, entry("supervised", (0.1, 0.02, 0.2), **few)])
    assert ahead[1].startswith("With 10 labels the encoder is 10.0 points ahead of the same network")
    assert "for 1.2 minutes" in ahead[1] and "cannot be told" not in ahead[1]
    behind = sentences([*group, entry("supervised", (-0.1, -0.2, 0.02), **few)])
    assert "10.0 points behind" in behind[1] and behind[1].endswith("which cannot be told from none.")


def test_the_number_of_labels_that_match_all_of_them():
    group = [entry("trained"), entry("random", (0.1, 0.05, 0.2)), entry("supervised", (-0.1, -0.2, 0), top1=0.6)]
    curve = [{"labels": "1%", "num": 10, "top1": 0.4}, {"labels": "10%", "num": 100, "top1": 0.61}]
    assert "With 100 labels a linear layer on the encoder reaches the 60.0%" in sentences(group, curve)[-1]
    assert "With no number of labels" in sentences(group, curve[:1])[-1]
