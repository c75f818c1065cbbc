"""Intervals against plain resampling, and how often they hold what they promise."""

import subprocess
import sys

import numpy as np
import pytest
from scipy.stats import binomtest

from ownlatent.evaluation.intervals import accuracy_interval, paired_difference


def classified(n: int, first: float, second: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two classifiers that are right on the same easy images and differ on some."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(n)
    return difficulty + 0.2 * rng.random(n) < first, difficulty + 0.2 * rng.random(n) < second


def test_interval_equals_plain_resampling_of_images():
    first, second = classified(400, 0.7, 0.6, 0)
    difference = first.astype(float) - second
    rows = np.random.default_rng(7).integers(0, 400, (10_000, 400))
    low, high = np.quantile(difference[rows].mean(1), [0.025, 0.975])
    found = paired_difference(first, second)
    assert found.mean == pytest.approx(difference.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.004)
    assert found.decided


def test_pairing_makes_the_interval_narrower():
    """Both are right on the same images mostly: a difference of independent accuracies would be known less well."""
    first, second = classified(1000, 0.7, 0.68, 1)
    paired = paired_difference(first, second)
    alone = accuracy_interval(first)
    assert paired.high - paired.low < 0.7 * (alone.high - alone.low)


def test_what_is_the_same_differs_by_nothing():
    first, _ = classified(100, 0.5, 0.5, 0)
    found = paired_difference(first, first)
    assert found.mean == 0 and -0.05 < found.low < 0 < found.high < 0.05 and not found.decided


def test_all_right_against_all_wrong():
    found = paired_difference(np.ones(50, bool), np.zeros(50, bool))
    assert found.mean == found.high == 1 and 0.85 < found.low < 1


@pytest.mark.parametrize("n", [10, 1000])
@pytest.mark.parametrize(("wins", "losses"), [(2, 0), (4, 0), (5, 0), (6, 0), (9, 1), (7, 2), (10, 0), (4, 5)])
def test_a_handful_of_images_decides_no_sooner_than_a_sign_test(n: int, wins: int, losses: int):
    """Exact: the chance of so many wins or more among the images that the two do not share, either way around."""
    first, second = np.zeros(n, bool), np.zeros(n, bool)
    first[:wins], second[wins : wins + losses] = True, True
    exact = binomtest(max(wins, losses), wins + losses).pvalue
    assert paired_difference(first, second).decided == (exact < 0.05)


def test_accuracy_has_wilsons_interval():
    right = np.arange(40) < 31
    found, wilson = accuracy_interval(right), binomtest(31, 40).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=1e-3)
    none = accuracy_interval(np.zeros(3, bool))
    assert none.low == pytest.approx(0, abs=1e-12) and none.mean == 0 and none.high > 0.5


def test_intervals_hold_the_truth_as_often_as_they_say():
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        first, second = rng.random(500) < 0.6, rng.random(500) < 0.55
        found = paired_difference(first, second, seed)
        held += found.low <= 0.05 <= found.high
    assert 0.92 <= held / 300 <= 0.98


def test_intervals_over_draws_hold_the_truth_as_often_as_they_say():
    """Each draw of labels has its own luck, and all are tested on the same images."""
    held = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        hard = rng.random(400)
        right = np.stack([hard < 0.5 + 0.05 * rng.standard_normal() for _ in range(5)])
        found = accuracy_interval(right)
        held += found.low <= 0.5 <= found.high
    assert 0.93 <= held / 300 <= 1.0


def test_few_draws_have_students_interval():
    """Two draws, then three, with what the images add."""
    first = np.repeat([[True], [False]], 10, 1)
    second = np.zeros((2, 10), bool)
    found = paired_difference(first, second)
    assert found.mean == 0.5
    assert (found.low, found.high) == (-1, 1)  # 12.706 standard errors of 0.5 to each side, of shares
    first = np.repeat([[True] * 5 + [False] * 5, [True] * 6 + [False] * 4, [True] * 7 + [False] * 3], 200, 1)
    half = np.sqrt((4.303 * 0.1) ** 2 / 3 + 1.96**2 * np.append(first.mean(0), (0, 1)).var() / 2000)
    assert accuracy_interval(first).high == pytest.approx(0.6 + half)


@pytest.mark.parametrize(("images", "decided"), [(2, False), (5, False), (6, True), (40, True)])
def test_draws_that_agree_do_not_make_a_few_images_many(images: int, decided: bool):
    first, second = np.ones((5, images), bool), np.zeros((5, images), bool)
    assert paired_difference(first, second).decided == decided
    assert accuracy_interval(first).low < 1


def test_no_torch_is_needed():
    code = "import sys, ownlatent.evaluation.intervals; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
