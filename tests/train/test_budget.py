"""Progress through a run, by steps or by the clock."""

from math import inf

import pytest

from ownlatent.train.budget import Budget


@pytest.mark.parametrize(("step", "progress"), [(0, 0.0), (1, 0.01), (50, 0.5), (99, 0.99), (100, 1.0), (150, 1.0)])
def test_by_steps_the_clock_does_not_matter(step: int, progress: float) -> None:
    assert {Budget(steps=100).progress(step, elapsed) for elapsed in (0.0, 3.0, inf)} == {progress}


@pytest.mark.parametrize(("elapsed", "progress"), [(0.0, 0.0), (15.0, 0.25), (60.0, 1.0), (61.0, 1.0)])
def test_by_seconds_the_step_does_not_matter(elapsed: float, progress: float) -> None:
    assert {Budget(seconds=60.0).progress(step, elapsed) for step in (0, 7, 10**9)} == {progress}


def test_the_last_step_is_before_the_end_and_the_next_is_not() -> None:
    """Steps count from 0: of three, the third still runs and there is no fourth."""
    budget = Budget(steps=3)
    assert [budget.progress(step, 0) < 1 for step in range(5)] == [True, True, True, False, False]
