"""Schedules as functions of progress, with the values of BYOL's published runs."""

from itertools import pairwise
from math import pi

import pytest

from ownlatent.optim.schedules import cosine, warmup_cosine

STEPS, WARMUP = 312_784, 3_127  # 1000 epochs of ImageNet at batch 4096, ten of them warm-up


def lr(step: int) -> float:
    return warmup_cosine(step / STEPS, peak=3.2, warmup=WARMUP / STEPS)


def test_learning_rate_of_the_thousand_epoch_run():
    """lr(0) = 0, lr(1) = 3.2 / 3127, the peak exactly at the end of the warm-up, 0 at the end."""
    assert lr(0) == 0
    assert lr(1) == pytest.approx(0.00102, abs=5e-6)
    assert lr(WARMUP) == pytest.approx(3.2, rel=1e-12)
    assert lr(STEPS) == 0
    assert lr((STEPS + WARMUP) // 2) == pytest.approx(1.6, rel=1e-4)  # half the decay


def test_learning_rate_rises_linearly_then_only_falls():
    up = [warmup_cosine(k / 100, peak=2.0, warmup=0.2) for k in range(21)]
    down = [warmup_cosine(k / 100, peak=2.0, warmup=0.2) for k in range(20, 101)]
    assert up == pytest.approx([0.1 * k for k in range(21)], abs=1e-12)
    assert all(later < earlier for earlier, later in pairwise(down))


def test_warmup_and_decay_meet_without_a_jump():
    assert warmup_cosine(0.2 - 1e-9, peak=2.0, warmup=0.2) == pytest.approx(2.0, abs=1e-7)
    assert warmup_cosine(0.2 + 1e-9, peak=2.0, warmup=0.2) == pytest.approx(2.0, abs=1e-7)


@pytest.mark.parametrize(("warmup", "end"), [(0.0, 0.0), (0.1, 0.0), (0.1, 0.003), (0.5, 1.0)])
def test_end_value_is_reached(warmup: float, end: float):
    assert warmup_cosine(1.0, peak=3.0, warmup=warmup, end=end) == pytest.approx(end, abs=1e-15)


def test_without_warmup_the_run_starts_at_the_peak():
    assert warmup_cosine(0.0, peak=3.0) == 3.0


def test_cosine_values():
    """Start, a quarter, half, three quarters, end: (1 + cos(pi x)) / 2 is 1, 0.853553, 0.5, 0.146447, 0."""
    values = [cosine(k / 4, 10.0, 0.0) for k in range(5)]
    assert values == pytest.approx([10.0, 8.53553, 5.0, 1.46447, 0.0], abs=1e-5)
    assert cosine(0.5, 0.99, 1.0) == pytest.approx(0.995, abs=1e-15)


@pytest.mark.parametrize(("start", "end"), [(0.99, 1.0), (1.0, 0.0)])
def test_cosine_is_monotone_and_stays_between_its_ends(start: float, end: float):
    values = [cosine(k / 200, start, end) for k in range(201)]
    steps = [later - earlier for earlier, later in pairwise(values)]
    assert all(step * (end - start) > 0 for step in steps)
    assert values[0] == pytest.approx(start, abs=1e-15) and values[-1] == end
    # Steepest at half time, by the derivative pi / 2 of half a cosine over the unit interval.
    assert max(abs(step) for step in steps) * 200 == pytest.approx(pi / 2 * abs(end - start), rel=1e-3)


@pytest.mark.parametrize("progress", [0.0, 0.37, 1.0])
def test_cosine_between_equal_ends_is_exactly_constant(progress: float):
    """tau = 1 must mean a target that never moves, not one that moves by a rounding error."""
    assert cosine(progress, 1.0, 1.0) == 1.0
