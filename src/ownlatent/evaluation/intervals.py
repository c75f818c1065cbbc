"""How far numbers can be trusted: intervals for accuracies and for their differences, without torch."""

from dataclasses import dataclass
from math import comb

import numpy as np

_RESAMPLES = 10_000
_LEVEL = 0.95
_FEW = 100  # images that differ, up to which an exact test must agree
# Student's t at 0.975 by degrees of freedom; more have less, and get that of 16.
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True)
class Interval:
    """A mean with the ends of its 95 % interval, all three as shares in [-1, 1]."""

    mean: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_difference(first: np.ndarray, second: np.ndarray, seed: int = 0) -> Interval:
    """Accuracy of the first minus that of the second, with its 95 % interval.

    first, second: (N,) bool, which of the same N test images each classified rightly; or (S, N) for S draws of the
    training images, each with both. One draw: paired bootstrap over the test images (percentiles of 10,000
    resamples). Several draws: Student's interval over them, widened by the variance of the mean over test images. Both
    with one more image that only the first has right and one that only the second has, else a handful of images would
    decide (after Agresti and Min 2005); and an exact sign test must agree where few differ.

    >>> paired_difference(np.array([True] * 5 + [False] * 95), np.array([False] * 100)).decided
    False
    >>> paired_difference(np.array([True] * 6 + [False] * 94), np.array([False] * 100)).decided
    True
    """
    difference = np.atleast_2d(first).astype(np.int8) - np.atleast_2d(second).astype(np.int8)
    if len(difference) > 1:
        ahead = difference.sum(0)
        return _unless_few(_over_draws(difference, (-1, 1)), int((ahead > 0).sum()), int((ahead < 0).sum()))
    # Each image is a loss, a tie or a win; N drawn with replacement are a multinomial draw of the three counts.
    counts = np.array([(difference == outcome).sum() + (outcome != 0) for outcome in (-1, 0, 1)])
    total = counts.sum()
    drawn = np.random.default_rng(seed).multinomial(total, counts / total, size=_RESAMPLES)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / total, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    mean = float(difference.mean())
    found = Interval(mean, min(mean, float(low)), max(mean, float(high)))
    return _unless_few(found, int(counts[2]) - 1, int(counts[0]) - 1)


def _unless_few(found: Interval, wins: int, losses: int) -> Interval:
    """The interval, over zero where so few images differ that they tell nothing: exact sign test, two-sided, at 5 %."""
    n, fewer = wins + losses, min(wins, losses)
    if n > _FEW or 2 * sum(comb(n, k) for k in range(fewer + 1)) / 2**n < 1 - _LEVEL:
        return found
    return Interval(found.mean, min(found.low, 0.0), max(found.high, 0.0))


def accuracy_interval(right: np.ndarray) -> Interval:
    """Accuracy with its 95 % interval, from (N,) or (S, N) bool as `paired_difference` takes it.

    One draw: Wilson's interval. Several: as for differences.
    """
    right = np.atleast_2d(right)
    if len(right) > 1:
        found = _over_draws(right.astype(np.int8), (0, 1))
        return Interval(found.mean, max(0.0, found.low), found.high)
    n, mean = right.shape[1], float(right.mean())
    z = 1.96
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return Interval(mean, max(0.0, float(centre - half)), min(1.0, float(centre + half)))


def _over_draws(values: np.ndarray, more: tuple[int, int]) -> Interval:
    """Of values (S, N) of S draws; more: those of two images that are added for the variance over images."""
    draws, images = values.shape
    mean = float(values.mean())
    of_draws = values.mean(1).var(ddof=1) / draws
    of_images = np.append(values.mean(0), more).var() / images
    t = _STUDENT[draws - 2] if draws - 2 < len(_STUDENT) else 2.1
    half = float(np.sqrt(t**2 * of_draws + 1.96**2 * of_images))
    return Interval(mean, max(-1.0, mean - half), min(1.0, mean + half))
